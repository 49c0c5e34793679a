"""Archive to store on Ray Data: create, resume, append and filling of gaps are one operation.

The order of writing is what makes it safe to stop anywhere: a shard in one write, then its ledger
record; when all shards stand, flags and coordinates; the root with its consolidated metadata last.
A reader of the store sees the metadata of before or of after, and shards that fit both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pipelines.archives import load_archive
from pipelines.archives.radar import RadarArchive
from pipelines.archives.sources.cache import SourceCache, kept_copies
from pipelines.archives.time_axis import all_times
from pipelines.cluster.session import check_reachable, on_other_nodes, ray_session
from pipelines.conversion.finish import complete
from pipelines.conversion.options import ConversionOptions
from pipelines.conversion.plan import Plan, make_plan
from pipelines.conversion.repair import damaged, remove_strays
from pipelines.conversion.resume import check_continues, due_tasks, remember_options, summarise
from pipelines.conversion.shard_job import converted_on_ray
from pipelines.conversion.shard_task import Destination, utc_now
from pipelines.conversion.static_plan import static_tasks
from pipelines.conversion.static_shards import (
    index_archive,
    remembered_source,
    summary_of,
    write_static_fields,
)
from pipelines.progress import Progress, ignore
from pipelines.storage import places
from pipelines.storage.lease import Lease, hold
from pipelines.storage.retry import STORAGE_WAIT_SECONDS, Retry, retrying
from pipelines.storage.writable import check_no_other_objects, check_store_folder, sweep_partial
from pipelines.stores.ledger import Ledger, ShardRecord
from pipelines.stores.moments import moments_tables
from pipelines.stores.statistics import COUNT

_Say = Callable[[str], None]


@dataclass(frozen=True)
class ConversionRequest:
    """One conversion."""

    archive: str
    source: str
    store: str
    options: ConversionOptions = field(default_factory=ConversionOptions)
    repair: bool = False
    """also convert anew every shard whose bytes do not have the recorded checksum"""
    workers: int | None = None
    """shards in the works at once; None: one a CPU. Bounds the memory: workers x a few shards"""
    static_source: str | None = None
    """NetCDF or GRIB files that hold the static fields; None: as the store was begun, or among the
    files of the source"""
    shared_paths: bool = False
    """local paths are the same on every node of the cluster"""
    source_cache_bytes: int | None = None
    """of remote sources and members of zips that a node keeps while it converts; None: see
    :data:`pipelines.archives.sources.cache.MAX_BYTES`"""
    storage_wait: float = STORAGE_WAIT_SECONDS
    """seconds that an object storage may be away, once work has begun, before the run ends"""


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did."""

    store: str
    frames: int
    shards: int
    shards_written: int
    shards_skipped: int
    gaps: int
    """runs of frames that some variable lacks"""
    missing_frames: int
    unreadable: tuple[str, ...]
    """files whose frames are flagged because they cannot be read, each with the reason"""
    bytes_raw: int
    """of all values as float32"""
    bytes_stored: int
    """of all shards"""
    bytes_converted: int
    """of the values that this run converted, as float32"""
    seconds: float
    seconds_indexing: float
    seconds_starting: float
    """until Ray was there"""
    seconds_converting: float
    changed: bool
    """False: everything was there, nothing was written"""
    statistics_changed: bool
    """True: an existing store got other statistics, and checkpoints of the old ones are refused"""
    notes: tuple[str, ...]
    static_fields: int = 0
    static_fields_written: int = 0


def plan_conversion(request: ConversionRequest, progress: Progress = ignore) -> Plan:
    """The plan of a request, checked against what stands at the store; writes nothing.

    Raises
    ------
    UsageError, SourceError, StoreError
        As :func:`convert` would.
    """
    check_store_folder(request.store)
    with kept_copies(request.source_cache_bytes):
        before = Ledger(request.store).read_plan()
        plan = _plan(request, before, progress)
    if before is None and not places.is_local(request.store):
        check_no_other_objects(request.store, places.names(request.store), _arrays(plan))
    return plan


def _plan(
    request: ConversionRequest,
    summary: dict[str, Any] | None,
    progress: Progress = ignore,
) -> Plan:
    archive = load_archive(request.archive)
    options = remember_options(summary, request.archive, request.options, request.store)
    if isinstance(archive, RadarArchive):
        archive.check_regrid(options.regrid)
    static_source = remembered_source(summary, request.static_source)
    index = index_archive(archive, request.source, static_source, options, progress)
    plan = make_plan(index, options, archive.protocol_splits(all_times(index.variables)))
    check_continues(summary, plan, request.store)
    fields = static_tasks(index.static, options.static_fields, index.variables[0], plan)
    return replace(plan, static=fields)


def convert(
    request: ConversionRequest,
    progress: Progress = ignore,
    say: _Say = lambda line: None,
) -> ConversionReport:
    """Bring the store at ``request.store`` up to the source.

    Raises
    ------
    UsageError, SourceError, StoreError, BusyError
        As the modules of planning, reading and the lease say; what stands at the store stays.
    """
    with kept_copies(request.source_cache_bytes) as cache:
        return _convert(request, cache, progress, say)


