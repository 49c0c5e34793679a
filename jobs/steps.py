"""Jobs made of jobs: each step is the command that a user would type, shown before it runs."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from jobs.command_line import STOPPED
from pipelines.errors import PlatformError

JOBS = Path(__file__).resolve().parent


def step(title: str) -> None:
    """Announce a step."""
    print(f"\n== {title}", flush=True)


def job(
    script: str, *arguments: str, meanwhile: Callable[[subprocess.Popen[bytes]], None] | None = None
) -> None:
    """Run one job as a user would, in a process of its own.

    A notice to end (SIGTERM, Ctrl-C) goes to the job, which may have a last checkpoint to write,
    and this process ends after it.

    Raises
    ------
    PlatformError
        It ended with another code than 0.
    """
    command = [sys.executable, str(JOBS / script), *arguments]
    print(f"$ python jobs/{script} {shlex.join(arguments)}", flush=True)
    process = subprocess.Popen(command)
    with _ending_with(process):
        if meanwhile:
            meanwhile(process)
        code = process.wait()
    if code:
        raise PlatformError(
            f"jobs/{script} ended with code {code}", remedy="see its message above, then run again"
        )


@contextmanager
def _ending_with(process: subprocess.Popen[bytes]) -> Iterator[None]:
    noticed = threading.Event()

    def pass_on(number: int, frame: FrameType | None) -> None:
        noticed.set()
        process.terminate()

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        yield
    except KeyboardInterrupt:
        # A terminal has told the job as well.
        process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    if noticed.is_set():
        raise SystemExit(STOPPED)
