"""Forecasts from the newest files of a folder are those that a store of them would give."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from jobs.forecasts.forecasters.trained import load_trained
from jobs.forecasts.prediction.operational import operational_store
from jobs.training.options import DataOptions
from jobs.training.run.checkpoints import Checkpoint
from pipelines.conversion.convert import convert
from pipelines.conversion.newest import newest_frames
from pipelines.conversion.options import ConversionOptions, ConversionRequest
from pipelines.errors import SourceError, StoreError, UsageError
from pipelines.stores.store import Store, open_store
from tests.support.archives.radar_files import (
    KILOMETRES,
    five_minutes,
    knmi_folder,
    pixels,
    stamp,
    write_knmi,
)
from tests.support.archives.small_archives import hourly, write_netcdf
from tests.support.processes.training_runs import job, small_options, write_untrained_run
from tests.support.servers.object_storage import S3Server, s3_server, upload

__all__ = ["s3_server"]

TIMES = five_minutes("2021-06-07T08:00", 60)
NEWEST = np.datetime64("2021-06-07T12:55")
INPUT = 3


@pytest.fixture(scope="module")
def radar(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `radar.zarr`, five hours of small composites, and a `run` trained on it."""
    folder = tmp_path_factory.mktemp("radar")
    archive = knmi_folder(folder / "all", TIMES)
    options = ConversionOptions(archive_options={"crop": "0:6,0:6", "resize": "3x3"})
    trained_on(folder, "radar", archive, options)
    return folder


@pytest.fixture
def inbox(radar: Path, tmp_path: Path) -> Path:
    """A folder with the files of the last hour only."""
    kept = tmp_path / "inbox"
    kept.mkdir()
    for time in TIMES[-12:]:
        shutil.copy(file_of(radar / "all", time), kept)
    return kept


def trained_on(
    folder: Path, archive: str, source: Path, options: ConversionOptions | None = None
) -> Checkpoint:
    """Return an untrained run on a store of `source`; forecasts are compared, not judged."""
    store = str(folder / f"{archive}.zarr")
    convert(ConversionRequest(archive, str(source), store, options or ConversionOptions()))
    data = DataOptions(input_frames=INPUT, horizon=2, normalise="minmax", pool_mib=1)
    return write_untrained_run(small_options(store, str(folder / "run"), data=data))


def file_of(folder: Path, time: np.datetime64) -> Path:
    return folder / f"RAD_{stamp(time)}.h5"


def forecast(checkpoint: object, file: Path, *places: object, **environment: str) -> xr.Dataset:
    done = job("predict.py", "--checkpoint", checkpoint, *places, "--netcdf", file, **environment)
    assert done.returncode == 0, done.stderr
    with xr.open_dataset(file) as made:
        made.load()
    made.attrs["said"] = done.stderr + done.stdout
    return made


def of_the_store(radar: Path, init: np.datetime64, tmp_path: Path) -> xr.Dataset:
    time = str(init)
    places = ("--store", radar / "radar.zarr", "--first", time, "--last", time)
    return forecast(radar / "run", tmp_path / "expected.nc", *places)


def test_the_forecast_of_a_folder_is_that_of_the_store(radar: Path, inbox: Path, tmp_path: Path):
    made = forecast(radar / "run", tmp_path / "made.nc", "--source", inbox)
    xr.testing.assert_identical(
        made.drop_attrs(), of_the_store(radar, NEWEST, tmp_path).drop_attrs()
    )
    assert made["init_time"].values[0] == NEWEST
    assert made["reflectivity"].shape == (1, 2, 3, 3)
    assert made["reflectivity"].attrs["units"] == "dBZ"
    assert made.attrs["store"] == str(inbox)
    store = open_store(str(radar / "radar.zarr"))
    assert made.attrs["statistics_fingerprint"] == store.fingerprint


def test_an_exported_folder_needs_no_store_either(radar: Path, inbox: Path, tmp_path: Path):
    exported = tmp_path / "exported"
    assert job("export.py", "--run", radar / "run", "--to", exported).returncode == 0
    made = forecast(exported, tmp_path / "made.nc", "--source", f"{inbox}/*.h5", "--latest")
    expected = of_the_store(radar, NEWEST, tmp_path)
    np.testing.assert_array_equal(made["reflectivity"], expected["reflectivity"])


