"""Object storage that goes away: conversions and streams wait for it, or end and are continued."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pipelines.convert import ConversionReport, ConversionRequest, convert
from pipelines.errors import BusyError, StorageError
from pipelines.frame_reader import FrameReader
from pipelines.normalisation import Normalisation
from pipelines.order import OrderConfig
from pipelines.plan import ConversionOptions
from pipelines.store import Store, open_store
from pipelines.stream import DirectTransport, WindowStream
from pipelines.verification import verify
from pipelines.windows import WindowSpec, split_starts
from tests.object_storage import S3Server, in_environment, s3_server
from tests.pipelines.small_archives import write_days
from tests.pipelines.test_convert_object_storage import objects

__all__ = ["s3_server"]

AWAY_SECONDS = 8.0
SMALL = ConversionOptions(chunk_frames=4, shard_frames=4)
SHARDS = 36


@pytest.fixture(scope="module")
def storage(s3_server: S3Server, request: pytest.FixtureRequest) -> Iterator[S3Server]:
    """A server whose clients do not try again by themselves for longer than two seconds."""
    with in_environment({"AWS_MAX_ATTEMPTS": "1"}):
        request.getfixturevalue("ray_cluster")
        yield s3_server


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_days(tmp_path_factory.mktemp("archive"), *range(1, 7))


@pytest.fixture(scope="module")
def calm(storage: S3Server, archive: Path) -> str:
    """The store that nothing disturbed."""
    store = f"{storage.bucket()}/t2m.zarr"
    assert convert(request(archive, store)).shards_written == SHARDS
    return store


def request(archive: Path, store: str, **options: float) -> ConversionRequest:
    return ConversionRequest("weatherbench", str(archive), store, SMALL, **options)  # pyright: ignore


def data(store: str) -> dict[str, bytes]:
    """Every object but those that name time and owner."""
    found = objects(store)
    assert sum(name.startswith(".ledger/t2m/") for name in found) == SHARDS
    return {name: content for name, content in found.items() if not name.startswith(".ledger")}


class Outage:
    """Stops the server once, when this many shards are done; it comes back by itself, or later."""

    def __init__(self, server: S3Server, after: int, comes_back: bool = True):
        self._server, self._after, self._comes_back = server, after, comes_back
        self._timer: threading.Timer | None = None
        self.met = False

    def __call__(self, done: int, total: int) -> None:
        if done >= self._after and not self.met:
            self.met = True
            self._server.stop()
            if self._comes_back:
                self._timer = threading.Timer(AWAY_SECONDS, self._server.start)
                self._timer.start()

    def end(self) -> None:
        if self._timer is None:
            self._server.start()
        else:
            self._timer.join()


def disturbed(outage: Outage, converted: Callable[[Outage], ConversionReport]) -> ConversionReport:
    try:
        return converted(outage)
    finally:
        outage.end()


@pytest.mark.parametrize("done", [10, SHARDS])
def test_a_conversion_waits_for_the_storage_and_ends_with_the_same_store(
    storage: S3Server, archive: Path, calm: str, done: int
):
    store, said = f"{storage.bucket()}/t2m.zarr", list[str]()
    outage = Outage(storage, done)
    report = disturbed(outage, lambda met: convert(request(archive, store), met, said.append))
    assert outage.met
    assert report.shards_written == SHARDS
    assert data(store) == data(calm)
    assert verify(store, str(archive)).ok
    if done == SHARDS:
        assert "trying again for up to 90 s" in said[0]
        assert store in said[0]


def test_a_storage_that_stays_away_ends_the_run_and_the_same_command_finishes_it(
    storage: S3Server, archive: Path, calm: str
):
    store = f"{storage.bucket()}/t2m.zarr"
    outage = Outage(storage, 10, comes_back=False)
    impatient = request(archive, store, storage_wait=1.0)
    with pytest.raises(StorageError, match="the storage fails") as ended:
        disturbed(outage, lambda met: convert(impatient, met))
    assert store in str(ended.value.where)
    assert "zarr.json" not in objects(store)
    report = convert(request(archive, store))
    assert 0 < report.shards_skipped < SHARDS
    assert data(store) == data(calm)


def test_a_second_converter_is_refused_while_the_first_one_works(
    storage: S3Server, archive: Path, calm: str
):
    store, refusals = f"{storage.bucket()}/t2m.zarr", list[BusyError]()

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
    reader = FrameReader(store, ("t2m",), normalisation, storage_wait)
    starts = split_starts(store, "train", spec)
    return WindowStream(
        store,
        ("t2m",),
        spec,
        starts,
        order,
        normalisation,
        range(4),
        transport=DirectTransport(reader),
    )


def test_a_stream_waits_for_the_storage_and_gives_the_same_batches(storage: S3Server, calm: str):
    store = open_store(calm)
    expected = [batch.frames_btchw.copy() for batch in stream(store).epoch(0)]
    outage, read = Outage(storage, 3), list[np.ndarray]()
    try:
        for batch in stream(store).epoch(0):
            outage(batch.step, 0)
            read.append(batch.frames_btchw.copy())
    finally:
        outage.end()
    assert outage.met
    assert len(read) == len(expected) > 20
    for one, other in zip(read, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_stream_whose_storage_stays_away_ends_with_an_error_that_names_it(
    storage: S3Server, calm: str
):
    batches = stream(open_store(calm), storage_wait=0.5).epoch(0)
    next(batches)
    storage.stop()
    try:
        with pytest.raises(StorageError, match="the storage fails") as ended:
            list(batches)
    finally:
        storage.start()
    assert calm in str(ended.value.where)
    # The stream is gone; what is read afterwards is not.
    assert len(list(stream(open_store(calm)).epoch(0))) > 20
