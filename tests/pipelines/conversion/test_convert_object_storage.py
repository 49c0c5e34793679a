"""Conversions from and to S3 give the same stores as local ones, with few requests."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
import s3fs
import xarray as xr

from pipelines.audit.verification import verify
from pipelines.conversion.convert import convert, plan_conversion
from pipelines.conversion.options import ConversionOptions, ConversionRequest
from pipelines.errors import PlatformError, UsageError
from pipelines.inputs.static_fields import static_fields
from pipelines.storage import lease
from pipelines.storage.places import write_bytes
from pipelines.stores.store import open_store
from pipelines.stream.window_stream import read_batches
from pipelines.stream.windows import WindowSpec, split_starts
from tests.support.archives import static_archives
from tests.support.archives.clip_archives import write_kth
from tests.support.archives.small_archives import fields, hourly, write_days
from tests.support.servers.latency_proxy import LatencyProxy
from tests.support.servers.object_storage import S3Server, s3_server, upload

__all__ = ["s3_server"]

SMALL = ConversionOptions(chunk_frames=8, shard_frames=16)


@pytest.fixture(scope="module")
def ray_beside_s3(s3_server: S3Server, request: pytest.FixtureRequest) -> S3Server:
    """Start Ray with the variables of the server in its environment."""
    request.getfixturevalue("ray_cluster")
    return s3_server


def objects(uri: str) -> dict[str, bytes]:
    fs, root = fsspec.core.url_to_fs(uri)
    fs.invalidate_cache()
    return {path[len(root) + 1 :]: fs.cat_file(path) for path in fs.find(root)}


def test_a_store_on_s3_has_the_same_objects_as_a_local_store(
    ray_beside_s3: S3Server, tmp_path: Path
):
    write_days(tmp_path / "a", 1, 2)
    bucket = ray_beside_s3.bucket()
    upload(tmp_path / "a", f"{bucket}/archive")
    store = f"{bucket}/stores/t2m.zarr"
    convert(ConversionRequest("weatherbench", f"{bucket}/archive", store, SMALL))
    convert(ConversionRequest("weatherbench", str(tmp_path / "a"), str(tmp_path / "s"), SMALL))
    remote, local = objects(store), objects(str(tmp_path / "s"))
    assert remote.keys() == local.keys()
    data = [name for name in local if not name.startswith(".ledger")]
    assert len(data) > 10
    assert {name: remote[name] for name in data} == {name: local[name] for name in data}
    opened = open_store(store)
    np.testing.assert_array_equal(opened.array("t2m")[:], fields(hourly("2010-01-01", 48)))
    np.testing.assert_array_equal(xr.open_zarr(store).t2m.values, opened.array("t2m")[:])


def test_a_store_of_clips_on_s3_has_the_same_objects_as_a_local_store(
    ray_beside_s3: S3Server, tmp_path: Path
):
    write_kth(tmp_path / "a", {f"walking/person{i:02d}_walking_d1": 6 for i in (1, 2, 15, 17)})
    bucket = ray_beside_s3.bucket()
    upload(tmp_path / "a", f"{bucket}/archive")
    options = ConversionOptions(archive_options={"frames": 3})
    store = f"{bucket}/stores/kth.zarr"
    convert(ConversionRequest("kth", f"{bucket}/archive", store, options))
    convert(ConversionRequest("kth", str(tmp_path / "a"), str(tmp_path / "s"), options))
    remote, local = objects(store), objects(str(tmp_path / "s"))
    assert {name: data for name, data in remote.items() if not name.startswith(".ledger")} == {
        name: data for name, data in local.items() if not name.startswith(".ledger")
    }
    opened = open_store(store)
    assert opened.attributes["splits"] == {"train": [0, 3], "validation": [4, 5], "test": [6, 7]}
    values = open_store(str(tmp_path / "s")).array("intensity")[:]
    np.testing.assert_array_equal(opened.array("intensity")[:], values)
    spec = WindowSpec(1, 1)
    starts = split_starts(opened, "test", spec)
    assert starts.tolist() == [18, 19, 21, 22]
    ((_, frames),) = read_batches(opened, ("intensity",), spec, starts, 8)
    flat = values.reshape(-1, *values.shape[2:])
    np.testing.assert_array_equal(frames[:, :, 0], np.stack([flat[s : s + 2] for s in starts]))
    assert verify(store, f"{bucket}/archive").ok


def test_a_store_on_s3_can_be_continued_and_verified(ray_beside_s3: S3Server, tmp_path: Path):
    store = f"{ray_beside_s3.bucket()}/t2m.zarr"
    request = ConversionRequest("weatherbench", str(tmp_path / "a"), store, SMALL)
    write_days(tmp_path / "a", 1)
    convert(request)
    write_days(tmp_path / "a", 2)
    assert convert(request).shards_written == 2
    assert not convert(request).changed
    assert verify(store).ok
    write_bytes(f"{store}/t2m/c/1/0/0", b"rot")
    assert [(p.kind, p.place) for p in verify(store).problems] == [("altered", "t2m/c/1/0/0")]
    again = ConversionRequest("weatherbench", str(tmp_path / "a"), store, SMALL, repair=True)
    assert convert(again).shards_written == 1
    assert verify(store).ok


def test_static_fields_on_s3_are_those_of_a_local_store_and_can_be_repaired(
    ray_beside_s3: S3Server, tmp_path: Path
):
    static_archives.write_weatherbench(tmp_path)
    bucket = ray_beside_s3.bucket()
    for folder in ("2m_temperature", "constants"):
        upload(tmp_path / folder, f"{bucket}/{folder}")
    here = static_archives.request(tmp_path, ("lsm", None), ("slt", 0.0))
    there = replace(
        here,
        source=f"{bucket}/2m_temperature",
        store=f"{bucket}/t2m.zarr",
        static_source=f"{bucket}/constants",
    )
    static_archives.converted(here)
    assert convert(there).static_fields_written == 2
    remote, local = objects(there.store), objects(here.store)
    data = [name for name in local if not name.startswith(".ledger")]
    assert {"lsm/c/0/0", "slt/zarr.json"} <= set(data)
    assert {name: remote[name] for name in data} == {name: local[name] for name in data}
    read = static_fields(open_store(there.store), ("lsm", "slt"))
    np.testing.assert_array_equal(
        read.values_shw, static_fields(open_store(here.store), ("lsm", "slt")).values_shw
    )
    write_bytes(f"{there.store}/lsm/c/0/0", b"rot")
    found = verify(there.store, there.source)
    assert [(p.kind, p.frames) for p in found.problems] == [("altered", "static field lsm")]
    assert convert(replace(there, repair=True)).static_fields_written == 1
    assert objects(there.store)["lsm/c/0/0"] == remote["lsm/c/0/0"]


def test_no_key_is_written_into_a_store(ray_beside_s3: S3Server, tmp_path: Path):
    write_days(tmp_path / "a", 1)
    store = f"{ray_beside_s3.bucket()}/t2m.zarr"
    convert(ConversionRequest("weatherbench", str(tmp_path / "a"), store, SMALL))
    secret = ray_beside_s3.environment["AWS_SECRET_ACCESS_KEY"].encode()
    assert not [name for name, content in objects(store).items() if secret in content]


def test_a_prefix_with_other_objects_is_an_error_and_is_left_alone(
    ray_beside_s3: S3Server, tmp_path: Path
):
    write_days(tmp_path / "a", 1)
    bucket = ray_beside_s3.bucket()
    upload(tmp_path / "a", f"{bucket}/archive")
    before = objects(f"{bucket}/archive")
    for request in (
        ConversionRequest("weatherbench", str(tmp_path / "a"), f"{bucket}/archive", SMALL),
        ConversionRequest("weatherbench", f"{bucket}/archive", bucket, SMALL),
    ):
        for verb in (plan_conversion, convert):
            with pytest.raises(UsageError, match="something other than a store") as refused:
                verb(request)
            assert refused.value.where == request.store
    assert before
    assert objects(bucket) == {f"archive/{name}": data for name, data in before.items()}


def test_a_wrong_key_is_an_error_before_any_work(
    ray_beside_s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_days(tmp_path / "a", 1)
    store = f"{ray_beside_s3.bucket()}/t2m.zarr"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    try:
        with pytest.raises(UsageError, match="denies access") as refused:
            convert(ConversionRequest("weatherbench", str(tmp_path / "a"), store, SMALL))
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
    assert "AWS_ENDPOINT_URL" in str(refused.value.remedy)


def test_a_conversion_to_s3_makes_few_requests(
    ray_beside_s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Every request of the driver waits for the storage: forty of them took two seconds."""
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 3600.0)  # would count
    write_days(tmp_path / "a", 1, 2)
    relay = LatencyProxy(ray_beside_s3.port, 0.0)
    direct = os.environ["AWS_ENDPOINT_URL"]
    store = f"{ray_beside_s3.bucket()}/t2m.zarr"
    request = ConversionRequest("weatherbench", str(tmp_path / "a"), store, SMALL)
    try:
        os.environ["AWS_ENDPOINT_URL"] = relay.endpoint
        s3fs.S3FileSystem.clear_instance_cache()
        assert convert(request).shards_written == 3
        new = relay.counts()
        assert not convert(request).changed
        again = relay.counts()
    finally:
        os.environ["AWS_ENDPOINT_URL"] = direct
        s3fs.S3FileSystem.clear_instance_cache()
        relay.close()
    # The workers, which the relay does not see, write three shards and three records.
    objects = 12  # two each of five coordinates and flags, the variable's own and the root
    assert new["PUT"] <= objects + 3, "the lease, and the plan twice"
    assert new["GET"] <= objects + 12
    assert again["PUT"] <= 1, "the lease"
    assert again["GET"] <= objects + 12


def test_a_frame_that_cannot_be_decoded_ends_a_run_on_s3(ray_beside_s3: S3Server, tmp_path: Path):
    import netCDF4

    write_days(tmp_path / "a", 1, 2)
    bad = sorted((tmp_path / "a").rglob("*.nc"))[-1]
    with netCDF4.Dataset(bad, "a") as file:
        file["t2m"].setncattr("scale_factor", "no number")
    store = f"{ray_beside_s3.bucket()}/t2m.zarr"
    request = ConversionRequest("weatherbench", str(tmp_path / "a"), store, SMALL)
    with pytest.raises(PlatformError, match="could not be converted") as refused:
        convert(request)
    assert refused.value.where in {f"{store}/t2m/c/{shard}/0/0" for shard in (1, 2)}
    write_days(tmp_path / "a", 2)
    assert convert(request).changed
    assert verify(store).ok
    convert(ConversionRequest("weatherbench", str(tmp_path / "a"), str(tmp_path / "s"), SMALL))
    shards = {f"t2m/c/{shard}/0/0" for shard in range(3)}
    remote, local = objects(store), objects(str(tmp_path / "s"))
    assert {name: remote[name] for name in shards} == {name: local[name] for name in shards}
