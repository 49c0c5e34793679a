"""A relay in front of an HTTP server that notes which objects are asked for."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

_GET = re.compile(rb"GET (\S+) HTTP/1\.1\r\n((?:[^\r\n]+\r\n)*)")
_RANGE = re.compile(rb"(?im)^range: bytes=(\d+)-(\d+)")


class CountingProxy:
    """Passes bytes on in both directions; nothing is changed, so that signatures stay valid."""

    def __init__(self, port: int):
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._gets: list[tuple[str, int | None]] = []
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def gets(self, ending: str) -> list[int | None]:
        """Requests for objects with this ending: the bytes asked for, None for all of it."""
        return [length for path, length in self._gets if path.endswith(ending)]

    def close(self) -> None:
        """Stop; connections end with it."""
        self._listener.close()
        for connection in self._open:
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._port))
            self._open += [client, server]
            for source, target, counted in ((client, server, True), (server, client, False)):
                arguments = (source, target, counted)
                threading.Thread(target=self._pass_on, args=arguments, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                if counted:
                    self._note(data)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            source.close()
            target.close()

    def _note(self, data: bytes) -> None:
        for path, headers in _GET.findall(data):
            span = _RANGE.search(headers)
            length = int(span[2]) - int(span[1]) + 1 if span else None
            self._gets.append((unquote(urlsplit(path.decode()).path), length))


@contextmanager
def counting(endpoint: str) -> Iterator[CountingProxy]:
    """A relay in front of the server at ``endpoint`` for the length of the block."""
    proxy = CountingProxy(urlsplit(endpoint).port or 80)
    try:
        yield proxy
    finally:
        proxy.close()