def _convert(
    request: ConversionRequest, cache: SourceCache, progress: Progress, say: _Say
) -> ConversionReport:
    began = time.monotonic()
    check_store_folder(request.store)
    ledger = Ledger(request.store)
    with ExitStack() as ending:
        lease, before, plan = _begin(request, say, ending)
        indexed = time.monotonic()
        sweep_partial(request.store)
        channels = {layout.name: layout.channels for layout in plan.layouts}
        moments = ending.enter_context(moments_tables(channels))

        with_values = set[str]()

        def enter(record: ShardRecord, of_frames: np.ndarray) -> None:
            moments[record.variable].write(record.start, of_frames)
            if of_frames[..., COUNT].any():
                with_values.add(record.variable)

        def keep(record: ShardRecord) -> None:
            enter(record, record.moments)

        due, records = list(plan.tasks), dict[tuple[str, int], ShardRecord]()
        if before is not None:
            due, records = due_tasks(plan, request.store, keep)
        removed: list[str] = []
        if request.repair or plan.static or not due:
            lease.permit.confirm()
        if request.repair:
            removed = remove_strays(plan, request.store)
            for place in damaged(request.store, records):
                del records[place]
            due = [task for task in plan.tasks if (task.layout.name, task.shard) not in records]
        summary = summarise(plan, request.source, lease.owner, utc_now())
        summary |= summary_of(plan, remembered_source(before, request.static_source))
        fields, fields_written = write_static_fields(
            plan, request.store, lease.owner, request.repair
        )
        started = converted = time.monotonic()
        if due:
            objects = (before or {}).get("objects", {})
            with ray_session(request.workers):
                started = time.monotonic()
                used = {"--store": request.store, "--source": request.source}
                check_reachable(used, request.shared_paths)
                converting = summary | {"objects": objects, "state": "converting"}
                sure = ending.enter_context(write_plan_in_background(lease, ledger, converting))
                progress(0, len(due))
                destination = Destination(
                    places.absolute(request.store),
                    request.archive,
                    lease.owner,
                    plan.index.options,
                    cache,
                    request.storage_wait,
                    lease.permit,
                )
                try:
                    results = converted_on_ray(due, request.workers, destination, say)
                    for done, (record, of_frames) in enumerate(results, start=1):
                        sure.result()
                        records[record.variable, record.shard] = record
                        enter(record, of_frames)
                        progress(done, len(due))
                finally:
                    on_other_nodes(cache.remove)
                # A worker that was killed has left its file, though another one did its shard.
                sweep_partial(request.store)
                converted = time.monotonic()
        changed, new_statistics = complete(
            plan, records, moments, summary, lease, request.store, fields, new=before is None
        )
    gaps = plan.gaps()
    return ConversionReport(
        store=places.absolute(request.store),
        frames=len(plan.times),
        shards=len(plan.tasks),
        shards_written=len(due),
        shards_skipped=len(plan.tasks) - len(due),
        gaps=len(gaps),
        missing_frames=sum(frames for _, _, frames in gaps),
        unreadable=_unreadable(records),
        bytes_raw=plan.raw_bytes,
        bytes_stored=sum(record.bytes for record in records.values()),
        bytes_converted=sum((t.stop - t.start) * t.layout.frame_bytes for t in due),
        seconds=time.monotonic() - began,
        seconds_indexing=indexed - began,
        seconds_starting=started - indexed,
        seconds_converting=converted - started,
        changed=bool(due or removed or fields_written) or changed,
        statistics_changed=new_statistics,
        notes=(*plan.index.notes, *_empty_notes(plan, with_values)),
        static_fields=len(plan.static),
        static_fields_written=fields_written,
    )


def _empty_notes(plan: Plan, with_values: Collection[str]) -> list[str]:
    return [
        f"{layout.name}: no frame holds a value, nothing can be trained on it: leave it out with "
        "--variables"
        for layout in plan.layouts
        if layout.name not in with_values
    ]


def _begin(
    request: ConversionRequest, say: _Say, ending: ExitStack
) -> tuple[Lease, dict[str, Any] | None, Plan]:
    """The lease, what an earlier run wrote of its plan, and the plan that continues it."""
    ledger = Ledger(request.store)
    retry = retrying(Retry(request.storage_wait, say))
    if not places.is_local(request.store):
        # There a lease is sure after a while only, which is time to plan in.
        # It is the first that is written there: a place that does not take it is refused at once.
        with retrying(Retry(0.0)), ThreadPoolExecutor(1) as aside:
            entries = aside.submit(copy_context().run, places.names, request.store)
            lease = ending.enter_context(hold(request.store, say, confirmed=False))
            found = entries.result()
        ending.enter_context(retry)
        before = ledger.read_plan()
        with retrying(Retry(0.0)):
            plan = _plan(request, before)
        if before is None:
            check_no_other_objects(request.store, found, _arrays(plan))
        return lease, before, plan
    before = ledger.read_plan()
    plan = _plan(request, before)
    ending.enter_context(retry)
    lease = ending.enter_context(hold(request.store, say))
    if before != (latest := ledger.read_plan()):
        # Another converter was here while this one read headers: plan on what it left.
        before, plan = latest, _plan(request, latest)
    return lease, before, plan


def _arrays(plan: Plan) -> set[str]:
    return {layout.name for layout in plan.layouts} | {task.name for task in plan.static}


@contextmanager
def write_plan_in_background(
    lease: Lease, ledger: Ledger, summary: dict[str, Any]
) -> Iterator[Future[None]]:
    """Write the plan as soon as the lease is sure; workers wait for that on their own."""

    def write() -> None:
        lease.permit.confirm()
        ledger.write_plan(summary)

    with ThreadPoolExecutor(1) as aside:
        written = aside.submit(copy_context().run, write)
        if places.is_local(ledger.store):
            written.result()
        yield written


def _unreadable(records: Mapping[tuple[str, int], ShardRecord]) -> tuple[str, ...]:
    lines = {
        f"{run['file']}: {run['reason']}"
        for _, record in sorted(records.items(), key=lambda item: item[0])
        for run in record.unreadable
    }
    return tuple(sorted(lines))
