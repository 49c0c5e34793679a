"""Processes that a test has started, including orphans, found by a mark in their environment."""

from __future__ import annotations

import contextlib
import socket
import uuid
from collections.abc import Iterator

import psutil

_NAME = "GMG_TEST_FAMILY"


@contextlib.contextmanager
def nobody_listens() -> Iterator[int]:
    """Yield a port of this machine that refuses connections: it is bound, but not listened on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


class Family:
    """A process that was started with `environment`, and all its descendants.

    Children inherit the mark, so that a descendant is found even if its parent is dead. Ray's
    agents overwrite their environment with their title. They are found as children of other
    processes, and are remembered.
    """

    def __init__(self) -> None:
        self._mark = uuid.uuid4().hex
        self._seen: set[psutil.Process] = set()

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment for the first process."""
        return {_NAME: self._mark}

    def alive(self) -> list[psutil.Process]:
        """Return the processes that run now.

        Call it once while all processes run, so that later calls know every one of them.
        """
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(_NAME) == self._mark:
                    self._seen |= {process, *process.children(recursive=True)}
        return [process for process in self._seen if _is_alive(process)]

    def named(self, name: str) -> list[psutil.Process]:
        """Return the processes that run now and have this name in their title."""
        return [process for process in self.alive() if name in _title(process)]

    def end(self, seconds: float) -> list[str]:
        """Wait for the processes to end, then kill the others by id, and return their titles."""
        psutil.wait_procs(self.alive(), timeout=seconds)
        titles: list[str] = []
        while left := self.alive():  # again for children that they started before they were killed
            titles += [_title(process) for process in left]
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, timeout=60)
        return titles


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()).strip()
    except psutil.Error:
        return ""
