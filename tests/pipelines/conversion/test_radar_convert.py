"""Conversion of radar composites: values, flags, options, and a second run."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

from pipelines import cf
from pipelines.audit.verification import verify
from pipelines.errors import StoreError, UsageError
from pipelines.inputs.normalisation import Normalisation
from pipelines.stores.ledger import Ledger
from pipelines.stores.store import open_store
from pipelines.stream.order import OrderConfig
from pipelines.stream.window_stream import WindowStream
from pipelines.stream.windows import WindowSpec, split_starts, window_starts
from tests.pipelines.conversion.test_convert import content, run
from tests.support.archives.radar_files import (
    five_minutes,
    knmi_folder,
    pixels,
    stamp,
    write_knmi,
)
from tests.support.processes.training_runs import job

pytestmark = pytest.mark.usefixtures("ray_cluster")

SMALL = {"chunk_frames": 4, "shard_frames": 8}
FIRST = "2021-06-07T08:00"


def copied(files: Sequence[Path], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copyfile(file, folder / file.name)
    return folder


def expected(time: np.datetime64) -> np.ndarray:
    """Return the frame that `knmi_folder` wrote."""
    raw = pixels(int(time.astype("M8[s]").astype(int)) // 60)
    return np.where(raw == 255, np.nan, 0.5 * raw - 32.0).astype(np.float32)


def test_events_of_knmi_are_stored_value_for_value_as_periods(shared: Path, tmp_path: Path):
    source = shared / "data/radar/knmi_2021_hdf5"
    files = [f for event in sorted(source.iterdir())[:2] for f in sorted(event.iterdir())[:4]]
    run("radar", copied(files, tmp_path / "a"), tmp_path / "s", **SMALL)
    stored = xr.open_zarr(tmp_path / "s")
    raw = np.stack([np.asarray(h5py.File(file)["image1/image_data"]) for file in files])
    values = np.where(raw == 255, np.nan, 0.5 * raw - 32.0)
    np.testing.assert_array_equal(stored.reflectivity.values, values.astype(np.float32))
    assert [str(t)[:16] for t in stored.time.values[[0, 3, 4]]] == [
        "2021-01-03T20:05",
        "2021-01-03T20:20",
        "2021-01-06T20:05",
    ]
    attributes = stored.reflectivity.attrs
    assert (attributes["units"], attributes["no_echo_value"]) == ("dBZ", -32.0)
    assert attributes["standard_name"] == "equivalent_reflectivity_factor"
    assert stored[attributes["grid_mapping"]].attrs["grid_mapping_name"] == "polar_stereographic"
    assert stored.y.attrs["standard_name"] == "projection_y_coordinate"
    assert stored.y.values[0] > stored.y.values[-1]
    # Pixels outside the image are missing in every frame, which does not make it unusable.
    assert not stored.available.values.any()
    np.testing.assert_allclose(stored.missing_fraction.values, np.isnan(values).mean((1, 2)))
    assert stored.missing_fraction.values.min() > 0.1
    assert verify(str(tmp_path / "s"), str(tmp_path / "a")).ok


def test_composites_of_fmi_become_rain_rates(shared: Path, tmp_path: Path):
    files = sorted((shared / "data/radar/fmi_pgm/20160928").iterdir())[:4]
    options = {"unit": "mm/h", "zr": "223,1.53"}
    run("radar", copied(files, tmp_path / "a"), tmp_path / "s", archive_options=options)
    stored = xr.open_zarr(tmp_path / "s").rain_rate
    raw = np.stack(
        [
            np.frombuffer(gzip.decompress(file.read_bytes())[-1226 * 760 :], np.uint8)
            for file in files
        ]
    ).reshape(4, 1226, 760)
    dbz = (raw.astype(float) - 64) / 2
    rates = np.where(raw > 0, (10 ** (dbz / 10) / 223) ** (1 / 1.53), 0.0)
    np.testing.assert_allclose(stored.values, np.where(raw == 255, np.nan, rates), rtol=1e-6)
    assert stored.attrs["units"] == "mm/h"


def test_rates_of_mrms_can_be_cropped(shared: Path, tmp_path: Path):
    files = sorted((shared / "data/radar/mrms_grib2").iterdir())[:3]
    options = {"crop": "2400:2460,3100:3200", "resize": "30x50"}
    run("radar", copied(files, tmp_path / "a"), tmp_path / "s", archive_options=options)
    stored = xr.open_zarr(tmp_path / "s").rain_rate
    for file, values in zip(files, stored.values, strict=True):
        import eccodes

        with open(file, "rb") as opened:
            message = eccodes.codes_grib_new_from_file(opened)
        raw = eccodes.codes_get_values(message).reshape(3500, 7000)[2400:2460, 3100:3200]
        eccodes.codes_release(message)
        means = np.where(raw < 0, np.nan, raw).reshape(30, 2, 50, 2).mean((1, 3))
        np.testing.assert_allclose(values, means, atol=1e-6)
    assert np.isfinite(stored.values).all()
    assert stored.values.max() > 0
    assert stored.dims == ("time", "latitude", "longitude")
    np.testing.assert_allclose(stored.longitude.values[:2], [261.01, 261.03], atol=1e-4)


def test_dates_that_are_missing_in_meteonet_are_flagged(shared: Path, tmp_path: Path):
    folder = shared / "data/radar/meteonet_npz"
    options = {"crop": "100:140,200:260"}
    source = folder / "rainfall_NW_*"
    report = run("radar", source, tmp_path / "s", archive_options=options, shard_frames=16)
    stored = xr.open_zarr(tmp_path / "s")
    with np.load(folder / "rainfall_NW_2016_08.3.npz", allow_pickle=True) as arrays:
        raw, dates = arrays["data"][:, 100:140, 200:260], arrays["dates"].astype("M8[ns]")
    held = stored.rainfall.sel(time=dates)
    values = np.where(raw == -1, np.nan, raw / 100)
    np.testing.assert_array_equal(held.values, values.astype(np.float32))
    assert not stored.available.sel(time=dates).values.any()
    lacking = ~np.isin(stored.time.values, dates)
    assert report.missing_frames == lacking.sum() > 0
    assert (stored.available.values[lacking] == cf.MISSING_IN_SOURCE).all()


def test_a_damaged_file_is_flagged_and_its_frame_can_be_filled_later(tmp_path: Path):
    times = five_minutes(FIRST, 20)
    knmi_folder(tmp_path / "a", times)
    damaged = tmp_path / "a" / f"RAD_{stamp(times[9])}.h5"
    damaged.write_bytes(damaged.read_bytes()[:-600])
    report = run("radar", tmp_path / "a", tmp_path / "s", **SMALL)
    assert len(report.unreadable) == 1
    assert report.unreadable[0].startswith(f"{damaged.name}: OSError: ")
    stored = open_store(str(tmp_path / "s"))
    assert np.flatnonzero(stored.available).tolist() == [9]
    assert stored.available[9] == cf.UNREADABLE
    frames = np.stack([expected(time) for time in times])
    frames[9] = np.nan
    np.testing.assert_array_equal(stored.array("reflectivity")[:], frames)
    [record] = Ledger(str(tmp_path / "s")).read("reflectivity", [1])
    assert [(run["frame"], run["frames"]) for run in record.unreadable] == [(1, 1)]
    starts = window_starts(stored.times, stored.available, stored.cadence, WindowSpec(2, 2))
    assert not {6, 7, 8, 9} & set(starts.tolist())
    again = run("radar", tmp_path / "a", tmp_path / "s")
    assert (again.changed, len(again.unreadable)) == (False, 1)
    assert run("radar", tmp_path / "a", tmp_path / "s", repair=True).shards_written == 1
    knmi_folder(tmp_path / "a", times[9:10])
    mended = run("radar", tmp_path / "a", tmp_path / "s")
    assert (mended.shards_written, mended.unreadable) == (1, ())
    knmi_folder(tmp_path / "b", times)
    run("radar", tmp_path / "b", tmp_path / "whole", **SMALL)
    assert not open_store(str(tmp_path / "s")).available.any()
    values = open_store(str(tmp_path / "whole")).array("reflectivity")[:]
    np.testing.assert_array_equal(open_store(str(tmp_path / "s")).array("reflectivity")[:], values)


def test_a_store_of_radar_frames_keeps_its_options_as_it_grows(tmp_path: Path):
    times = five_minutes(FIRST, 16)
    options = {"resize": "3x4", "threshold": "10"}
    knmi_folder(tmp_path / "a", times[:10])
    run("radar", tmp_path / "a", tmp_path / "s", archive_options=options, **SMALL)
    kept = open_store(str(tmp_path / "s")).attributes["configuration"]["archive_options"]
    assert (kept["resize"], kept["threshold"], kept["radar_format"]) == ("3x4", "10", "knmi_hdf5")
    before = content(tmp_path / "s")
    with pytest.raises(StoreError, match="resize: the store has 3x4, asked 2x2"):
        run("radar", tmp_path / "a", tmp_path / "s", archive_options={"resize": "2x2"})
    with pytest.raises(UsageError, match="averaged on their own grid"):
        run("radar", tmp_path / "a", tmp_path / "n", regrid="2x2")
    assert content(tmp_path / "s") == before
    knmi_folder(tmp_path / "a", times[10:])
    run("radar", tmp_path / "a", tmp_path / "s")
    run("radar", tmp_path / "a", tmp_path / "whole", archive_options=options, **SMALL)
    assert content(tmp_path / "s") == content(tmp_path / "whole")


def test_windows_of_a_store_of_events_are_streamed(tmp_path: Path):
    days = [np.datetime64(f"2021-06-0{day}T08:00") for day in (1, 2, 3, 4)]
    knmi_folder(tmp_path / "a", np.concatenate([five_minutes(str(d), 20) for d in days]))
    write_knmi(tmp_path / "a" / "RAD_202106020850.h5", np.datetime64("2021-06-02T09:00"), pixels(1))
    run("radar", tmp_path / "a", tmp_path / "s", **SMALL)
    store = open_store(str(tmp_path / "s"))
    assert (store.available == cf.UNREADABLE).sum() == 1
    spec = WindowSpec(5, 10)
    starts = split_starts(store, "train", spec)
    events = (store.times - store.times[0]) // np.timedelta64(1, "D")
    # The damaged frame leaves ten frames of the second event on one side and nine on the other.
    assert set(events[starts].tolist()) == {0, 2}
    assert all(events[start] == events[start + spec.span - 1] for start in starts)
    normalisation = Normalisation.from_store(store, ("reflectivity",), "standardise")
    stream = WindowStream(
        store, ("reflectivity",), spec, starts, OrderConfig(2), normalisation, lanes=range(2)
    )
    drawn = []
    for batch in stream.epoch(0):
        for start, frames in zip(batch.starts, batch.frames_btchw, strict=True):
            values = store.array("reflectivity")[start : start + 15][:, None]
            np.testing.assert_allclose(
                frames, np.nan_to_num(normalisation.apply(values)), rtol=1e-5, atol=1e-6
            )
            drawn.append(int(start))
    stream.close()
    assert sorted(drawn) == starts.tolist()


def test_the_last_line_of_a_plan_is_json(tmp_path: Path):
    knmi_folder(tmp_path / "a", five_minutes(FIRST, 12))
    command = ["plan", "--archive", "radar", "--source", str(tmp_path / "a")]
    done = job("reprocess.py", *command, "--store", str(tmp_path / "s"), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["frames"] == 12
    assert "Pysteps" not in done.stdout
