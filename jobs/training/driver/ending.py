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

from jobs.command_line import STOPPED, say
from jobs.training.options import TrainOptions
from jobs.training.run import checkpoints
from jobs.training.status_board import TrainingStatus
from pipelines.errors import PlatformError

LONGEST = 400
"""characters of an error that are shown"""
OF_AN_ACTOR = ("class_name", "actor_id", "pid", "name", "namespace", "ip")
"""lines that Ray adds to an actor's end and that tell a user nothing"""


class StoppedError(PlatformError):
    """The run was asked to end by SIGTERM: `ray job stop`, Kubernetes, `kill`."""

    exit_code = STOPPED


def is_preemption(error: Exception) -> bool:
    """Return whether Ray Train counts a failure as a node taken away after a notice."""
    from ray.train.v2._internal.execution.failure_handling.default import _is_preemption_failure

    return _is_preemption_failure(error)  # pyright: ignore[reportArgumentType]


def describe_failures(error: Exception, status: TrainingStatus) -> str:
    """Return what failed, in one line: the workers and their nodes, their errors, and the step.

    If a worker died, the others, which noticed by a broken connection, are left out.
    """
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    if not failures:
        return _one_line(error)
    dead = {rank: e for rank, e in failures.items() if hasattr(e, "health_check_failure")}
    parts = []
    for rank, failure in sorted((dead or failures).items()):
        node = status.nodes.get(rank)
        parts.append(f"worker {rank}{f' on {node}' if node else ''}: {_one_line(failure)}")
    near = "" if status.step is None else f" (near step {status.step})"
    return "; ".join(parts) + near


def _one_line(error: Exception) -> str:
    cause = getattr(error, "health_check_failure", error)
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    useful = [line for line in lines if line.split(":")[0] not in OF_AN_ACTOR]
    return f"{type(cause).__name__}: {' '.join(useful)}"[:LONGEST]


def describe_checkpoint(run_uri: str) -> str:
    """Return where the run would go on.

    A storage that is away is part of the text, so that it does not hide the failure before it.
    """
    try:
        found = checkpoints.list_checkpoints(run_uri)
    except PlatformError as error:
        return f"its checkpoints cannot be listed now: {error.what}"
    if not found:
        return "no checkpoint yet"
    return f"the last checkpoint is {found[-1].uri} (step {found[-1].step})"


def command() -> str:
    """Return the command that this process was started with."""
    return shlex.join(["python", *sys.argv])


def limit_error(options: TrainOptions, error: Exception, status: TrainingStatus) -> PlatformError:
    """Return the error of a run that has failed more often than it may."""
    from ray.train import ControllerError

    if isinstance(error, ControllerError):
        return PlatformError(
            f"Ray Train could not go on: {_one_line(error.controller_failure)}",
            where=f"{options.run}: {describe_checkpoint(options.run)}",
            remedy=f"mend the cause, then go on with the same command:\n    {command()}",
        )
    if is_preemption(error) or status.node_leaving:
        what = f"nodes were taken away more than {options.elastic.max_preemptions} times"
        option = "--elastic.max_preemptions"
    else:
        what = f"training failed more than {options.checkpoints.max_failures} times"
        option = "--checkpoints.max_failures"
    return PlatformError(
        f"{what}, at last with: {describe_failures(error, status)}",
        where=f"{options.run}: {describe_checkpoint(options.run)}",
        remedy=f"mend the cause ({option} allows more), then go on with the same command:\n"
        f"    {command()}",
    )


def stopped_error(options: TrainOptions, status: TrainingStatus) -> StoppedError:
    """Return the error of a run that was asked to end."""
    step = status.last_checkpoint
    written = "" if step is None else f", after a last checkpoint (step {step})"
    return StoppedError(
        f"ended by SIGTERM{written}",
        where=f"{options.run}: {describe_checkpoint(options.run)}",
        remedy=f"the same command goes on:\n    {command()}",
    )


@contextmanager
def stopping_on_sigterm(board: Any, grace: float) -> Iterator[None]:
    """While the block runs, let SIGTERM ask the workers to write a last checkpoint and stop.

    If they have not stopped `grace` seconds later, the run is interrupted as by Ctrl-C.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return
    late = threading.Timer(grace, os.kill, (os.getpid(), signal.SIGINT))
    late.daemon = True
    requested = False

    def request_stop(_signal: int, _frame: Any) -> None:
        nonlocal requested
        if not requested:
            requested = True
            board.request.remote("stop")
            late.start()
            say(f"SIGTERM: ending after a last checkpoint, within {grace:g} s")

    before = signal.signal(signal.SIGTERM, request_stop)
    try:
        yield
    finally:
        late.cancel()
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
