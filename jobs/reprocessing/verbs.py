"""The verbs of `reprocess`: each reads options, does its work and prints what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from jobs.command_line import print_json, progress
from jobs.reprocessing.arguments import (
    ConversionArguments,
    ConvertOptions,
    InspectOptions,
    PlanOptions,
    PublishOptions,
    RunsOptions,
    VerbOptions,
    VerifyOptions,
    WindowOptions,
)

if TYPE_CHECKING:
    from pipelines.conversion.options import ConversionRequest
    from pipelines.stores.store import Store


@dataclass(frozen=True)
class Verb:
    """One subcommand of `reprocess`."""

    purpose: str
    """what it does, for `--help`"""
    options: type[VerbOptions]
    run: Callable[[Any, bool], int]
    """do the work, given the options and whether to print JSON; returns the exit code"""


def plan(options: PlanOptions, json: bool) -> int:
    """Say what convert would do."""
    from jobs.reprocessing.presentation import show_plan
    from pipelines.archives.sources.cache import kept_copies
    from pipelines.conversion.convert import plan_conversion
    from pipelines.conversion.estimate import describe_plan, estimate, planned_store
    from pipelines.conversion.resume import due_tasks

    with kept_copies():
        with progress("reading headers", "files") as report:
            planned = plan_conversion(conversion_request(options), report)
        due, _ = due_tasks(planned, options.store)
        with progress("estimating", "chunks") as report:
            cost = estimate(planned, due, report)
    description = describe_plan(planned, options.store, cost)
    windows = _windows(planned_store(planned, options.store), options)
    print(show_plan(description, windows))
    if json:
        print_json(description.as_dict() | {"windows": windows})
    return 0


def convert(options: ConvertOptions, json: bool) -> int:
    """Bring a store up to its source."""
    from jobs.reprocessing.presentation import show_report
    from pipelines.conversion.convert import convert as run_conversion
    from pipelines.storage.retry import STORAGE_WAIT_SECONDS

    kept, wait = options.source_cache_gb, options.storage_wait
    request = replace(
        conversion_request(options),
        repair=options.repair,
        workers=options.workers,
        shared_paths=options.shared_paths,
        source_cache_bytes=None if kept is None else round(kept * 1e9),
        storage_wait=STORAGE_WAIT_SECONDS if wait is None else wait,
    )
    with progress("converting", "shards") as report:
        done = run_conversion(request, report, print)
    print(show_report(done))
    if json:
        print_json(asdict(done))
    return 0


def inspect(options: InspectOptions, json: bool) -> int:
    """Describe a store, and draw it."""
    from jobs.reprocessing.figures import write_figures
    from jobs.reprocessing.presentation import show_store
    from pipelines.audit.inspection import inspect as describe
    from pipelines.storage.writable import check_writable
    from pipelines.stores.store import open_store

    if options.plot:
        check_writable(options.plot, "plot")
    description = describe(options.store)
    store = open_store(options.store)
    windows = _windows(store, options, options.manifest)
    print(show_store(description, windows))
    record = description.as_dict() | {"windows": windows}
    if options.plot:
        with progress("drawing", "figures") as report:
            record["figures"] = write_figures(store, options.plot, report)
        print("\n".join(record["figures"]))
    if json:
        print_json(record)
    return 0


def verify(options: VerifyOptions, json: bool) -> int:
    """Compare a store with its ledger; return 4 if something is wrong."""
    from jobs.reprocessing.presentation import show_verification
    from pipelines.audit.verification import verify as check

    with progress("verifying", "objects") as report:
        found = check(options.store, options.source or None, report)
    print(show_verification(found))
    if json:
        print_json(found.as_dict())
    return 0 if found.ok else 4


def publish(options: PublishOptions, json: bool) -> int:
    """Commit a store to its history."""
    from jobs.reprocessing.presentation import show_runs
    from pipelines.stores.history import publish as commit

    with progress("publishing", "objects") as report:
        run, new = commit(options.store, options.icechunk, report)
    print(show_runs([run]) if new else f"nothing to do: {run.snapshot} is the store as it is")
    if json:
        print_json(run.as_dict() | {"new": new})
    return 0


def runs(options: RunsOptions, json: bool) -> int:
    """List a store's history."""
    from jobs.reprocessing.presentation import show_runs
    from pipelines.stores.history import commits

    found = commits(options.icechunk)
    print(show_runs(found))
    if json:
        print_json({"runs": [run.as_dict() for run in found]})
    return 0


def conversion_request(options: ConversionArguments) -> ConversionRequest:
    """Return the conversion that is asked for; raise UsageError if an option is invalid."""
    from pipelines.conversion.options import ConversionOptions, ConversionRequest
    from pipelines.conversion.regrid import CoarseGrid
    from pipelines.conversion.static_plan import parse_static
    from pipelines.timeline.splits import read_splits_file

    content = ConversionOptions(
        variables=options.variables or None,
        chunk_frames=options.chunk_frames,
        shard_frames=options.shard_frames,
        splits=read_splits_file(options.splits) if options.splits else None,
        archive_options=options.archive_options,
        regrid=str(CoarseGrid.parse(options.regrid)) if options.regrid else None,
        static_fields=tuple(map(parse_static, options.static_fields)),
    )
    return ConversionRequest(
        archive=options.archive,
        source=options.source,
        store=options.store,
        options=content,
        static_source=options.static_source,
    )


def _windows(store: Store, options: WindowOptions, manifest: str = "") -> dict[str, Any] | None:
    """Count the windows of each split, and write the list of them to `manifest` if it is given."""
    from pipelines.stream.manifest import window_counts, write_manifest
    from pipelines.stream.windows import WindowSpec

    if options.input_frames is None or options.horizon is None:
        return None
    spec = WindowSpec(options.input_frames, options.horizon, options.stride)
    if manifest:
        counts = write_manifest(store, spec, manifest, options.counting)
    else:
        counts = window_counts(store, spec, options.counting)
    return asdict(spec) | {"counting": options.counting, "splits": counts}


VERBS = {
    "plan": Verb("say what convert would do; write nothing", PlanOptions, plan),
    "convert": Verb("create a store, resume, append and fill gaps", ConvertOptions, convert),
    "inspect": Verb("describe a store", InspectOptions, inspect),
    "verify": Verb("compare a store with its ledger and its sources", VerifyOptions, verify),
    "publish": Verb("commit a store to an Icechunk repository", PublishOptions, publish),
    "runs": Verb("list the commits of an Icechunk repository", RunsOptions, runs),
}
"""the verbs by name, in the order of `--help`"""
