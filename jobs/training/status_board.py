"""The status of a training run: workers write it, the driver reads it.

A Ray actor keeps it, because workers may be on other machines. It carries requests the other way,
from the driver to the workers: write a checkpoint now, or write one and stop.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from jobs.command_line import progress, say
from pipelines.errors import PlatformError
from pipelines.storage.retry import is_storage_fault, passes

POLL_SECONDS = 0.5
"""between two looks of the driver at the board"""


@dataclass(frozen=True)
class Request:
    """What the driver asks of the workers."""

    number: int
    """from 1 on"""
    kind: Literal["checkpoint", "stop"]
    """write a checkpoint after the step that runs; or write one and stop"""


@dataclass(frozen=True)
class StepProgress:
    """How far the workers are."""

    step: int
    """steps done"""
    steps: int
    """steps of the whole training"""
    note: str
    """loss and speed, for the progress bar"""


@dataclass(frozen=True)
class TrainingStatus:
    """What the driver needs to know when it ends a run or reports its end."""

    step: int | None
    """steps done; None before the first"""
    last_checkpoint: int | None
    """step of the checkpoint that answers the latest request; None: not written yet"""
    nodes: dict[int, str]
    """rank -> node, of the latest group of workers"""
    is_stopping: bool = False
    """whether the run was asked to stop"""
    node_leaving: bool = False
    """whether Ray has given notice that a node of this group will be taken away"""


class StatusBoard:
    """The latest status of a run, kept in a Ray actor."""

    def __init__(self) -> None:
        self._progress: StepProgress | None = None
        self._lines: list[str] = []
        self._failure: PlatformError | None = None
        self._nodes: dict[int, str] = {}
        self._checkpoint: int | None = None
        self._requests = self._answered = 0
        self._request: Request | None = None
        self._node_leaving = False

    def set_progress(self, progress: StepProgress) -> None:
        """Replace how far the workers are."""
        self._progress = progress

    def progress(self) -> StepProgress | None:
        """Return how far the workers are; None before the first step."""
        return self._progress

    def add_line(self, line: str) -> None:
        """Add a line for the user; the driver prints it."""
        self._lines.append(line)

    def take_lines(self) -> list[str]:
        """Return the lines that were added since the last call."""
        lines, self._lines = self._lines, []
        return lines

    def set_failure(self, failure: PlatformError) -> None:
        """Keep the first error that a new group of workers would meet again."""
        self._failure = self._failure or failure

    def failure(self) -> PlatformError | None:
        """Return the error that ends the run, if there is one."""
        return self._failure

    def add_worker(self, rank: int, node: str) -> None:
        """Record the node of a worker."""
        self._nodes[rank] = node

    def set_node_leaving(self, line: str) -> None:
        """Record that a node of this group will be taken away, and add a line for the user."""
        self._node_leaving = True
        self.add_line(line)

    def start_group(self) -> None:
        """Forget what concerned the group of workers before."""
        self._nodes, self._node_leaving = {}, False
        self.cancel_request()

    def request(self, kind: Literal["checkpoint", "stop"]) -> int:
        """Ask something of the workers, and return the request's number.

        A request to stop stays: later requests are ignored.
        """
        if not self.is_stopping():
            self._requests += 1
            self._request = Request(self._requests, kind)
        return self._requests

    def cancel_request(self) -> None:
        """Cancel a request for a checkpoint."""
        if not self.is_stopping():
            self._request = None

    def current_request(self) -> Request | None:
        """Return what is asked now."""
        return self._request

    def is_stopping(self) -> bool:
        """Return whether the run was asked to stop."""
        return self._request is not None and self._request.kind == "stop"

    def add_checkpoint(self, step: int, answers: int) -> None:
        """Record a checkpoint that is completely written.

        Parameters
        ----------
        answers:
            Number of the latest request that it answers; 0 if it answers none.
        """
        self._checkpoint, self._answered = step, max(answers, self._answered)

    def last_answered(self) -> int:
        """Return the number of the latest request that a checkpoint has answered; 0: none."""
        return self._answered

    def status(self) -> TrainingStatus:
        """Return the status of the run."""
        answered = self._request is not None and self._answered >= self._request.number
        return TrainingStatus(
            step=self._progress.step if self._progress else None,
            last_checkpoint=self._checkpoint if answered else None,
            nodes=self._nodes,
            is_stopping=self.is_stopping(),
            node_leaving=self._node_leaving,
        )


def final_failure(error: Exception) -> PlatformError | None:
    """Return the error for the user if a new group of workers would meet `error` again.

    None if a new group may do better: after a lost connection, a full disk, a failed collective.
    """
    if passes(error) or is_storage_fault(error) or isinstance(error, (RuntimeError, MemoryError)):
        return None
    if isinstance(error, PlatformError):
        return error
    trace = traceback.format_exception(error)
    return PlatformError(
        f"a fault of the program: {type(error).__name__}: {error}\n{''.join(trace[-4:])}".rstrip(),
        remedy="report it with these lines; the run's checkpoints are kept",
    )


@contextmanager
def status_board(title: str) -> Iterator[Any]:
    """Yield a status board. While the block runs, show its progress and print its lines."""
    import ray
    import ray.exceptions
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # On the driver's node, so that the board survives the end of any other node.
    here: Any = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    board: Any = ray.remote(num_cpus=0, scheduling_strategy=here)(StatusBoard).remote()
    ended = threading.Event()
    with progress(title, "steps") as report:

        def watch() -> None:
            while not ended.wait(POLL_SECONDS):
                show()
            show()

        def show() -> None:
            try:
                lines: Any = ray.get(board.take_lines.remote(), timeout=5)
                latest: Any = ray.get(board.progress.remote(), timeout=5)
            except ray.exceptions.RayError:
                return
            for line in lines:
                say(line)
            if latest:
                report(latest.step, latest.steps, latest.note)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield board
        finally:
            ended.set()
            watcher.join(timeout=10)
            ray.kill(board)
