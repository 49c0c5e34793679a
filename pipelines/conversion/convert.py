"""Convert an archive to a store on Ray Data: `convert` reads as a table of contents.

Creating a store, resuming, appending and filling gaps are one operation: plan the whole archive,
and write the shards that are not there yet. `pipelines.stores.writer` says in which order objects
are written, and why a run may be stopped anywhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from dataclasses import replace
from typing import Any, Self

from pipelines.archives import load_archive
from pipelines.archives.radar import RadarArchive
from pipelines.archives.sources.cache import SourceCache, kept_copies
from pipelines.archives.time_axis import all_times
from pipelines.cluster.session import check_reachable, on_other_nodes, ray_session
from pipelines.conversion.finish import write_metadata
from pipelines.conversion.options import ConversionReport, ConversionRequest
from pipelines.conversion.plan import Plan, make_plan
from pipelines.conversion.resume import (
    check_continues,
    damaged,
    due_tasks,
    remember_options,
    remembered_source,
    remove_strays,
    summarise,
)
from pipelines.conversion.shard_job import converted_on_ray
from pipelines.conversion.shard_task import Destination
from pipelines.conversion.static_plan import static_tasks
from pipelines.conversion.static_shards import Records, index_archive, write_static_fields
from pipelines.progress import Progress, ignore
from pipelines.storage import places
from pipelines.storage.retry import Retry, retrying
from pipelines.storage.writable import check_no_other_objects, check_store_folder, sweep_partial
from pipelines.stores.ledger import Ledger, ShardRecord, utc_now
from pipelines.stores.writer import Changes, StoreWriter

Say = Callable[[str], None]
"""called with a line for the user"""


def plan_conversion(request: ConversionRequest, progress: Progress = ignore) -> Plan:
    """Return the plan of a request, checked against the store that is there; write nothing.

    Raises
    ------
    UsageError, SourceError, StoreError
        As `convert`.
    """
    check_store_folder(request.store)
    with kept_copies(request.source_cache_bytes):
        before = Ledger(request.store).read_plan()
        plan = _plan(request, before, progress)
    if before is None and not places.is_local(request.store):
        check_no_other_objects(request.store, places.names(request.store), _arrays(plan))
    return plan


def convert(
    request: ConversionRequest,
    progress: Progress = ignore,
    say: Say = lambda line: None,
) -> ConversionReport:
    """Bring the store at `request.store` up to its source.

    Parameters
    ----------
    progress
        Called with the number of shards written and of all shards that are due.
    say
        Called with a line if something has to be waited for.

    Raises
    ------
    UsageError, SourceError, StoreError, BusyError
        The request, the source or the store does not allow it, or another process writes to the
        store. What was written before stays.
    """
    with Conversion.begin(request, say) as work:
        work.find_due_shards()
        work.write_static_fields()
        work.write_shards(progress)
        work.write_metadata()
        return work.report()


class Conversion:
    """One conversion that holds the store's lease: its plan, and what it has done so far.

    `Conversion.begin` makes one. The steps are called in the order in which `convert` calls them.
    """

    def __init__(
        self,
        request: ConversionRequest,
        plan: Plan,
        before: dict[str, Any] | None,
        writer: StoreWriter,
        cache: SourceCache,
        say: Say,
    ):
        self.plan = plan
        self._request, self._before, self._writer = request, before, writer
        self._cache, self._say = cache, say
        static_source = remembered_source(before, request.static_source)
        self._summary = summarise(plan, request.source, static_source, writer.owner, utc_now())
        self._due = list(plan.tasks)
        self._removed: list[str] = []
        self._fields: Records = {}
        self._fields_written = 0
        self._changes = Changes(any=False, statistics=False)
        self._began = self._indexed = self._started = self._converted = time.monotonic()

    @classmethod
    @contextmanager
    def begin(cls, request: ConversionRequest, say: Say) -> Iterator[Self]:
        """Take the lease and make the plan; give the conversion while the block runs."""
        began = time.monotonic()
        with kept_copies(request.source_cache_bytes) as cache, ExitStack() as ending:
            check_store_folder(request.store)
            take = _begin_here if places.is_local(request.store) else _begin_remote
            writer, before, plan = take(request, say, ending)
            work = cls(request, plan, before, writer, cache, say)
            work._began = began
            sweep_partial(request.store)
            writer.open_tables({layout.name: layout.channels for layout in plan.layouts})
            yield work

    def find_due_shards(self) -> None:
        """Find the shards that have to be written. A repair also removes stray objects."""
        store, writer = self._request.store, self._writer
        if self._before is not None:
            self._due, _ = due_tasks(self.plan, store, writer.add_existing)
        if not self._request.repair:
            return
        writer.confirm()
        self._removed = remove_strays(self.plan, store)
        for place in damaged(store, writer.records):
            del writer.records[place]
        self._due = [
            task for task in self.plan.tasks if (task.layout.name, task.shard) not in writer.records
        ]

    def write_static_fields(self) -> None:
        """Write the static fields that are due: they are small, and errors in them show early."""
        if self.plan.static or not self._due:
            self._writer.confirm()
        self._fields, self._fields_written = write_static_fields(
            self.plan, self._request.store, self._writer.owner, self._request.repair
        )

    def write_shards(self, progress: Progress) -> None:
        """Write the shards that are due, on Ray; do nothing if there are none."""
        self._started = self._converted = time.monotonic()
        if not self._due:
            return
        request, writer = self._request, self._writer
        with ray_session(request.workers):
            self._started = time.monotonic()
            check_reachable(
                {"--store": request.store, "--source": request.source}, request.shared_paths
            )
            objects = (self._before or {}).get("objects", {})
            converting = self._summary | {"objects": objects, "state": "converting"}
            with writer.write_plan_in_background(converting) as plan_written:
                progress(0, len(self._due))
                try:
                    results = converted_on_ray(
                        self._due, request.workers, self._destination(), self._say
                    )
                    for done, (record, moments) in enumerate(results, start=1):
                        plan_written.result()
                        writer.add_record(record, moments)
                        progress(done, len(self._due))
                finally:
                    on_other_nodes(self._cache.remove)
            # A worker that was killed has left its file, although another one wrote its shard.
            sweep_partial(request.store)
            self._converted = time.monotonic()

    def write_metadata(self) -> None:
        """Write everything that is not a shard, the root last."""
        self._changes = write_metadata(
            self.plan, self._writer, self._fields, self._summary, new=self._before is None
        )

    def report(self) -> ConversionReport:
        """Return what the conversion did."""
        plan, due, records = self.plan, self._due, self._writer.records
        gaps = plan.gaps()
        return ConversionReport(
            store=places.absolute(self._request.store),
            frames=len(plan.times),
            shards=len(plan.tasks),
            shards_written=len(due),
            shards_skipped=len(plan.tasks) - len(due),
            gaps=len(gaps),
            missing_frames=sum(frames for _, _, frames in gaps),
            unreadable=_unreadable(records),
            bytes_raw=plan.raw_bytes,
            bytes_stored=sum(record.bytes for record in records.values()),
            bytes_converted=sum((task.stop - task.start) * task.layout.frame_bytes for task in due),
            seconds=time.monotonic() - self._began,
            seconds_indexing=self._indexed - self._began,
            seconds_starting=self._started - self._indexed,
            seconds_converting=self._converted - self._started,
            changed=bool(due or self._removed or self._fields_written) or self._changes.any,
            statistics_changed=self._changes.statistics,
            notes=(*plan.index.notes, *self._empty_notes()),
            static_fields=len(plan.static),
            static_fields_written=self._fields_written,
        )

    def _destination(self) -> Destination:
        return Destination(
            places.absolute(self._request.store),
            self._request.archive,
            self._writer.owner,
            self.plan.index.options,
            self._cache,
            self._request.storage_wait,
            self._writer.permit,
        )

    def _empty_notes(self) -> list[str]:
        return [
            f"{layout.name}: no frame holds a value, nothing can be trained on it: leave it out "
            "with --variables"
            for layout in self.plan.layouts
            if layout.name not in self._writer.variables_with_values
        ]


def _begin_here(
    request: ConversionRequest, say: Say, ending: ExitStack
) -> tuple[StoreWriter, dict[str, Any] | None, Plan]:
    """Plan, then take the lease of a local store: a request that fails leaves nothing behind.

    Returns
    -------
    tuple
        The writer, the plan summary of the last run (None if there was none), and the plan.
    """
    before = Ledger(request.store).read_plan()
    plan = _plan(request, before)
    ending.enter_context(retrying(Retry(request.storage_wait, say)))
    writer = ending.enter_context(StoreWriter.open(request.store, say))
    if before != (latest := writer.ledger.read_plan()):
        # Another run wrote while this one was reading headers: plan on what that run left.
        before, plan = latest, _plan(request, latest)
    return writer, before, plan


def _begin_remote(
    request: ConversionRequest, say: Say, ending: ExitStack
) -> tuple[StoreWriter, dict[str, Any] | None, Plan]:
    """Take the lease of a remote store, and plan in the time until the lease is sure.

    The lease is the first object that is written there. Without retries, a place that refuses
    writing is reported at once.

    Returns
    -------
    tuple
        As `_begin_here`.
    """
    with retrying(Retry(0.0)), ThreadPoolExecutor(1) as pool:
        entries = pool.submit(copy_context().run, places.names, request.store)
        writer = ending.enter_context(StoreWriter.open(request.store, say, confirmed=False))
        found = entries.result()
    ending.enter_context(retrying(Retry(request.storage_wait, say)))
    before = writer.ledger.read_plan()
    with retrying(Retry(0.0)):
        plan = _plan(request, before)
    if before is None:
        check_no_other_objects(request.store, found, _arrays(plan))
    return writer, before, plan


def _plan(
    request: ConversionRequest,
    summary: dict[str, Any] | None,
    progress: Progress = ignore,
) -> Plan:
    """Return the plan that continues the run which left `summary`."""
    archive = load_archive(request.archive)
    options = remember_options(summary, request.archive, request.options, request.store)
    if isinstance(archive, RadarArchive):
        archive.check_regrid(options.regrid)
    static_source = remembered_source(summary, request.static_source)
    index = index_archive(archive, request.source, static_source, options, progress)
    plan = make_plan(index, options, archive.protocol_splits(all_times(index.variables)))
    check_continues(summary, plan, request.store)
    fields = static_tasks(
        index.static,
        options.static_fields,
        index.variables[0],
        plan.index.variables,
        plan.layouts[0].average,
    )
    return replace(plan, static=fields)


def _arrays(plan: Plan) -> set[str]:
    return {layout.name for layout in plan.layouts} | {task.name for task in plan.static}


def _unreadable(records: Mapping[tuple[str, int], ShardRecord]) -> tuple[str, ...]:
    """Return a line for each file and reason for which frames could not be read."""
    lines = {
        f"{run['file']}: {run['reason']}"
        for _, record in sorted(records.items(), key=lambda item: item[0])
        for run in record.unreadable
    }
    return tuple(sorted(lines))
