"""Shards have the bytes that Zarr writes."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec

from pipelines.stores.shards import COMPRESSION, ShardEncoder


def encode(frames: np.ndarray, chunk: int, shard: int, step: int = 7) -> bytes:
    encoder = ShardEncoder(frames.shape[1:], chunk, shard)
    for begin in range(0, len(frames), step):
        encoder.add(np.ascontiguousarray(frames[begin : begin + step]))
    return b"".join(encoder.finish())


def zarr_array(path: str, frames: np.ndarray, chunk: int, shard: int) -> zarr.Array:
    return zarr.create_array(
        path,
        shape=frames.shape,
        chunks=(chunk, *frames.shape[1:]),
        shards=(shard, *frames.shape[1:]),
        dtype="float32",
        fill_value=np.nan,
        compressors=[BloscCodec(typesize=4, **COMPRESSION)],
    )


@pytest.mark.parametrize("frames", [64, 50, 1])
@pytest.mark.parametrize("step", [1, 7, 16, 64])
def test_a_shard_has_the_bytes_that_zarr_writes(tmp_path, frames: int, step: int):
    values = np.random.default_rng(0).normal(280, 5, (frames, 2, 5, 6)).astype(np.float32)
    array = zarr_array(str(tmp_path / "a"), values, 16, 64)
    array[:] = values
    written = (tmp_path / "a" / "c" / "0" / "0" / "0" / "0").read_bytes()
    assert encode(values, 16, 64, step) == written


def test_chunks_without_a_value_are_left_out_and_read_as_nan(tmp_path):
    values = np.random.default_rng(1).normal(size=(64, 5, 6)).astype(np.float32)
    values[16:48] = np.nan
    values[0, 0, 0] = np.nan
    array = zarr_array(str(tmp_path / "a"), values, 16, 64)
    data = encode(values, 16, 64)
    place = tmp_path / "a" / "c" / "0" / "0" / "0"
    place.parent.mkdir(parents=True)
    place.write_bytes(data)
    assert len(data) < len(encode(np.nan_to_num(values, nan=1.5), 16, 64))
    np.testing.assert_array_equal(array[:], values)


def test_a_shard_without_any_value_reads_as_nan(tmp_path):
    values = np.full((64, 5, 6), np.nan, np.float32)
    array = zarr_array(str(tmp_path / "a"), values, 16, 64)
    place = tmp_path / "a" / "c" / "0" / "0" / "0"
    place.parent.mkdir(parents=True)
    place.write_bytes(encode(values, 16, 64))
    assert np.isnan(array[:]).all()


def test_large_chunks_compress_to_the_same_bytes_every_time():
    values = np.random.default_rng(2).normal(280, 5, (64, 64, 64)).astype(np.float32)
    assert len({encode(values, 32, 64) for _ in range(10)}) == 1
