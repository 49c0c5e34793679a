"""A Google Cloud Storage server on loopback for tests: gcp-storage-emulator, objects in memory.

The server checks no keys, so that tests of permissions need another one. It answers a request for
the last bytes of an object with the whole object, as some servers do.
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
# The emulator's own command line can choose a free port too, but does not print it.
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
    """A server of Google's protocol, which the environment of this process names."""

    def bucket(self) -> str:
        """Create a bucket and return its URI."""
        import fsspec

        name = f"b{uuid.uuid4().hex[:12]}"
        fsspec.filesystem("gs").mkdir(name)
        return f"gs://{name}"


@contextmanager
def serve_gcs() -> Iterator[GoogleServer]:
    """Start the server and set the standard environment variable of this process to its address."""
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
    """Clear the cache of fsspec, which keeps file systems with the endpoint of their first use."""
    import gcsfs

    gcsfs.GCSFileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def gcs_server() -> Iterator[GoogleServer]:
    """Return the server for a test module; import this fixture where it is used."""
    pytest.importorskip("gcsfs")
    with serve_gcs() as server:
        yield server