def test_a_file_that_is_still_being_written_leaves_the_forecast_before_it(
    radar: Path, inbox: Path, tmp_path: Path
):
    newest = file_of(inbox, NEWEST)
    newest.write_bytes(newest.read_bytes()[:700])
    made = forecast(radar / "run", tmp_path / "made.nc", "--source", inbox)
    before = NEWEST - np.timedelta64(5, "m")
    assert made["init_time"].values[0] == before
    expected = of_the_store(radar, before, tmp_path)
    np.testing.assert_array_equal(made["reflectivity"], expected["reflectivity"])
    assert f"cannot be read: {newest.name}" in made.attrs["said"]
    assert f"left out {NEWEST}:00: frame {NEWEST}:00 is unreadable" in made.attrs["said"]


def test_a_hole_in_the_newest_input_leaves_the_forecast_before_it(
    radar: Path, inbox: Path, tmp_path: Path
):
    file_of(inbox, NEWEST - np.timedelta64(5 * (INPUT - 1), "m")).unlink()
    made = forecast(radar / "run", tmp_path / "made.nc", "--source", inbox)
    assert made["init_time"].values[0] == NEWEST - np.timedelta64(5 * INPUT, "m")
    assert made.attrs["said"].count("is missing_in_source") == INPUT


def test_a_folder_whose_newest_frames_cannot_be_used_has_no_forecast(radar: Path, inbox: Path):
    for time in TIMES[-6:]:
        file_of(inbox, time).write_bytes(b"cut off")
    done = job("predict.py", "--checkpoint", radar / "run", "--source", inbox, "--netcdf", "f.nc")
    assert done.returncode == 3
    assert f"that of {NEWEST}:00: frame {NEWEST}:00 is unreadable" in done.stderr


def test_too_few_files_are_an_error(radar: Path, inbox: Path, tmp_path: Path):
    for time in TIMES[-12:-2]:
        file_of(inbox, time).unlink()
    with pytest.raises(SourceError, match=r"2 frames up to .*T12:55:00.*begins with 3"):
        of_folder(radar / "run", inbox, tmp_path)


def of_folder(run: Path, source: Path, scratch: Path) -> Store:
    trained = load_trained(str(run))
    return operational_store(trained, str(source), str(scratch / "frames"), lambda line: None)


@pytest.mark.parametrize(
    ("made", "difference"),
    [
        ({"projection": "lat_ts=59.0"}, "the projection is .*lat_ts=59.0.* and not"),
        ({"minutes": 10}, "frames are 600 s apart and not 300 s"),
    ],
)
def test_composites_of_another_product_are_an_error(
    radar: Path, tmp_path: Path, made: dict[str, Any], difference: str
):
    projection = KILOMETRES.replace("lat_ts=60.0", made.get("projection", "lat_ts=60.0"))
    step = made.get("minutes", 5) // 5
    for time in five_minutes("2021-06-07T08:00", 40)[::step]:
        write_knmi(file_of(tmp_path / "other", time), time, pixels(0), projection=projection)
    with pytest.raises(StoreError, match=difference):
        of_folder(radar / "run", tmp_path / "other", tmp_path)


def test_a_moved_grid_and_other_units_are_an_error(ray_cluster: None, tmp_path: Path):
    times = hourly("2010-01-01", 96)
    write_netcdf(tmp_path / "all" / "a.nc", times)
    trained_on(tmp_path, "era5", tmp_path / "all")
    newest = times[-8:]
    write_netcdf(tmp_path / "same" / "b.nc", newest)
    assert len(of_folder(tmp_path / "run", tmp_path / "same", tmp_path).times) == 2 * INPUT
    write_netcdf(tmp_path / "moved" / "b.nc", newest, latitude_shift=0.5)
    with pytest.raises(StoreError, match="the grid differs"):
        of_folder(tmp_path / "run", tmp_path / "moved", tmp_path / "second")
    write_netcdf(tmp_path / "celsius" / "b.nc", newest, attributes={"units": "degC"})
    with pytest.raises(StoreError, match="t2m is in 'degC' and not in 'K'"):
        of_folder(tmp_path / "run", tmp_path / "celsius", tmp_path / "third")
    write_netcdf(tmp_path / "wind" / "b.nc", newest, variable="u10")
    with pytest.raises(UsageError, match="no variable 't2m'"):
        of_folder(tmp_path / "run", tmp_path / "wind", tmp_path / "fourth")


