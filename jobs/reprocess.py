"""Raw archive to sharded Zarr store: `plan`, `convert`, `inspect`, `verify`, `publish`, `runs`.

    python jobs/reprocess.py plan --archive weatherbench --source 2m_temperature --store t2m.zarr
    python jobs/reprocess.py convert --archive weatherbench --source 2m_temperature --store t2m.zarr

`convert --help` lists the options of a verb. The way through the code: the options
(jobs/reprocessing/arguments.py), the verbs (jobs/reprocessing/verbs.py), the conversion
(pipelines/conversion/convert.py), and what is printed of it (jobs/reprocessing/presentation.py).
"""

from __future__ import annotations

import sys

from jobs.command_line import choose, main_guard
from jobs.reprocessing.arguments import EXIT_CODES, parse
from jobs.reprocessing.verbs import VERBS


def main() -> int:
    """Run one verb, and return the exit code."""
    purposes = {name: verb.purpose for name, verb in VERBS.items()}
    name, rest = choose("VERB", purposes, sys.argv[1:], f"{__doc__}\n{EXIT_CODES}")
    verb = VERBS[name]
    return verb.run(*parse(verb.options, name, verb.purpose, rest))


if __name__ == "__main__":
    main_guard(main)
