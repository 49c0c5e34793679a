"""A relay in front of an S3 server that delays every request and counts requests and bytes.

A request waits before its first byte is sent on, as on the way to a distant storage. Bodies pass at
full speed, so that the total time depends on the number of requests and on how many are sent at
once. `delaying` runs the relay in a process of its own, because threads in the client's process
would share its interpreter lock.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import unquote, urlsplit

_LENGTH = re.compile(rb"(?im)^content-length: *(\d+)")
_RANGE = re.compile(rb"(?im)^range: bytes=(\d+)-(\d+)")
_CHUNKED = re.compile(rb"(?im)^transfer-encoding: *chunked")
_CONTINUE = re.compile(rb"HTTP/1\.1 100[^\r\n]*\r\n\r\n")
_BUFFER = 1 << 20
_SLOW_DOWN = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class LatencyProxy:
    """A relay to a port of this machine, which changes nothing, so that signatures stay valid.

    Parameters
    ----------
    port
        Port of the server behind the relay.
    latency_seconds
        Delay of each request. It may be changed at any time.
    slow_down_every
        One request in this number of requests is answered with 503 SlowDown; 0 for none. It may be
        changed at any time.
    """

    def __init__(self, port: int, latency_seconds: float, slow_down_every: int = 0):
        self.latency_seconds, self.slow_down_every = latency_seconds, slow_down_every
        self._requests_seen = 0
        self._port = port
        self._counts: Counter[str] = Counter()
        self._gets: list[tuple[str, int | None]] = []
        self._lock = threading.Lock()
        self._listener = self._listen(0)
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def counts(self) -> dict[str, int]:
        """Return counts since the last call: requests by method, bytes `up`, `down`, and `503`."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        return dict(counts)

    def gets(self, ending: str) -> list[int | None]:
        """Return the bytes asked for by each GET of an object with this ending, None for all."""
        with self._lock:
            return [length for path, length in self._gets if path.endswith(ending)]

    def close(self) -> None:
        """Close the relay, so that connections are refused."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts connections
        self._listener.close()

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port), backlog=128, reuse_port=True)
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return listener

    def _drops(self, head: bytes) -> bool:
        """Return whether to close the connection of a request without an answer."""
        return False

    def _note_answer(self, head: bytes) -> None:
        """Note that the request with this head has been answered."""

    def _pass_on(self, client: socket.socket, answer: memoryview) -> None:
        """Send the server's answer to the client."""
        client.sendall(answer)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self._port))
        except OSError:
            client.close()
            return
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        unanswered: deque[bytes] = deque()
        answers = (server, client, unanswered)
        threading.Thread(target=self._answers, args=answers, daemon=True).start()
        with suppress(OSError):
            self._requests(client, server, unanswered)
        _end(client, server)

    def _requests(
        self, client: socket.socket, server: socket.socket, unanswered: deque[bytes]
    ) -> None:
        held, block = b"", bytearray(_BUFFER)
        while True:
            while (cut := held.find(b"\r\n\r\n")) < 0:
                if not (more := client.recv(65536)):
                    return
                held += more
            head, held = held[: cut + 4], held[cut + 4 :]
            if _CHUNKED.search(head):
                raise OSError("bodies without a length are not relayed")
            length = _LENGTH.search(head)
            left = int(length[1]) if length else 0
            self._count(head.split(b" ", 1)[0].decode(), 1)
            self._count("up", left)
            self._note(head)
            if self._drops(head):
                return
            unanswered.append(head)
            time.sleep(self.latency_seconds)
            body, held = held[:left], held[left:]
            refused = self._is_one_too_many()
            if not refused:
                server.sendall(head + body)
            left -= len(body)
            while left:
                size = client.recv_into(block, min(left, len(block)))
                if not size:
                    return
                if not refused:
                    server.sendall(memoryview(block)[:size])
                left -= size
            if refused:
                client.sendall(_SLOW_DOWN)
                return

    def _note(self, head: bytes) -> None:
        method, target, _ = head.split(b" ", 2)
        if method == b"GET":
            span = _RANGE.search(head)
            length = int(span[2]) - int(span[1]) + 1 if span else None
            with self._lock:
                self._gets.append((unquote(urlsplit(target.decode()).path), length))

    def _is_one_too_many(self) -> bool:
        with self._lock:
            self._requests_seen += 1
            refused = self.slow_down_every and self._requests_seen % self.slow_down_every == 0
        if refused:
            self._count("503", 1)
        return bool(refused)

    def _answers(
        self, server: socket.socket, client: socket.socket, unanswered: deque[bytes]
    ) -> None:
        block = bytearray(_BUFFER)
        with suppress(OSError):
            while size := server.recv_into(block):
                if unanswered and _CONTINUE.sub(b"", bytes(block[: min(size, 256)]), count=1):
                    self._note_answer(unanswered.popleft())
                self._pass_on(client, memoryview(block)[:size])
                self._count("down", size)
        _end(client, server)

    def _count(self, name: str, amount: int) -> None:
        with self._lock:
            self._counts[name] += amount


class DelayingProcess:
    """A `LatencyProxy` in a process of its own."""

    def __init__(self, port: int, latency_seconds: float):
        command = [sys.executable, __file__, str(port), str(latency_seconds)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        self.pid = self._process.pid
        self.endpoint = str(self._answer())

    def counts(self) -> dict[str, int]:
        """Return counts since the last call: requests by method, and bytes `up` and `down`."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process and its connections."""
        self._process.communicate()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


@contextmanager
def delaying(endpoint: str, latency_seconds: float) -> Iterator[DelayingProcess]:
    """Run a relay in front of the server at `endpoint` during the block."""
    proxy = DelayingProcess(urlsplit(endpoint).port or 80, latency_seconds)
    try:
        yield proxy
    finally:
        proxy.close()


def _end(*connections: socket.socket) -> None:
    for connection in connections:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()


def main() -> None:
    """Relay until standard input ends; print the counts for each line of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("port", type=int)
    parser.add_argument("latency_seconds", type=float)
    options = parser.parse_args()
    proxy = LatencyProxy(options.port, options.latency_seconds)
    print(json.dumps(proxy.endpoint), flush=True)
    for _ in sys.stdin:
        print(json.dumps(proxy.counts()), flush=True)


if __name__ == "__main__":
    main()
