"""Archive to store on Ray Data: create, resume, append and filling of gaps are one operation.

The order of writing is what makes it safe to stop anywhere: a shard in one write, then its ledger
record; when all shards stand, flags and coordinates; the root with its consolidated metadata last.
A reader of the store sees the metadata of before or of after, and shards that fit both.
"""

from __future__ import annotations

import json
import logging
import math
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines import uri as places
from pipelines.archives import load_archive
from pipelines.archives.radar import RadarArchive
from pipelines.archives.source_cache import SourceCache, kept_copies
from pipelines.errors import PlatformError
from pipelines.lease import Lease, hold
from pipelines.ledger import Ledger, ShardRecord
from pipelines.patience import STORAGE_WAIT_SECONDS, Patience, waiting
from pipelines.plan import ConversionOptions, Plan, ShardTask, make_plan
from pipelines.ray_session import check_reachable, on_other_nodes, ray_session
from pipelines.repair import damaged, remove_strays
from pipelines.resume import check_continues, due_tasks, remember_options, summarise
from pipelines.shard_task import Destination, checksum, convert_shards, utc_now
from pipelines.writable import check_writable, sweep_partial

# Shards that a Ray task takes at most, and tasks that a worker gets at least.
_LOCAL = 4, 4
_REMOTE = 8, 2

if TYPE_CHECKING:
    import pyarrow as pa

Progress = Callable[[int, int], None]
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
    shared_paths: bool = False
    """local paths are the same on every node of the cluster"""
    source_cache_bytes: int | None = None
    """of remote sources and members of zips that a node keeps while it converts; None: see
    :data:`pipelines.archives.source_cache.MAX_BYTES`"""
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


def plan_conversion(request: ConversionRequest, progress: Progress = lambda a, b: None) -> Plan:
    """The plan of a request, checked against what stands at the store; writes nothing."""
    with kept_copies(request.source_cache_bytes):
        return _plan(request, progress)


def _plan(request: ConversionRequest, progress: Progress) -> Plan:
    archive = load_archive(request.archive)
    summary = Ledger(request.store).read_plan()
    options = remember_options(summary, request.archive, request.options, request.store)
    if isinstance(archive, RadarArchive):
        archive.refuse_regrid(options.regrid)
    index = archive.index(
        request.source,
        variables=options.variables,
        options=options.archive_options,
        progress=progress,
    )
    times = np.unique(np.concatenate([variable.times for variable in index.variables]))
    plan = make_plan(index, options, archive.protocol_splits(times))
    check_continues(summary, plan, request.store)
    return plan


def convert(
    request: ConversionRequest,
    progress: Progress = lambda done, total: None,
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
    check_writable(request.store)
    ledger = Ledger(request.store)
    before = ledger.read_plan()
    plan = plan_conversion(request)
    indexed = time.monotonic()
    with waiting(Patience(request.storage_wait, say)), hold(request.store, say) as lease:
        if before != (latest := ledger.read_plan()):
            # Another converter was here while this one read headers: plan on what it left.
            before, plan = latest, plan_conversion(request)
        sweep_partial(request.store)
        due, records = due_tasks(plan, request.store)
        removed: list[str] = []
        if request.repair:
            removed = remove_strays(plan, request.store)
            for place in damaged(request.store, records):
                del records[place]
            due = [task for task in plan.tasks if (task.layout.name, task.shard) not in records]
        summary = summarise(plan, request.source, lease.owner, utc_now())
        started = converted = time.monotonic()
        if due:
            objects = (before or {}).get("objects", {})
            with ray_session(request.workers):
                started = time.monotonic()
                used = {"--store": request.store, "--source": request.source}
                check_reachable(used, request.shared_paths)
                ledger.write_plan(summary | {"objects": objects, "state": "converting"})
                progress(0, len(due))
                destination = Destination(
                    places.absolute(request.store),
                    request.archive,
                    lease.owner,
                    plan.index.options,
                    cache,
                    request.storage_wait,
                )
                try:
                    for done, record in enumerate(_on_ray(due, request, destination), start=1):
                        records[record.variable, record.shard] = record
                        progress(done, len(due))
                finally:
                    on_other_nodes(cache.remove)
                converted = time.monotonic()
        changed, new_statistics = _finish(plan, records, summary, lease, request)
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
        changed=bool(due or removed) or changed,
        statistics_changed=new_statistics,
        notes=plan.index.notes,
    )


