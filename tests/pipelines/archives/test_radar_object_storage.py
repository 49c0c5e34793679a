"""Radar composites on S3 give the same store as on a disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.conversion.convert import convert
from pipelines.conversion.options import ConversionOptions, ConversionReport, ConversionRequest
from pipelines.stores.store import open_store
from tests.support.archives.radar_files import five_minutes, knmi_folder, stamp, write_meteonet
from tests.support.servers.object_storage import S3Server, s3_server, upload

__all__ = ["s3_server"]

SMALL = ConversionOptions(chunk_frames=4, shard_frames=8)


@pytest.fixture(scope="module")
def ray_beside_s3(s3_server: S3Server, request: pytest.FixtureRequest) -> S3Server:
    """A Ray whose workers have the server's variables in their environment."""
    request.getfixturevalue("ray_cluster")
    return s3_server


def both(server: S3Server, archive: Path, folder: Path) -> tuple[ConversionReport, str, str]:
    """Convert from S3 and from the disk; return the report of S3 and both stores."""
    bucket = server.bucket()
    upload(archive, f"{bucket}/archive")
    report = convert(ConversionRequest("radar", f"{bucket}/archive", f"{bucket}/s.zarr", SMALL))
    convert(ConversionRequest("radar", str(archive), str(folder / "s"), SMALL))
    return report, f"{bucket}/s.zarr", str(folder / "s")


def test_nested_folders_with_a_damaged_file_give_the_store_of_a_disk(
    ray_beside_s3: S3Server, tmp_path: Path
):
    times = five_minutes("2021-06-07T08:00", 20)
    knmi_folder(tmp_path / "a" / "one", times[:12])
    knmi_folder(tmp_path / "a" / "two", times[12:])
    damaged = tmp_path / "a" / "one" / f"RAD_{stamp(times[6])}.h5"
    damaged.write_bytes(damaged.read_bytes()[:-600])
    report, remote, local = both(ray_beside_s3, tmp_path / "a", tmp_path)
    assert [line.split(":")[0] for line in report.unreadable] == [damaged.name]
    stores = open_store(remote), open_store(local)
    np.testing.assert_array_equal(stores[0].available, stores[1].available)
    values = [store.array("reflectivity")[:] for store in stores]
    np.testing.assert_array_equal(*values)
    assert np.isfinite(values[0]).any()
    assert stores[0].fingerprint == stores[1].fingerprint


def test_coordinates_of_meteonet_are_found_beside_its_files(
    ray_beside_s3: S3Server, tmp_path: Path
):
    values = np.arange(20 * 12, dtype=np.int16).reshape(20, 3, 4)
    name = "rainfall_NW_2016_08.3.npz"
    write_meteonet(tmp_path / "a", name, five_minutes("2016-08-21", 20), values)
    _, remote, _ = both(ray_beside_s3, tmp_path / "a", tmp_path)
    stored = open_store(remote)
    np.testing.assert_array_equal(stored.array("rainfall")[:], (values / 100).astype(np.float32))
    np.testing.assert_allclose(stored.coordinates["latitude"], [51.0, 50.99, 50.98])
