"""Stores on `gs://`: the driver is an extra, and a store equals a local one."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
import xarray as xr

from pipelines.audit.inspection import inspect
from pipelines.audit.verification import verify
from pipelines.conversion.convert import convert
from pipelines.conversion.options import ConversionOptions, ConversionRequest
from pipelines.errors import UsageError
from pipelines.inputs.normalisation import Normalisation
from pipelines.storage import places
from pipelines.storage.retry import is_refusal, passes
from pipelines.stores.store import Store, open_store
from pipelines.stream.order import OrderConfig
from pipelines.stream.window_stream import WindowStream
from pipelines.stream.windows import WindowSpec, split_starts
from tests.support.archives.small_archives import write_days
from tests.support.servers.gcs_server import GoogleServer, gcs_server

__all__ = ["gcs_server"]

SMALL = ConversionOptions(chunk_frames=8, shard_frames=16)
SPEC = WindowSpec(input_frames=3, horizon=3)


def test_a_missing_driver_raises_an_error_that_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UsageError, match="no driver for 'gs://'") as raised:
        open_store("gs://bucket/store")
    assert raised.value.remedy == "pip install 'gmg-platform[gcs]'"


def test_uris_are_joined_and_normalised_like_those_of_other_storages():
    assert places.absolute("gs://bucket/store/") == "gs://bucket/store"
    assert places.join("gs://bucket/store", "t2m", "zarr.json") == "gs://bucket/store/t2m/zarr.json"
    assert not places.is_local("gs://bucket/store")


def test_refusals_of_the_driver_differ_from_faults():
    retry = pytest.importorskip("gcsfs.retry")
    refusals = (OSError("Forbidden: bucket/object"), retry.HttpError({"code": 401}))
    for refusal in refusals:
        assert is_refusal(refusal)
        assert not passes(refusal)
    fault = retry.HttpError({"code": 503})
    assert not is_refusal(fault)
    assert passes(fault)


@pytest.fixture(scope="module")
def ray_beside_gcs(gcs_server: GoogleServer, request: pytest.FixtureRequest) -> GoogleServer:
    """The server, after Ray was started with its variable in the environment."""
    request.getfixturevalue("ray_cluster")
    return gcs_server


def objects(uri: str) -> dict[str, bytes]:
    """Return the objects of a store without the ledger, which records times and owners."""
    fs, root = fsspec.core.url_to_fs(uri)
    fs.invalidate_cache()
    found = {path[len(root) + 1 :]: fs.cat_file(path) for path in fs.find(root)}
    return {name: content for name, content in found.items() if not name.startswith(".ledger")}


def batches(store: Store) -> list[np.ndarray]:
    starts = split_starts(store, "train", SPEC)
    constants = Normalisation.from_store(store, ("t2m",), "standardise")
    order = OrderConfig(global_batch=4, seed=5)
    stream = WindowStream(store, ("t2m",), SPEC, starts, order, constants, range(4))
    return [batch.frames_btchw.copy() for batch in stream.epoch(0)]


def test_an_archive_on_google_storage_becomes_the_same_store_as_a_local_one(
    ray_beside_gcs: GoogleServer, tmp_path: Path
):
    bucket, local = ray_beside_gcs.bucket(), str(tmp_path / "s")
    write_days(tmp_path / "a", 1, 2, 3)
    fsspec.filesystem("gs").put(str(tmp_path / "a"), f"{bucket}/archive", recursive=True)
    request = ConversionRequest(
        "weatherbench", f"{bucket}/archive", f"{bucket}/stores/t2m.zarr", SMALL
    )
    convert(request)
    convert(ConversionRequest("weatherbench", str(tmp_path / "a"), local, SMALL))
    stored = objects(request.store)
    assert len(stored) > 10
    assert stored == objects(local)
    assert not convert(request).changed
    assert inspect(request.store).frames_available == 72
    assert verify(request.store, request.source).ok
    bare, kept = xr.open_zarr(request.store), xr.open_zarr(local)
    assert bare.t2m.dims == ("time", "latitude", "longitude")
    assert (bare.t2m.shape, bare.t2m.attrs, bare.attrs) == (
        kept.t2m.shape,
        kept.t2m.attrs,
        kept.attrs,
    )
    # Zarr reads the index at the end of a shard; this server answers with the whole shard instead.
    xr.testing.assert_identical(bare.drop_vars("t2m").load(), kept.drop_vars("t2m").load())
    here, there = batches(open_store(local)), batches(open_store(request.store))
    assert len(here) > 3
    for one, other in zip(here, there, strict=True):
        np.testing.assert_array_equal(one, other)
    places.write_bytes(places.join(request.store, "t2m", "c", "1", "0", "0"), b"rotten")
    assert [p.place for p in verify(request.store).problems] == ["t2m/c/1/0/0"]
    assert convert(replace(request, repair=True)).shards_written == 1
    assert objects(request.store) == stored