def _on_ray(
    tasks: Sequence[ShardTask], request: ConversionRequest, destination: Destination
) -> Iterator[ShardRecord]:
    """Records as they come: one Ray Data row a shard, decoded and written inside its task."""
    import pyarrow as pa
    import ray
    from ray.data import TaskPoolStrategy

    remote = not places.is_local(destination.store)
    logging.getLogger("ray.data").setLevel(logging.ERROR)

    def work(rows: pa.Table) -> Iterator[pa.Table]:
        due: list[ShardTask] = [pickle.loads(task) for task in rows["task"].to_pylist()]
        for task, outcome in zip(due, convert_shards(due, destination), strict=True):
            record, error = b"", b""
            if isinstance(outcome, ShardRecord):
                record = outcome.to_bytes()
            elif isinstance(outcome, PlatformError):
                error = pickle.dumps(outcome)
            else:
                wrapped = PlatformError(
                    f"a shard could not be converted: {type(outcome).__name__}: {outcome}",
                    where=places.join(destination.store, task.layout.object_name(task.shard)),
                    remedy="run the same command again: it resumes",
                )
                error = pickle.dumps(wrapped)
            yield pa.table({"record": [record], "error": [error]})

    rows = ray.data.from_items(
        [{"task": pickle.dumps(task)} for task in tasks],
        override_num_blocks=_blocks(len(tasks), request.workers or _processors(), remote),
    )
    converted = rows.map_batches(
        work,
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=1,
        compute=TaskPoolStrategy(size=request.workers),
    )
    converted.context.enable_progress_bars = False
    # Budgets guard the object store, which holds records only here, and they let one task run at
    # a time until Ray Data has counted the cluster. One processor a task is the bound.
    converted.context.op_resource_reservation_enabled = False
    for row in converted.iter_rows():
        if row["error"]:
            raise pickle.loads(row["error"])
        yield ShardRecord.from_bytes(row["record"])


def _blocks(shards: int, workers: int, remote: bool) -> int:
    """How many Ray tasks the shards are dealt to: a few rows each, where there are many.

    Between two tasks a worker waits for the driver, and on a remote store for its last uploads; a
    task that takes several shards, one after the other, waits less. Every worker still gets several
    tasks, so that none is left with the rest.
    """
    most, tasks = _REMOTE if remote else _LOCAL
    rows = min(most, max(1, shards // (tasks * workers)))
    return math.ceil(shards / rows)


def _processors() -> int:
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _finish(
    plan: Plan,
    records: dict[tuple[str, int], ShardRecord],
    summary: dict[str, Any],
    lease: Lease,
    request: ConversionRequest,
) -> tuple[bool, bool]:
    """Write what is not shards, the root last; whether anything changed, and the statistics."""
    from pipelines.documents import ROOT, compose

    moments = {
        layout.name: np.concatenate(
            [records[layout.name, shard].moments for shard in range(layout.shards)]
        )
        for layout in plan.layouts
    }
    unreadable = {
        layout.name: np.concatenate(
            [records[layout.name, shard].unreadable_frames() for shard in range(layout.shards)]
        )
        for layout in plan.layouts
    }
    objects = compose(plan, moments, unreadable)
    store = request.store
    uris = {name: places.join(store, *name.split("/")) for name in objects}
    ledger = Ledger(store)
    asking: list[Callable[[], Any]] = [partial(_read_or_none, uri) for uri in uris.values()]
    summary_before, _, *standing = places.at_once(store, [ledger.read_plan, lease.check, *asking])
    old: dict[str, Any] = dict(zip(uris, standing, strict=True))
    changed = [name for name, content in objects.items() if old[name] != content]
    sums = {name: checksum(content) for name, content in objects.items()}
    complete = summary | {"objects": sums, "state": "complete"}
    places.at_once(
        store,
        [
            partial(places.write_bytes, uris[name], objects[name])
            for name in changed
            if name != ROOT
        ],
    )
    if _differs(summary_before, complete):
        ledger.write_plan(complete)
    if ROOT not in changed:
        return bool(changed), False
    places.write_bytes(uris[ROOT], objects[ROOT])
    before = old[ROOT]
    if before is None:
        return True, False
    key = "statistics_fingerprint"
    was, now = (json.loads(content)["attributes"].get(key) for content in (before, objects[ROOT]))
    return True, was != now


def _unreadable(records: Mapping[tuple[str, int], ShardRecord]) -> tuple[str, ...]:
    lines = {
        f"{run['file']}: {run['reason']}"
        for _, record in sorted(records.items(), key=lambda item: item[0])
        for run in record.unreadable
    }
    return tuple(sorted(lines))


def _differs(before: dict[str, Any] | None, after: dict[str, Any]) -> bool:
    personal = {"owner", "updated_at"}
    return before is None or any(
        before.get(key) != value for key, value in after.items() if key not in personal
    )


def _read_or_none(uri: str) -> bytes | None:
    try:
        return places.read_bytes(uri)
    except FileNotFoundError:
        return None
