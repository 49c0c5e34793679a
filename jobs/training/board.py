"""Where workers write how far they are, and why they cannot go on; the driver reads it.

The other way it carries wishes: that a checkpoint be written now, or that the run end after one.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from jobs.command_line import progress
from pipelines.errors import PlatformError
from pipelines.storage.retry import is_storage_fault, passes

POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Wish:
    """What is asked of the workers from outside."""

    number: int
    """from 1 on"""
    kind: Literal["checkpoint", "stop"]
    """a checkpoint after the step that runs; or that, and then the end"""


@dataclass(frozen=True)
class Progress:
    """How far a run has come, for who ends it or reports its end."""

    step: int | None
    """of the last news: steps done; None before the first"""
    last: int | None
    """step of the checkpoint that answers what was asked; None: none yet"""
    nodes: dict[int, str]
    """rank -> node, of the latest group of workers"""
    stopping: bool = False
    """whether the run was asked to end"""
    leaving: bool = False
    """whether a node of this group was announced to go"""


class Board:
    """The latest news of a run (a Ray actor: workers may be on other machines)."""

    def __init__(self) -> None:
        self._news: dict[str, Any] = {}
        self._lines: list[str] = []
        self._failure: PlatformError | None = None
        self._nodes: dict[int, str] = {}
        self._saved: int | None = None
        self._wishes = self._answered = 0
        self._wish: Wish | None = None
        self._leaving = False

    def write(self, news: dict[str, Any]) -> None:
        """Replace the news: ``step``, ``steps`` and ``note``."""
        self._news = news

    def read(self) -> dict[str, Any]:
        """The latest news; empty before the first."""
        return self._news

    def say(self, line: str) -> None:
        """A line for the terminal, of something that happened."""
        self._lines.append(line)

    def take_lines(self) -> list[str]:
        """The lines since the last call."""
        lines, self._lines = self._lines, []
        return lines

    def fail(self, failure: PlatformError) -> None:
        """Keep the first error that another attempt would meet again."""
        self._failure = self._failure or failure

    def failure(self) -> PlatformError | None:
        """The error that the run ended with, if it did."""
        return self._failure

    def join(self, rank: int, node: str) -> None:
        """Note where a worker runs."""
        self._nodes[rank] = node

    def announce(self, line: str) -> None:
        """Note that a node of this group is to be taken away, and say so."""
        self._leaving = True
        self.say(line)

    def new_group(self) -> None:
        """Forget what concerned the workers before."""
        self._nodes, self._leaving = {}, False
        self.withdraw()

    def ask(self, kind: Literal["checkpoint", "stop"]) -> int:
        """Wish something of the workers; returns the wish's number. An end is never taken back."""
        if not self.stopping():
            self._wishes += 1
            self._wish = Wish(self._wishes, kind)
        return self._wishes

    def withdraw(self) -> None:
        """Take back a wish for a checkpoint."""
        if not self.stopping():
            self._wish = None

    def wish(self) -> Wish | None:
        """What is asked now."""
        return self._wish

    def stopping(self) -> bool:
        """Whether the run was asked to end."""
        return self._wish is not None and self._wish.kind == "stop"

    def saved(self, step: int, answers: int) -> None:
        """Note a checkpoint that is completely written, and the latest wish that it answers."""
        self._saved, self._answered = step, max(answers, self._answered)

    def answered(self) -> int:
        """The number of the latest wish that a checkpoint has answered; 0: none."""
        return self._answered

    def progress(self) -> Progress:
        """How far the run is."""
        wished = self._wish is not None and self._answered >= self._wish.number
        last = self._saved if wished else None
        return Progress(self._news.get("step"), last, self._nodes, self.stopping(), self._leaving)


def final_failure(error: Exception) -> PlatformError | None:
    """What ``error`` is to the user where another attempt would meet it again; None where a new
    group of workers may do better: a lost connection, a full disk, a failed collective.
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
def progress_board(title: str) -> Iterator[Any]:
    """A board whose news are shown as a progress bar while the block runs."""
    import ray
    import ray.exceptions
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # On the driver's node, so that no other node's end takes it away.
    here: Any = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    board: Any = ray.remote(num_cpus=0, scheduling_strategy=here)(Board).remote()
    ended = threading.Event()
    with progress(title, "steps") as report:

        def show() -> None:
            while not ended.wait(POLL_SECONDS):
                look()
            look()

        def look() -> None:
            try:
                lines: Any = ray.get(board.take_lines.remote(), timeout=5)
                news: Any = ray.get(board.read.remote(), timeout=5)
            except ray.exceptions.RayError:
                return
            for line in lines:
                print(line, file=sys.stderr, flush=True)
            if news:
                report(news["step"], news["steps"], news["note"])

        viewer = threading.Thread(target=show, daemon=True)
        viewer.start()
        try:
            yield board
        finally:
            ended.set()
            viewer.join(timeout=10)
            ray.kill(board)
