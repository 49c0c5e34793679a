"""A Google Cloud Storage server on loopback for tests: gcp-storage-emulator, objects in memory.

It knows no keys: who may do what is not tested with it. It answers a request for the last bytes of
an object with all of it, as some servers do.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.object_storage import S3Server, free_port, in_environment
from tests.own_environment import python_of

PACKAGES = ("gcp-storage-emulator",)


@dataclass
class GoogleServer(S3Server):
    """A server of Google's protocol; the variables of this process name it."""

    def bucket(self) -> str:
        """A new bucket, as a URI."""
        import fsspec

        name = f"b{uuid.uuid4().hex[:12]}"
        fsspec.filesystem("gs").mkdir(name)
        return f"gs://{name}"


@contextmanager
def serve_gcs() -> Iterator[GoogleServer]:
    """Serve, and point the standard variable of this process at it."""
    port = free_port()
    command = [
        *(str(python_of("gcs", PACKAGES)), "-m", "gcp_storage_emulator"),
        *("start", "--host", "127.0.0.1", "--port", str(port), "--in-memory", "--quiet"),
    ]
    server = GoogleServer(command, port, {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"})
    try:
        server.start()
        with in_environment(server.environment):
            _forget_connections()
            yield server
    finally:
        server.stop()
        _forget_connections()


def _forget_connections() -> None:
    """fsspec keeps file systems with the endpoint of their first use."""
    import gcsfs

    gcsfs.GCSFileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def gcs_server() -> Iterator[GoogleServer]:
    """The server for a test module; import this fixture where it is used."""
    pytest.importorskip("gcsfs")
    with serve_gcs() as server:
        yield server
