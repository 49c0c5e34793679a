"""Unreachable object storage: conversions and streams wait for it, or end and can be continued."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipelines.audit.verification import verify
from pipelines.conversion.convert import convert
from pipelines.conversion.options import ConversionOptions, ConversionRequest
from pipelines.errors import BusyError, StorageError
from pipelines.inputs.normalisation import Normalisation, NormalisedReader
from pipelines.stores.reader import FrameReader
from pipelines.stores.store import Store, open_store
from pipelines.stream.order import OrderConfig
from pipelines.stream.window_stream import DirectTransport, WindowStream
from pipelines.stream.windows import WindowSpec, split_starts
from tests.pipelines.conversion.test_convert_object_storage import objects
from tests.support.archives.small_archives import write_days
from tests.support.servers.failing_relay import FailingRelay
from tests.support.servers.object_storage import S3Server, bucket, in_environment, s3_server

__all__ = ["s3_server"]

SMALL = ConversionOptions(chunk_frames=4, shard_frames=4)
SHARDS = 36
# Requests that write a ledger record, which marks a shard as done, and requests that read shards.
RECORDS = r"^PUT .*/\.ledger/t2m/"
READS = r"^GET .*/t2m/c/"


@pytest.fixture(scope="module")
def storage(s3_server: S3Server, request: pytest.FixtureRequest) -> Iterator[FailingRelay]:
    """Start a relay in front of the server; clients of the relay do not repeat requests."""
    relay = FailingRelay(s3_server.port)
    with in_environment({"AWS_ENDPOINT_URL": relay.endpoint, "AWS_MAX_ATTEMPTS": "1"}):
        request.getfixturevalue("ray_cluster")
        yield relay
    relay.close()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_days(tmp_path_factory.mktemp("archive"), *range(1, 7))


@pytest.fixture(scope="module")
def calm(storage: FailingRelay, archive: Path) -> str:
    """Return a store whose conversion was not disturbed."""
    store = f"{bucket()}/t2m.zarr"
    assert convert(request(archive, store)).shards_written == SHARDS
    return store


def request(archive: Path, store: str, **options: float) -> ConversionRequest:
    return ConversionRequest("weatherbench", str(archive), store, SMALL, **options)  # pyright: ignore


def data(store: str) -> dict[str, bytes]:
    """Return the content of every object, except those that contain a time or an owner."""
    found = objects(store)
    assert sum(name.startswith(".ledger/t2m/") for name in found) == SHARDS
    return {name: content for name, content in found.items() if not name.startswith(".ledger")}


def lines_of_workers() -> int:
    """Return how often Ray's workers have printed that they wait for a storage."""
    from ray._private.worker import _global_node

    assert _global_node is not None
    logs = Path(_global_node.get_logs_dir_path()).glob("worker-*")
    return sum(path.read_bytes().count(b"trying again") for path in logs)


def test_a_conversion_waits_for_the_storage_and_ends_with_the_same_store(
    storage: FailingRelay, archive: Path, calm: str
):
    store, before = f"{bucket()}/t2m.zarr", lines_of_workers()
    with storage.outage(RECORDS, 10, until=lambda: lines_of_workers() > before):
        report = convert(request(archive, store))
    assert report.shards_written == SHARDS
    assert data(store) == data(calm)
    assert verify(store, str(archive)).ok


def test_a_conversion_waits_for_the_storage_when_every_shard_is_written(
    storage: FailingRelay, archive: Path, calm: str
):
    store, said = f"{bucket()}/t2m.zarr", list[str]()
    with storage.outage(RECORDS, SHARDS, until=lambda: bool(said)):
        report = convert(request(archive, store), say=said.append)
    assert report.shards_written == SHARDS
    assert data(store) == data(calm)
    assert verify(store, str(archive)).ok
    assert "trying again for up to 90 s" in said[0]
    assert store in said[0]


def test_a_storage_that_stays_away_ends_the_run_and_the_same_command_finishes_it(
    storage: FailingRelay, archive: Path, calm: str
):
    store = f"{bucket()}/t2m.zarr"
    with (
        storage.outage(RECORDS, 10),
        pytest.raises(StorageError, match="the storage fails") as ended,
    ):
        convert(request(archive, store, storage_wait=1.0))
    assert store in str(ended.value.where)
    assert "zarr.json" not in objects(store)
    report = convert(request(archive, store))
    assert 0 < report.shards_skipped < SHARDS
    assert data(store) == data(calm)


def test_a_second_converter_is_refused_while_the_first_one_works(
    storage: FailingRelay, archive: Path, calm: str
):
    store, refusals = f"{bucket()}/t2m.zarr", list[BusyError]()

    def second(done: int, total: int) -> None:
        if done == 3:
            with pytest.raises(BusyError, match="another process writes to this store") as refused:
                convert(request(archive, store))
            refusals.append(refused.value)

    convert(request(archive, store), second)
    assert len(refusals) == 1
    assert data(store) == data(calm)


def stream(store: Store, storage_wait: float = 90.0) -> WindowStream:
    spec, order = WindowSpec(3, 2), OrderConfig(4, seed=5, slab_frames=4, pool_bytes=1)
    normalisation = Normalisation.from_store(store, ("t2m",), "standardise")
    reader = NormalisedReader(FrameReader(store, ("t2m",), storage_wait), normalisation)
    starts = split_starts(store, "train", spec)
    return WindowStream(
        store,
        ("t2m",),
        spec,
        starts,
        order,
        normalisation,
        range(4),
        transport=lambda _: DirectTransport(reader),
    )


def test_a_stream_waits_for_the_storage_and_gives_the_same_batches(
    storage: FailingRelay, calm: str, caplog: pytest.LogCaptureFixture
):
    store = open_store(calm)
    expected = [batch.frames_btchw.copy() for batch in stream(store).epoch(0)]
    with storage.outage(READS, 3, until=lambda: "trying again" in caplog.text):
        read = [batch.frames_btchw.copy() for batch in stream(store).epoch(0)]
    assert "trying again for up to 90 s" in caplog.text
    assert len(read) == len(expected) > 20
    for one, other in zip(read, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_stream_whose_storage_stays_away_ends_with_an_error_that_names_it(
    storage: FailingRelay, calm: str
):
    store = open_store(calm)
    with (
        storage.outage(READS, 3),
        pytest.raises(StorageError, match="the storage fails") as ended,
    ):
        list(stream(store, storage_wait=0.5).epoch(0))
    assert calm in str(ended.value.where)
    # The stream has ended, but a new stream can read the store.
    assert len(list(stream(open_store(calm)).epoch(0))) > 20
