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

from tests.support.processes import shared_ray
from tests.support.servers.object_storage import S3Server, in_environment
from tests.support.servers.own_environment import python_of

PACKAGES = ("gcp-storage-emulator",)
# Its own command line takes any free port as well, and does not say which.
_SERVE = """
import threading, time
from gcp_storage_emulator.server import create_server
server = create_server("127.0.0.1", 0, in_memory=True)
server.start()
while server._api._httpd is None:
    time.sleep(0.02)
print(f"http://127.0.0.1:{server._api._httpd.server_address[1]}", flush=True)
threading.Event().wait()
"""


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
    shared_ray.end()
    server = GoogleServer([str(python_of("gcs", PACKAGES)), "-c", _SERVE])
    try:
        server.start()
        server.environment = {"STORAGE_EMULATOR_HOST": server.endpoint}
        with in_environment(server.environment):
            _forget_connections()
            yield server
    finally:
        shared_ray.end()
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
