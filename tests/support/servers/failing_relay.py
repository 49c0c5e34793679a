"""A relay to an object storage that becomes unreachable after given requests, not after a time.

The number of requests that pass does not depend on the speed of the machine. The storage is
reachable again when the test has observed that a client waits for it.
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
    """The condition for the start of an outage, and what has happened so far."""

    kind: re.Pattern[str]
    permitted: int
    admitted: int = 0
    answered: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    begun: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)

    def drops(self, request: str) -> bool:
        """Return whether to drop a request; the first request over the limit starts the outage."""
        with self.lock:
            if not self.begun.is_set() and self.kind.search(request):
                if self.admitted == self.permitted:
                    self.begun.set()
                else:
                    self.admitted += 1
            return self.begun.is_set() and not self.over.is_set()

    def note_answer(self, request: str) -> None:
        """Start the outage with the answer to the last request of the kind that may pass."""
        with self.lock:
            if self.kind.search(request):
                self.answered += 1
                if self.answered == self.permitted:
                    self.begun.set()


class FailingRelay(LatencyProxy):
    """A relay that refuses connections during an `outage`, as a dead server does."""

    def __init__(self, port: int):
        super().__init__(port, 0.0)
        # This socket is bound but never listens. It keeps the port while connections are refused.
        self._own_port = int(self.endpoint.rsplit(":", 1)[1])
        self._keeper = socket.socket()
        self._keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._keeper.bind(("127.0.0.1", self._own_port))
        self._outage: Outage | None = None

    def close(self) -> None:
        """Accept no more connections, and release the port."""
        super().close()
        self._keeper.close()

    @contextmanager
    def outage(
        self, kind: str, answered: int, until: Callable[[], bool] = lambda: False
    ) -> Iterator[None]:
        """Make the server unreachable during this block, after some requests of a kind.

        The given number of requests of the kind is answered. The next request of the kind, or any
        request after the last answer, is dropped, and from then on connections are refused.

        Parameters
        ----------
        kind
            Regular expression that is searched in `METHOD /bucket/path`.
        until
            Called repeatedly during the outage; the outage ends when it returns True. By default
            the outage ends with the block.

        Raises
        ------
        AssertionError
            At the end of the block, if the outage never began.
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
