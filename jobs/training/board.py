"""Where the first worker writes how far it is, and the driver reads it for the progress bar."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jobs.command_line import progress

POLL_SECONDS = 0.5


class Board:
    """The latest news of a run (a Ray actor: workers may be on other machines)."""

    def __init__(self) -> None:
        self._news: dict[str, Any] = {}

    def write(self, news: dict[str, Any]) -> None:
        """Replace the news: ``step``, ``steps`` and ``note``."""
        self._news = news

    def read(self) -> dict[str, Any]:
        """The latest news; empty before the first."""
        return self._news


@contextmanager
def progress_board(title: str) -> Iterator[Any]:
    """A board whose news are shown as a progress bar while the block runs."""
    import ray

    board: Any = ray.remote(num_cpus=0)(Board).remote()
    ended = threading.Event()
    with progress(title, "steps") as report:

        def show() -> None:
            while not ended.wait(POLL_SECONDS):
                try:
                    news: Any = ray.get(board.read.remote(), timeout=5)
                except ray.exceptions.RayError:
                    continue
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
