"""A relay behind which an object storage goes away at a place in the protocol, not after a time.

How many objects got through is bounded by construction, however fast or slow the machine is; and
the storage comes back when somebody was seen to wait for it.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from tests.support.servers.latency_proxy import LatencyProxy


@dataclass
class Outage:
    """From when the server is away, and what happened."""

    kind: re.Pattern[str]
    permitted: int
    admitted: int = 0
    answered: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    begun: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)

    def drops(self, request: str) -> bool:
        """Whether the request comes too late; the first one too many of its kind begins it."""
        with self.lock:
            if not self.begun.is_set() and self.kind.search(request):
                if self.admitted == self.permitted:
                    self.begun.set()
                else:
                    self.admitted += 1
            return self.begun.is_set() and not self.over.is_set()

    def note_answer(self, request: str) -> None:
        """With the answer to the last one of its kind that gets through, it begins as well."""
        with self.lock:
            if self.kind.search(request):
                self.answered += 1
                if self.answered == self.permitted:
                    self.begun.set()


class FailingRelay(LatencyProxy):
    """Refuses connections, as a dead server does, while there is an :meth:`outage`."""

    def __init__(self, port: int):
        super().__init__(port, 0.0)
        # Bound and never listening: the port stays this relay's while connections are refused.
        self._own_port = int(self.endpoint.rsplit(":", 1)[1])
        self._keeper = socket.socket()
        self._keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._keeper.bind(("127.0.0.1", self._own_port))
        self._outage: Outage | None = None

    def close(self) -> None:
        """Take no more connections, and give the port back."""
        super().close()
        self._keeper.close()

    @contextmanager
    def outage(
        self, kind: str, answered: int, until: Callable[[], bool] = lambda: False
    ) -> Iterator[None]:
        """The server goes away in this block.

        It answers so many requests of the kind; the next one of it, or any request after the last
        answer, is dropped, and from then on connections are refused.

        Parameters
        ----------
        kind:
            Regular expression, searched in ``METHOD /bucket/path``.
        until:
            Asked again and again while the server is away: when it is back. By default that is the
            end of the block.

        Raises
        ------
        AssertionError
            At the end: the server never went away.
        """
        outage = self._outage = Outage(re.compile(kind), answered)
        left = threading.Event()

        def watch() -> None:
            while not outage.begun.wait(0.02):
                if left.is_set():
                    return
            LatencyProxy.close(self)
            while not (left.is_set() or until()):
                time.sleep(0.02)
            self._listener = self._listen(self._own_port)
            outage.over.set()

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            left.set()
            watcher.join()
        assert outage.over.is_set(), f"fewer than {answered} requests of {kind}"

    def _drops(self, head: bytes) -> bool:
        return self._outage is not None and self._outage.drops(_name(head))

    def _note_answer(self, head: bytes) -> None:
        if self._outage is not None:
            self._outage.note_answer(_name(head))


def _name(head: bytes) -> str:
    method, target, _ = head.split(b" ", 2)
    return f"{method.decode()} {unquote(urlsplit(target.decode()).path)}"
