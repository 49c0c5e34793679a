"""Jobs made of jobs: each step is the command that a user would type, shown before it runs."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from pipelines.errors import PlatformError

JOBS = Path(__file__).resolve().parent


def step(title: str) -> None:
    """Announce a step."""
    print(f"\n== {title}", flush=True)


def job(
    script: str, *arguments: str, meanwhile: Callable[[subprocess.Popen[bytes]], None] | None = None
) -> None:
    """Run one job as a user would, in a process of its own.

    Raises
    ------
    PlatformError
        It ended with another code than 0.
    """
    command = [sys.executable, str(JOBS / script), *arguments]
    print(f"$ python jobs/{script} {shlex.join(arguments)}", flush=True)
    process = subprocess.Popen(command)
    if meanwhile:
        meanwhile(process)
    code = process.wait()
    if code:
        raise PlatformError(
            f"jobs/{script} ended with code {code}", remedy="see its message above, then run again"
        )
