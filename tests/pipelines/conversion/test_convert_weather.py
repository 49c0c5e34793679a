"""Conversions of weather archives: coarser grids, zips, preliminary and final data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipelines.audit.inspection import inspect
from pipelines.audit.verification import verify
from pipelines.conversion.convert import convert, plan_conversion
from pipelines.conversion.estimate import SAMPLED_CHUNKS, estimate
from pipelines.conversion.options import ConversionOptions, ConversionReport, ConversionRequest
from pipelines.errors import StoreError
from pipelines.inputs.climatology import climatology, kept_climatology
from pipelines.stores.store import open_store
from tests.pipelines.archives.test_zips import zipped
from tests.support.archives.era5_files import values as era5_values
from tests.support.archives.era5_files import write_with_expver_labels
from tests.support.archives.small_archives import hourly, write_netcdf

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


def test_a_regridded_store_continues_on_its_own_grid_only(shared: Path, tmp_path: Path):
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


def test_the_estimate_of_a_plan_is_close_to_what_the_conversion_writes(tmp_path: Path):
    times = hourly("2010-01-01", 400)
    values = np.random.default_rng(0).normal(280, 5, (400, 32, 64)).astype(np.float32)
    values[100:150] = np.round(values[100:150])
    write_netcdf(tmp_path / "a" / "a.nc", times, values=values)
    options = ConversionOptions(chunk_frames=8, shard_frames=16)
    request = ConversionRequest("weatherbench", str(tmp_path / "a"), str(tmp_path / "s"), options)
    plan = plan_conversion(request)
    cost = estimate(plan, plan.tasks)
    assert not (tmp_path / "s").exists()
    done = convert(request)
    assert cost is not None
    assert cost.chunks == SAMPLED_CHUNKS
    assert cost.bytes_stored == pytest.approx(done.bytes_stored, rel=0.15)
    assert cost.objects == inspect(str(tmp_path / "s")).objects
    assert 0 < cost.seconds <= cost.processor_seconds


def test_preliminary_frames_in_a_zip_are_replaced_when_the_final_ones_come(
    tmp_path: Path,
):
    times = hourly("2024-10-01", 48)
    folder = tmp_path / "download"
    folder.mkdir()
    member = folder / "data_stream-oper_stepType-instant.nc"
    write_with_expver_labels(member, times, final=40, seed=3)
    source = zipped(folder, tmp_path / "a" / "october.zip")
    done = run("era5", source, tmp_path / "s", chunk_frames=8, shard_frames=16)
    assert done.notes == (
        "t2m: 8 frames are preliminary: fetch them again when the final ones are out",
    )
    stored = open_store(str(tmp_path / "s")).array("t2m")[:]
    np.testing.assert_array_equal(stored, era5_values(times, 3))
    preliminary = kept_climatology(open_store(str(tmp_path / "s")), ("t2m",))
    write_with_expver_labels(member, times, final=48)
    zipped(folder, source)
    assert run("era5", source, tmp_path / "s").shards_written == 3
    stored = open_store(str(tmp_path / "s")).array("t2m")[:]
    np.testing.assert_array_equal(stored, era5_values(times))
    final = kept_climatology(open_store(str(tmp_path / "s")), ("t2m",))
    np.testing.assert_array_equal(
        final.table, climatology(open_store(str(tmp_path / "s")), ("t2m",)).table
    )
    assert not np.array_equal(final.table, preliminary.table)
    assert verify(str(tmp_path / "s"), str(source)).ok
