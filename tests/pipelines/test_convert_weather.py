"""Conversions of weather archives: coarser grids, zips, preliminary and final data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipelines.convert import ConversionReport, ConversionRequest, convert
from pipelines.errors import StoreError
from pipelines.plan import ConversionOptions
from pipelines.store import open_store

pytestmark = pytest.mark.usefixtures("ray_cluster")


def run(archive: str, source: Path | str, store: Path, **options) -> ConversionReport:
    return convert(
        ConversionRequest(archive, str(source), str(store), ConversionOptions(**options))
    )


def test_members_and_levels_are_averaged_to_a_coarser_grid(shared: Path, tmp_path: Path):
    source = shared / "data/era5/era5-levels-members.grib"
    run("era5", source, tmp_path / "s", regrid="30")
    stored = open_store(str(tmp_path / "s"))
    assert stored.variables["t"].shape == (4, 10, 2, 6, 12)
    np.testing.assert_array_equal(stored.coordinates["latitude"], np.arange(75, -90, -30))
    np.testing.assert_array_equal(stored.coordinates["longitude"], np.arange(0, 360, 30))
    assert stored.dataset().t.attrs["cell_methods"] == "area: mean"
    read = xr.open_dataset(source, engine="cfgrib", backend_kwargs={"indexpath": ""}).t
    values = read.transpose("time", "number", "isobaricInhPa", ...).values.astype(float)
    # Rows at the poles reach from 88.5 to 90 degrees, all others 1.5 degrees to either side.
    edges = np.concatenate([[90], np.arange(88.5, -90, -3), [-90]])
    rows = np.abs(np.diff(np.sin(np.deg2rad(edges))))
    before = (values * rows[:, None]).sum((-2, -1)) / (rows.sum() * 120)
    coarse = np.abs(np.diff(np.sin(np.deg2rad(np.arange(90, -91, -30.0)))))
    after = (stored.array("t")[:] * coarse[:, None]).sum((-2, -1)) / (coarse.sum() * 12)
    np.testing.assert_allclose(after, before, rtol=1e-7)


def test_a_store_continues_on_its_own_grid_only(shared: Path, tmp_path: Path):
    source = shared / "data/era5/era5-2mt-2019-03-uk.grib"
    options = {"variables": ("t2m",), "shard_frames": 512, "chunk_frames": 64}
    assert run("era5", source, tmp_path / "s", regrid="4x6", **options).shards_written == 2
    assert not run("era5", source, tmp_path / "s").changed
    for other in ("8x6", "1"):
        with pytest.raises(StoreError, match=f"regrid: the store has 4x6, asked {other}"):
            run("era5", source, tmp_path / "s", regrid=other)
    run("era5", source, tmp_path / "fine", **options)
    with pytest.raises(StoreError, match="regrid: the store has None, asked 4x6"):
        run("era5", source, tmp_path / "fine", regrid="4x6")
