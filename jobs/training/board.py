"""Where workers write how far they are, and why they cannot go on; the driver reads it."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jobs.command_line import progress
from pipelines.errors import PlatformError
from pipelines.patience import is_storage_fault, passes

POLL_SECONDS = 0.5


class Board:
    """The latest news of a run (a Ray actor: workers may be on other machines)."""

    def __init__(self) -> None:
        self._news: dict[str, Any] = {}
        self._lines: list[str] = []
        self._failure: PlatformError | None = None

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
