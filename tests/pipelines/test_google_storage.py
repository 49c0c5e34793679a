"""``gs://``: its driver is an extra; a refusal of its server says what to check."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest

from pipelines import uri as places
from pipelines.errors import UsageError
from pipelines.patience import Patience, waiting
from pipelines.store import open_store


@contextmanager
def answering(code: int) -> Iterator[list[str]]:
    """A server that answers everything with this code; yields what was asked."""
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = b'{"error": {"message": "no"}}'
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    before = dict(fsspec.config.conf)
    fsspec.config.conf["gs"] = {
        "endpoint_url": f"http://127.0.0.1:{server.server_port}",
        "token": "anon",
        "skip_instance_cache": True,
    }
    try:
        yield asked
    finally:
        fsspec.config.conf.clear()
        fsspec.config.conf.update(before)
        server.shutdown()
        server.server_close()


def test_without_the_driver_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UsageError, match="no driver for 'gs://'") as refused:
        open_store("gs://bucket/store")
    assert refused.value.remedy == "pip install 'gmg-platform[gcs]'"


def test_places_are_joined_and_named_like_those_of_any_storage():
    assert places.absolute("gs://bucket/store/") == "gs://bucket/store"
    assert places.join("gs://bucket/store", "t2m", "zarr.json") == "gs://bucket/store/t2m/zarr.json"
    assert not places.is_local("gs://bucket/store")


@pytest.mark.parametrize("code", [401, 403])
def test_a_refusal_is_not_repeated_and_names_the_credentials(code: int):
    pytest.importorskip("gcsfs")
    refusal = pytest.raises(UsageError, match="refuses access")
    with answering(code) as asked, waiting(Patience(60.0)), refusal as refused:
        places.read_bytes("gs://bucket/object")
    assert asked
    assert "GOOGLE_APPLICATION_CREDENTIALS" in str(refused.value.remedy)
    assert refused.value.where == "gs://bucket/object"
