"""Raw archive to sharded Zarr store: ``plan``, ``convert``, ``inspect``, ``verify``.

::

    python jobs/reprocess.py convert --archive weatherbench --source 2m_temperature --store t2m.zarr
"""

from __future__ import annotations

import argparse
from dataclasses import asdict

from jobs.command_line import print_json, progress, run
from jobs.reprocessing.arguments import parse, request


def main() -> int:
    """Run one verb and say what came of it."""
    arguments = parse()
    verbs = {"plan": plan, "convert": convert, "inspect": inspect, "verify": verify}
    return verbs[arguments.verb](arguments)


def plan(arguments: argparse.Namespace) -> int:
    """Say what convert would do."""
    from jobs.reprocessing.presentation import show_plan
    from pipelines.convert import plan_conversion
    from pipelines.inspection import describe_plan

    with progress("reading headers", "files") as report:
        planned = plan_conversion(request(arguments), report)
    description = describe_plan(planned, arguments.store)
    print(show_plan(description))
    if arguments.json:
        print_json(description)
    return 0


def convert(arguments: argparse.Namespace) -> int:
    """Bring a store up to its source."""
    from jobs.reprocessing.presentation import show_report
    from pipelines.convert import convert as run_conversion

    with progress("converting", "shards") as report:
        done = run_conversion(request(arguments), report, print)
    print(show_report(done))
    if arguments.json:
        print_json(asdict(done))
    return 0


def inspect(arguments: argparse.Namespace) -> int:
    """Say what a store holds."""
    from jobs.reprocessing.presentation import show_store
    from pipelines.inspection import inspect as describe

    description = describe(arguments.store)
    print(show_store(description))
    if arguments.json:
        print_json(description)
    return 0


def verify(arguments: argparse.Namespace) -> int:
    """Compare a store with its ledger; code 4 where something is wrong."""
    from jobs.reprocessing.presentation import show_verification
    from pipelines.verification import verify as check

    with progress("verifying", "objects") as report:
        found = check(arguments.store, arguments.source or None, report)
    print(show_verification(found))
    if arguments.json:
        print_json(found.to_json())
    return 0 if found.ok else 4


if __name__ == "__main__":
    run(main)
