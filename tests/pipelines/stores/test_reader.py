"""Frames of a store on object storage are those of a local store, and need few requests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import s3fs

from pipelines.errors import StoreError
from pipelines.inputs.normalisation import Normalisation
from pipelines.storage.places import delete, read_bytes, write_bytes
from pipelines.stores.reader import FrameReader
from pipelines.stores.store import Store, open_store
from pipelines.stream.order import OrderConfig
from pipelines.stream.window_stream import WindowStream, read_batches
from pipelines.stream.windows import WindowSpec, split_starts
from tests.support.servers.latency_proxy import LatencyProxy
from tests.support.servers.object_storage import S3Server, s3_server, upload

__all__ = ["s3_server"]

FRAMES, HEIGHT, WIDTH = 190, 4, 6  # six shards of four chunks of eight frames; the last is short


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, write_store: Callable[..., Store]) -> Store:
    random = np.random.default_rng(8)
    available = np.zeros(FRAMES, "u1")
    available[40:64] = 1  # three chunks without a value: the shard leaves them out
    available[96:128] = 1  # a shard without a value: there is no such object
    return write_store(
        tmp_path_factory.mktemp("remote") / "store",
        {
            "t2m": random.normal(280.0, 10.0, (FRAMES, HEIGHT, WIDTH)).astype("f4"),
            "z": random.normal(5e4, 1e3, (FRAMES, 3, HEIGHT, WIDTH)).astype("f4"),
        },
        extra_dims={"z": ("level",)},
        extra_coordinates={"level": np.array([850, 500, 250])},
        available=available,
    )


@pytest.fixture(scope="module")
def proxy(s3_server: S3Server) -> Iterator[LatencyProxy]:
    direct = os.environ["AWS_ENDPOINT_URL"]
    relay = LatencyProxy(s3_server.port, 0.0)
    os.environ["AWS_ENDPOINT_URL"] = relay.endpoint
    s3fs.S3FileSystem.clear_instance_cache()
    yield relay
    relay.close()
    os.environ["AWS_ENDPOINT_URL"] = direct
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def remote(proxy: LatencyProxy, s3_server: S3Server, local: Store) -> Store:
    """Return the same store, in a new bucket."""
    place = f"{s3_server.bucket()}/store"
    upload(local.uri, place)
    return open_store(place)


def frames(store: Store, variables: tuple[str, ...], first: int, last: int) -> np.ndarray:
    reader = FrameReader(store, variables)
    out = np.zeros((last - first, *reader.frame_shape), np.float32)
    reader.read(first, last, out)
    return out


@pytest.mark.parametrize("variables", [("t2m",), ("z", "t2m")])
def test_any_run_of_frames_is_the_same_as_in_the_local_store(
    local: Store, remote: Store, variables: tuple[str, ...]
):
    random = np.random.default_rng(1)
    runs = [(0, FRAMES), (8, 16), (38, 66), (90, 130), (185, 190)]
    runs += [tuple(sorted(random.choice(FRAMES + 1, 2, replace=False).tolist())) for _ in range(20)]
    for first, last in runs:
        np.testing.assert_array_equal(
            frames(remote, variables, first, last), frames(local, variables, first, last)
        )


def test_a_run_of_frames_inside_a_shard_costs_one_request(remote: Store, proxy: LatencyProxy):
    reader = FrameReader(remote, ("t2m",))
    out = np.empty((30, *reader.frame_shape), np.float32)
    proxy.counts()
    reader.read(1, 31, out)
    assert proxy.counts()["GET"] == 2, "the index of the shard, and four chunks in one"
    reader.read(0, 30, out)
    assert proxy.counts()["GET"] == 1, "the index was kept"
    reader.read(20, 50, out)
    assert proxy.counts()["GET"] == 3, "one of the first shard, and the second with its index"


def test_an_epoch_has_the_same_batches_as_from_the_local_store(local: Store, remote: Store):
    spec = WindowSpec(3, 2)
    order = OrderConfig(global_batch=6, seed=11, slab_frames=16, pool_bytes=4000)

    def batches(store: Store) -> list[tuple[list[int], np.ndarray]]:
        stream = WindowStream(
            store,
            ("t2m",),
            spec,
            split_starts(store, "train", spec),
            order,
            Normalisation.from_store(store, ("t2m",), "standardise"),
            range(6),
        )
        return [(batch.starts.tolist(), batch.frames_btchw.copy()) for batch in stream.epoch(0)]

    expected, found = batches(local), batches(remote)
    assert [starts for starts, _ in expected] == [starts for starts, _ in found]
    for (_, one), (_, other) in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_index_of_a_shard_that_was_written_again_is_read_again(
    remote: Store, tmp_path: Path, write_store: Callable[..., Store]
):
    reader = FrameReader(remote, ("t2m",))
    out = np.empty((40, *reader.frame_shape), np.float32)
    reader.read(0, 40, out)
    repaired = np.random.default_rng(5).integers(0, 9, (FRAMES, HEIGHT, WIDTH)).astype("f4")
    other = write_store(tmp_path / "other", {"t2m": repaired})
    shard = "t2m/c/0/0/0"
    write_bytes(f"{remote.uri}/{shard}", read_bytes(f"{other.uri}/{shard}"))
    reader.read(0, 32, out[:32])
    np.testing.assert_array_equal(out[:32, 0], repaired[:32])


@pytest.mark.parametrize("part", ["chunk", "index"])
def test_a_damaged_shard_is_an_error_that_names_it(remote: Store, part: str):
    shard = f"{remote.uri}/t2m/c/0/0/0"
    content = bytearray(read_bytes(shard))
    at = 12 if part == "chunk" else len(content) - 20
    content[at] ^= 0xFF
    write_bytes(shard, bytes(content))
    with pytest.raises(StoreError, match="cannot read 't2m'") as raised:
        frames(remote, ("t2m",), 0, 8)
    assert "frames 0 to 7" in str(raised.value)


def test_a_lost_shard_is_an_error_instead_of_fill_values(remote: Store):
    delete(f"{remote.uri}/t2m/c/4/0/0")
    reader = FrameReader(remote, ("t2m",))
    with pytest.raises(StoreError, match="hold no value"):
        reader.read(130, 140, np.empty((10, *reader.frame_shape), np.float32))


def test_reading_batches_for_an_evaluation_needs_two_requests_per_shard(
    remote: Store, proxy: LatencyProxy
):
    proxy.counts()
    starts = np.arange(0, 24)
    [(_, found)] = read_batches(remote, ("t2m",), WindowSpec(3, 2), starts, len(starts))
    assert len(found) == 24
    assert proxy.counts()["GET"] <= 2 * 6, "an index and a run for each of the six shards"
