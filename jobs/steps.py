"""Jobs that run other jobs. Each step is the command that a user would type, printed first."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from jobs.command_line import STOPPED, as_typed, program
from pipelines.errors import PlatformError

JOBS = Path(__file__).resolve().parent


def step(title: str) -> None:
    """Print the title of a step."""
    print(f"\n== {title}", flush=True)


def job(
    script: str, *arguments: str, meanwhile: Callable[[subprocess.Popen[bytes]], None] | None = None
) -> None:
    """Run one job, such as `evaluate.py`, as a user would, in a process of its own.

    SIGTERM and Ctrl-C are passed on to the job, which may have to write a last checkpoint. This
    process ends after the job. `meanwhile` is called with the process when it has started.

    Raises
    ------
    PlatformError
        The exit code of the job is not 0.
    """
    shown = as_typed(f"python jobs/{script}")
    if program().startswith("gmg "):
        command = [sys.executable, str(JOBS / "console.py"), *shown.split()[1:], *arguments]
    else:
        command = [sys.executable, str(JOBS / script), *arguments]
    print(f"$ {shown} {shlex.join(arguments)}", flush=True)
    process = subprocess.Popen(command)
    with _ending_with(process):
        if meanwhile:
            meanwhile(process)
        code = process.wait()
    if code:
        raise PlatformError(
            f"{shown} ended with code {code}", remedy="see its message above, then run again"
        )


@contextmanager
def _ending_with(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Pass SIGTERM on to `process`, and wait until it has ended."""
    asked_to_end = threading.Event()

    def pass_on(number: int, frame: FrameType | None) -> None:
        asked_to_end.set()
        process.terminate()

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        yield
    except KeyboardInterrupt:
        # A terminal sends Ctrl-C to every process of its group, so the job has received it already.
        process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    if asked_to_end.is_set():
        raise SystemExit(STOPPED)


def kill_a_worker(training: subprocess.Popen[bytes], run: str) -> None:
    """Send SIGKILL to one worker of a training job after the first checkpoint of its run.

    A run that already has a checkpoint is not disturbed: it resumes, or it is finished.
    """
    import psutil

    from jobs.training.run.checkpoints import list_checkpoints

    if list_checkpoints(run):
        return
    while training.poll() is None and not list_checkpoints(run):
        time.sleep(0.5)
    if training.poll() is not None:
        return
    for process in psutil.Process(training.pid).children(recursive=True):
        if process.is_running() and "RayTrainWorker" in process.name():
            print(
                f"   kill -9 {process.pid}: a training worker dies after the checkpoint of step "
                f"{list_checkpoints(run)[-1].step}; Ray Train starts new workers, which resume "
                "from there",
                flush=True,
            )
            process.kill()
            return
