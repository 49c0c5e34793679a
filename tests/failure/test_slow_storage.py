"""Object storage that is far away, or refuses some requests, only makes conversions slower."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from pipelines.audit.verification import verify
from pipelines.conversion.convert import convert
from pipelines.conversion.options import ConversionOptions, ConversionRequest
from pipelines.inputs.normalisation import Normalisation
from pipelines.storage import lease
from pipelines.stores.store import open_store
from pipelines.stream.order import OrderConfig
from pipelines.stream.window_stream import WindowStream
from pipelines.stream.windows import WindowSpec, split_starts
from tests.pipelines.conversion.test_convert_object_storage import objects
from tests.support.archives.small_archives import write_days
from tests.support.processes import shared_ray
from tests.support.servers.latency_proxy import LatencyProxy
from tests.support.servers.moto_server import moto
from tests.support.servers.object_storage import S3Server, bucket, in_environment, s3_server

__all__ = ["moto", "s3_server"]

OPTIONS = ConversionOptions(chunk_frames=4, shard_frames=16)
SHARDS = 9
# One request writes the shard, one writes its ledger record, and one checks whether there is one.
REQUESTS_A_SHARD = 3
# Lease, plan, metadata and coordinates need these requests, for any number of shards.
REQUESTS_A_CONVERSION = 50
REQUESTS_TO_OPEN = 20


@pytest.fixture(scope="module", params=["s3_server", "moto"])
def storage(request: pytest.FixtureRequest) -> Iterator[LatencyProxy]:
    """Start a relay in front of each server in turn; Ray's workers use it too."""
    server: S3Server = request.getfixturevalue(request.param)
    proxy = LatencyProxy(urlsplit(server.endpoint).port or 80, 0.0)
    with in_environment(server.environment | {"AWS_ENDPOINT_URL": proxy.endpoint}):
        shared_ray.use()
        yield proxy
        shared_ray.end()
    proxy.close()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_days(tmp_path_factory.mktemp("archive"), *range(1, 7))


@pytest.fixture(scope="module")
def local(archive: Path, storage: LatencyProxy) -> str:
    """Convert the archive to a store on a local disk."""
    store = str(archive.parent / f"local-{id(storage)}")
    assert convert(ConversionRequest("weatherbench", str(archive), store, OPTIONS)).changed
    return store


def data(store: str) -> dict[str, bytes]:
    """Return the content of every object, except those that contain a time or an owner."""
    return {n: content for n, content in objects(store).items() if not n.startswith(".ledger")}


def batches(store: str) -> list[np.ndarray]:
    opened, spec = open_store(store), WindowSpec(3, 2)
    stream = WindowStream(
        opened,
        ("t2m",),
        spec,
        split_starts(opened, "train", spec),
        OrderConfig(4, seed=5, slab_frames=16),
        Normalisation.from_store(opened, ("t2m",), "standardise"),
        range(4),
    )
    return [batch.frames_btchw.copy() for batch in stream.epoch(0)]


def requests(storage: LatencyProxy, action: Callable[[], object]) -> int:
    storage.counts()
    action()
    counts = storage.counts()
    return sum(count for name, count in counts.items() if name not in ("up", "down"))


@pytest.mark.parametrize("latency", [0.03, 0.1])
def test_latency_changes_nothing_and_the_requests_are_few(
    storage: LatencyProxy,
    archive: Path,
    local: str,
    latency: float,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 3600.0)  # a heartbeat would be one more request
    store = f"{bucket()}/t2m.zarr"
    conversion = ConversionRequest("weatherbench", str(archive), store, OPTIONS)
    read: list[np.ndarray] = []
    storage.latency_seconds = latency
    try:
        written = requests(storage, lambda: convert(conversion))
        again = requests(storage, lambda: convert(conversion))
        streamed = requests(storage, lambda: read.extend(batches(store)))
        checked = requests(storage, lambda: verify(store))
    finally:
        storage.latency_seconds = 0.0
    assert 2 * SHARDS < written <= REQUESTS_A_SHARD * SHARDS + REQUESTS_A_CONVERSION
    assert again <= SHARDS + REQUESTS_A_CONVERSION
    assert SHARDS / 2 < streamed <= 3 * SHARDS + REQUESTS_TO_OPEN
    assert 2 * SHARDS < checked <= 2 * SHARDS + REQUESTS_A_CONVERSION
    assert data(store) == data(local)
    assert verify(store).ok
    for one, other in zip(read, batches(local), strict=True):
        np.testing.assert_array_equal(one, other)


def test_requests_that_are_refused_now_and_then_are_made_again(
    storage: LatencyProxy, archive: Path, local: str
):
    store = f"{bucket()}/t2m.zarr"
    storage.counts()
    storage.slow_down_every = 9
    try:
        convert(ConversionRequest("weatherbench", str(archive), store, OPTIONS))
        read = batches(store)
        found = verify(store)
    finally:
        storage.slow_down_every = 0
    assert storage.counts()["503"] > 5
    assert data(store) == data(local)
    assert found.ok
    for one, other in zip(read, batches(local), strict=True):
        np.testing.assert_array_equal(one, other)
