"""Remote sources are fetched once per node, also if many shards need them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import s3fs

from pipelines.archives.sources.cache import kept_copies
from pipelines.conversion.convert import convert
from pipelines.conversion.options import ConversionOptions, ConversionRequest
from pipelines.stores.store import open_store
from tests.pipelines.archives.test_zips import zipped
from tests.support.archives.small_archives import fields, hourly, write_days
from tests.support.servers.latency_proxy import LatencyProxy
from tests.support.servers.object_storage import S3Server, s3_server, upload

__all__ = ["s3_server"]

SMALL = ConversionOptions(chunk_frames=4, shard_frames=4)


@pytest.fixture(scope="module")
def proxy(s3_server: S3Server, request: pytest.FixtureRequest) -> Iterator[LatencyProxy]:
    """Start a relay in front of the server, which the workers of Ray use too."""
    direct = os.environ["AWS_ENDPOINT_URL"]
    relay = LatencyProxy(urlsplit(s3_server.endpoint).port or 80, latency_seconds=0.0)
    os.environ["AWS_ENDPOINT_URL"] = relay.endpoint
    s3fs.S3FileSystem.clear_instance_cache()
    request.getfixturevalue("ray_cluster")
    yield relay
    os.environ["AWS_ENDPOINT_URL"] = direct
    s3fs.S3FileSystem.clear_instance_cache()
    relay.close()


def uploaded(folder: Path, bucket: str) -> str:
    upload(folder, f"{bucket}/archive")
    return f"{bucket}/archive"


def test_a_file_that_twelve_shards_need_is_fetched_once(
    proxy: LatencyProxy, s3_server: S3Server, tmp_path: Path
):
    source = uploaded(write_days(tmp_path / "a", 1, 2), s3_server.bucket())
    with kept_copies() as cache:
        done = convert(ConversionRequest("weatherbench", source, str(tmp_path / "s"), SMALL))
        assert len(list(Path(cache.folder).glob("*/*.nc"))) == 2
    assert done.shards_written == 12
    for day in (1, 2):
        assert proxy.gets(f"day0{day}_5.625deg.nc") == [None]
    stored = open_store(str(tmp_path / "s")).array("t2m")[:]
    np.testing.assert_array_equal(stored, fields(hourly("2010-01-01", 48)))
    assert not Path(cache.folder).exists()


def test_without_a_cache_a_file_is_fetched_once_per_shard(
    proxy: LatencyProxy, s3_server: S3Server, tmp_path: Path
):
    source = uploaded(write_days(tmp_path / "a", 3), s3_server.bucket())
    store = str(tmp_path / "s")
    request = ConversionRequest("weatherbench", source, store, SMALL, source_cache_bytes=0)
    assert convert(request).shards_written == 6
    assert len(proxy.gets("day03_5.625deg.nc")) > 6


def test_a_zip_is_read_in_ranges_and_never_fetched_whole(
    proxy: LatencyProxy, s3_server: S3Server, tmp_path: Path
):
    folder = tmp_path / "zips"
    zipped(write_days(tmp_path / "a", 1, 2, 4), folder / "t2m.zip")
    source = uploaded(folder, s3_server.bucket())
    store = str(tmp_path / "s")
    done = convert(ConversionRequest("weatherbench", f"{source}/t2m.zip", store, SMALL))
    assert (done.shards_written, done.gaps) == (24, 1)
    stored = open_store(store).array("t2m")[:48]
    np.testing.assert_array_equal(stored, fields(hourly("2010-01-01", 48)))
    lengths = proxy.gets("t2m.zip")
    assert lengths
    assert None not in lengths
