"""How a run ends before its last epoch: what failed where, what is kept, and how to go on."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jobs.command_line import STOPPED
from jobs.training.board import Progress
from jobs.training.options import TrainOptions
from jobs.training.run import checkpoints
from pipelines.errors import PlatformError

LONGEST = 400
"""characters of an error that are shown"""
OF_AN_ACTOR = ("class_name", "actor_id", "pid", "name", "namespace", "ip")
"""lines that Ray adds to an actor's end and that tell a user nothing"""


class StoppedError(PlatformError):
    """The run was asked to end by SIGTERM: ``ray job stop``, Kubernetes, ``kill``."""

    exit_code = STOPPED


def is_preemption(error: Exception) -> bool:
    """Whether Ray Train counts a failure as a node taken away after a notice."""
    from ray.train.v2._internal.execution.failure_handling.default import _is_preemption_failure

    return _is_preemption_failure(error)  # pyright: ignore[reportArgumentType]


def causes(error: Exception, progress: Progress) -> str:
    """What failed, in one line: the workers and nodes, their error, and the step.

    The worker that died comes before those that noticed by a broken connection.
    """
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    if not failures:
        return _line(error)
    dead = {rank: e for rank, e in failures.items() if hasattr(e, "health_check_failure")}
    told = []
    for rank, failure in sorted((dead or failures).items()):
        node = progress.nodes.get(rank)
        told.append(f"worker {rank}{f' on {node}' if node else ''}: {_line(failure)}")
    near = "" if progress.step is None else f" (near step {progress.step})"
    return "; ".join(told) + near


def _line(error: Exception) -> str:
    cause = getattr(error, "health_check_failure", error)
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    said = [line for line in lines if line.split(":")[0] not in OF_AN_ACTOR]
    return f"{type(cause).__name__}: {' '.join(said)}"[:LONGEST]


def kept(run_uri: str) -> str:
    """Where the run would go on; a storage that is away hides no failure behind its own."""
    try:
        found = checkpoints.list_checkpoints(run_uri)
    except PlatformError as error:
        return f"its checkpoints cannot be listed now: {error.what}"
    if not found:
        return "no checkpoint yet"
    return f"the last checkpoint is {found[-1].uri} (step {found[-1].step})"


def command() -> str:
    """The command that this process was started with."""
    return shlex.join(["python", *sys.argv])


def used_up(options: TrainOptions, error: Exception, progress: Progress) -> PlatformError:
    """The error of a run that has failed more often than it may."""
    from ray.train import ControllerError

    if isinstance(error, ControllerError):
        return PlatformError(
            f"Ray Train could not go on: {_line(error.controller_failure)}",
            where=f"{options.run}: {kept(options.run)}",
            remedy=f"mend the cause, then go on with the same command:\n    {command()}",
        )
    if is_preemption(error) or progress.leaving:
        what = f"nodes were taken away more than {options.elastic.max_preemptions} times"
        option = "--elastic.max_preemptions"
    else:
        what = f"training failed more than {options.checkpoints.max_failures} times"
        option = "--checkpoints.max_failures"
    return PlatformError(
        f"{what}, at last with: {causes(error, progress)}",
        where=f"{options.run}: {kept(options.run)}",
        remedy=f"mend the cause ({option} allows more), then go on with the same command:\n"
        f"    {command()}",
    )


def stopped(options: TrainOptions, progress: Progress) -> StoppedError:
    """The error of a run that was asked to end."""
    written = "" if progress.last is None else f", after a last checkpoint (step {progress.last})"
    return StoppedError(
        f"ended by SIGTERM{written}",
        where=f"{options.run}: {kept(options.run)}",
        remedy=f"the same command goes on:\n    {command()}",
    )


@contextmanager
def ending_on_sigterm(board: Any, grace: float) -> Iterator[None]:
    """While the block runs, SIGTERM asks the workers for a last checkpoint and to end.

    Where they have not ended ``grace`` seconds later, the run is interrupted as by Ctrl-C.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    late = threading.Timer(grace, os.kill, (os.getpid(), signal.SIGINT))
    late.daemon = True
    asked: list[bool] = []

    def ask(_signal: int, _frame: Any) -> None:
        if not asked:
            asked.append(True)
            board.ask.remote("stop")
            late.start()
            print(f"SIGTERM: ending after a last checkpoint, within {grace:g} s", file=sys.stderr)

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield
    finally:
        late.cancel()
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