def test_a_gap_before_the_newest_frames_does_not_reach_further_back(radar: Path, inbox: Path):
    """Time steps are counted, not files: twice the input, even if some frames are missing."""
    for time in TIMES[-5:-1]:
        file_of(inbox, time).unlink()
    recipe = load_trained(str(radar / "run")).recipe
    assert recipe is not None
    store = newest_frames(recipe, str(inbox), 2 * INPUT, str(inbox / "frames"))
    assert store.available.tolist() == [0, 1, 1, 1, 1, 0]
    assert store.times[0] == TIMES[-6]


def test_members_belong_to_their_init_time(radar: Path, inbox: Path, tmp_path: Path):
    options = small_options(str(radar / "radar.zarr"), str(tmp_path / "noisy"))
    model = dataclasses.replace(options.model, options={"noise": 1})
    write_untrained_run(dataclasses.replace(options, model=model))
    members = ("--members", "3", "--seed", "7")
    one = forecast(tmp_path / "noisy", tmp_path / "a.nc", "--source", inbox, *members)
    places = ("--store", radar / "radar.zarr", "--latest")
    two = forecast(tmp_path / "noisy", tmp_path / "b.nc", *places, *members)
    np.testing.assert_array_equal(one["reflectivity"], two["reflectivity"])
    assert one["reflectivity"].sizes["member"] == 3


def test_forecasts_are_not_continued_after_their_input_was_corrected(radar: Path, tmp_path: Path):
    archive, store = tmp_path / "all", tmp_path / "radar.zarr"
    shutil.copytree(radar / "all", archive)
    shutil.copytree(radar / "radar.zarr", store)
    times = (str(TIMES[-8]), str(TIMES[-6]))
    places = ("--checkpoint", radar / "run", "--store", store, "--forecasts", tmp_path / "f.zarr")
    command = ("predict.py", *places, "--first", times[0], "--last", times[1])
    first = job(*command)
    assert "3 made, 0 were there" in first.stdout, first.stderr
    # What comes after the forecasts' input changes nothing, though its shard is written again.
    write_knmi(file_of(archive, TIMES[-1]), TIMES[-1], pixels(1))
    convert(ConversionRequest("radar", str(archive), str(store)))
    assert "0 made, 3 were there" in job(*command).stdout
    write_knmi(file_of(archive, TIMES[-7]), TIMES[-7], pixels(1))
    convert(ConversionRequest("radar", str(archive), str(store)))
    again = job(*command)
    assert again.returncode == 2
    assert "other forecasts: frames differ" in again.stderr


def test_a_checkpoint_without_a_recipe_needs_the_store(radar: Path, inbox: Path, tmp_path):
    shutil.copytree(radar / "run", tmp_path / "run")
    (record,) = (tmp_path / "run").glob("*/checkpoint.json")
    known = json.loads(record.read_text())
    del known["store"]["recipe"]
    record.write_text(json.dumps(known))
    with pytest.raises(StoreError, match="does not say how its frames were made"):
        of_folder(tmp_path / "run", inbox, tmp_path)


def test_a_store_and_a_source_or_a_period_of_a_source_are_wrong_usage(radar: Path, inbox: Path):
    start = ("predict.py", "--checkpoint", radar / "run", "--netcdf", "f.nc")
    both = job(*start, "--store", radar / "radar.zarr", "--source", inbox)
    neither = job(*start, "--latest")
    period = job(*start, "--source", inbox, "--first", "2021", "--last", "2021")
    assert [done.returncode for done in (both, neither, period)] == [2, 2, 2]
    assert "--store or --source, not both" in both.stderr
    assert "--store or --source" in neither.stderr
    assert "newest frames only" in period.stderr


def test_the_folder_may_lie_on_object_storage(
    radar: Path, inbox: Path, s3_server: S3Server, tmp_path: Path
):
    source = f"{s3_server.bucket()}/inbox"
    upload(inbox, source)
    made = forecast(radar / "run", tmp_path / "made.nc", "--source", source)
    expected = of_the_store(radar, NEWEST, tmp_path)
    np.testing.assert_array_equal(made["reflectivity"], expected["reflectivity"])
    assert made.attrs["store"] == source
