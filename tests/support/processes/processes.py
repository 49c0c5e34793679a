"""Processes that a test started, orphans included: told apart by a mark in their environment."""

from __future__ import annotations

import contextlib
import socket
import uuid
from collections.abc import Iterator

import psutil

_NAME = "GMG_TEST_FAMILY"


@contextlib.contextmanager
def nobody_listens() -> Iterator[int]:
    """A port of this machine where connections are refused: it is taken, and not listened on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


class Family:
    """A process started with :attr:`environment`, and whatever descends from it.

    The mark is inherited, so that a descendant is found also where its parent is dead. Ray's agents
    write their title over their environment: they are found as children, and remembered.
    """

    def __init__(self) -> None:
        self._mark = uuid.uuid4().hex
        self._seen: set[psutil.Process] = set()

    @property
    def environment(self) -> dict[str, str]:
        """Variables for the first process."""
        return {_NAME: self._mark}

    def alive(self) -> list[psutil.Process]:
        """Those that run now; called while all do, every one is known later."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(_NAME) == self._mark:
                    self._seen |= {process, *process.children(recursive=True)}
        return [process for process in self._seen if _is_alive(process)]

    def named(self, name: str) -> list[psutil.Process]:
        """Those that run now and call themselves so."""
        return [process for process in self.alive() if name in _title(process)]

    def end(self, seconds: float) -> list[str]:
        """Wait until all have ended by themselves, then kill what is left, by id.

        Returns the titles of those that had to be killed.
        """
        psutil.wait_procs(self.alive(), timeout=seconds)
        titles: list[str] = []
        while left := self.alive():  # once more for what they started before they were killed
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
