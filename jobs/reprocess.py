"""Raw archive to sharded Zarr store: ``plan``, ``convert``, ``inspect``, ``verify``.

``publish`` and ``runs`` keep and list a store's history.

::

    python jobs/reprocess.py convert --archive weatherbench --source 2m_temperature --store t2m.zarr
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from jobs.command_line import main_guard, print_json, progress
from jobs.reprocessing.arguments import parse, request, window

if TYPE_CHECKING:
    from pipelines.stores.store import Store


def main() -> int:
    """Run one verb and say what came of it."""
    arguments = parse()
    _check_places(arguments)
    verbs = {
        "plan": plan,
        "convert": convert,
        "inspect": inspect,
        "verify": verify,
        "publish": publish,
        "runs": runs,
    }
    return verbs[arguments.verb](arguments)


def _check_places(arguments: argparse.Namespace) -> None:
    from pipelines.storage.places import check_uri

    for option in ("source", "store", "icechunk", "manifest", "plot"):
        place = getattr(arguments, option, None)
        required = option in ("store", "icechunk") or (
            option == "source" and arguments.verb != "verify"
        )
        if place or (required and place is not None):
            check_uri(place)


def plan(arguments: argparse.Namespace) -> int:
    """Say what convert would do."""
    from jobs.reprocessing.presentation import show_plan
    from pipelines.archives.sources.cache import kept_copies
    from pipelines.conversion.convert import plan_conversion
    from pipelines.conversion.estimate import describe_plan, estimate, planned_store
    from pipelines.conversion.resume import due_tasks

    with kept_copies():
        with progress("reading headers", "files") as report:
            planned = plan_conversion(request(arguments), report)
        due, _ = due_tasks(planned, arguments.store)
        with progress("estimating", "chunks") as report:
            cost = estimate(planned, due, report)
    description = describe_plan(planned, arguments.store, cost)
    windows = _windows(planned_store(planned, arguments.store), arguments)
    print(show_plan(description, windows))
    if arguments.json:
        print_json(description.as_dict() | {"windows": windows})
    return 0


def convert(arguments: argparse.Namespace) -> int:
    """Bring a store up to its source."""
    from jobs.reprocessing.presentation import show_report
    from pipelines.conversion.convert import convert as run_conversion

    with progress("converting", "shards") as report:
        done = run_conversion(request(arguments), report, print)
    print(show_report(done))
    if arguments.json:
        print_json(asdict(done))
    return 0


def inspect(arguments: argparse.Namespace) -> int:
    """Say what a store holds."""
    from jobs.reprocessing.figures import write_figures
    from jobs.reprocessing.presentation import show_store
    from pipelines.audit.inspection import inspect as describe
    from pipelines.storage.writable import check_writable
    from pipelines.stores.store import open_store

    if arguments.plot:
        check_writable(arguments.plot, "plot")
    description = describe(arguments.store)
    store = open_store(arguments.store)
    windows = _windows(store, arguments)
    print(show_store(description, windows))
    record = description.as_dict() | {"windows": windows}
    if arguments.plot:
        with progress("drawing", "figures") as report:
            record["figures"] = write_figures(store, arguments.plot, report)
        print("\n".join(record["figures"]))
    if arguments.json:
        print_json(record)
    return 0


def verify(arguments: argparse.Namespace) -> int:
    """Compare a store with its ledger; code 4 where something is wrong."""
    from jobs.reprocessing.presentation import show_verification
    from pipelines.audit.verification import verify as check

    with progress("verifying", "objects") as report:
        found = check(arguments.store, arguments.source or None, report)
    print(show_verification(found))
    if arguments.json:
        print_json(found.as_dict())
    return 0 if found.ok else 4


def publish(arguments: argparse.Namespace) -> int:
    """Commit a store to its history."""
    from jobs.reprocessing.presentation import show_runs
    from pipelines.stores.history import publish as commit

    with progress("publishing", "objects") as report:
        run, new = commit(arguments.store, arguments.icechunk, report)
    print(show_runs([run]) if new else f"nothing to do: {run.snapshot} is the store as it is")
    if arguments.json:
        print_json(run.as_dict() | {"new": new})
    return 0


def runs(arguments: argparse.Namespace) -> int:
    """List a store's history."""
    from jobs.reprocessing.presentation import show_runs
    from pipelines.stores.history import commits

    found = commits(arguments.icechunk)
    print(show_runs(found))
    if arguments.json:
        print_json({"runs": [run.as_dict() for run in found]})
    return 0


def _windows(store: Store, arguments: argparse.Namespace) -> dict[str, Any] | None:
    """How many windows each split has, and the list of them, where they were asked for."""
    from pipelines.stream.manifest import window_counts, write_manifest

    spec = window(arguments)
    if spec is None:
        return None
    if getattr(arguments, "manifest", ""):
        counts = write_manifest(store, spec, arguments.manifest, arguments.counting)
    else:
        counts = window_counts(store, spec, arguments.counting)
    return asdict(spec) | {"counting": arguments.counting, "splits": counts}


if __name__ == "__main__":
    main_guard(main)
