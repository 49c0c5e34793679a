"""A storage that stops answering in the middle of a request does not block the program forever."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections import deque

import pytest

from pipelines.errors import StorageError
from pipelines.storage import places, s3
from pipelines.storage.retry import Retry, retrying
from tests.support.servers.latency_proxy import LatencyProxy
from tests.support.servers.object_storage import S3Server, in_environment, s3_server

__all__ = ["s3_server"]


class Reticent(LatencyProxy):
    """A relay that drops every "100 Continue", as some proxies do, and stores the request heads."""

    def __init__(self, port: int):
        self.heads: deque[bytes] = deque()
        super().__init__(port, 0.0)

    def _drops(self, head: bytes) -> bool:
        self.heads.append(head)
        return False

    def _pass_on(self, client: socket.socket, answer: memoryview) -> None:
        if not bytes(answer).startswith(b"HTTP/1.1 100"):
            super()._pass_on(client, answer)


def test_an_upload_does_not_wait_for_leave_to_send_its_body(s3_server: S3Server):
    relay = Reticent(s3_server.port)
    folder = s3_server.bucket()
    bodies = [os.urandom(size) for size in (0, 1, 70_000, 3 << 20)]
    try:
        with in_environment({"AWS_ENDPOINT_URL": relay.endpoint}):
            for number, body in enumerate(bodies):
                places.write_bytes(f"{folder}/{number}", body)
            assert [places.read_bytes(f"{folder}/{n}") for n in range(len(bodies))] == bodies
    finally:
        relay.close()
    assert sum(head.startswith(b"PUT") for head in relay.heads) == len(bodies)
    assert not [head for head in relay.heads if b"expect:" in head.lower()]


def test_a_server_that_stands_still_is_waited_out_and_an_upload_is_sent_again(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(s3, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(s3, "SLOWEST_BYTES_A_SECOND", 1 << 30)
    folder, body = s3_server.bucket(), os.urandom(24 << 20)  # more than the buffers of sockets
    places.write_bytes(f"{folder}/before", b"small")
    assert s3_server.process is not None
    said: list[str] = []
    stopped = threading.Event()

    def go_on_when_missed() -> None:
        while not said and not stopped.wait(0.02):
            pass
        s3_server.process.send_signal(signal.SIGCONT)

    s3_server.process.send_signal(signal.SIGSTOP)
    watcher = threading.Thread(target=go_on_when_missed)
    watcher.start()
    try:
        with pytest.raises(StorageError, match="no answer within"):
            places.write_bytes(f"{folder}/lost", body)
        with retrying(Retry(600.0, said.append)):
            places.write_bytes(f"{folder}/large", body)
    finally:
        stopped.set()
        watcher.join()
    assert "trying again" in said[0]
    assert places.read_bytes(f"{folder}/large") == body
