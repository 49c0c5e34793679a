"""A CF store of forecasts holds the values of the model, whole or resumed, without gaps."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
import xarray as xr
import zarr

import gmg_model
from gmg_model.exported import write_exported
from jobs.forecasts.forecasters.model_forecast import forecast_with
from jobs.forecasts.forecasters.trained import load_trained
from jobs.forecasts.prediction import forecast_store
from jobs.forecasts.prediction.netcdf import check_file
from jobs.forecasts.prediction.predict import Prediction
from jobs.forecasts.prediction.products import Products
from jobs.training.options import DataOptions
from jobs.training.run.checkpoints import Checkpoint
from pipelines.errors import StoreError, UsageError
from pipelines.stores.store import Store, open_store
from pipelines.timeline.clips import Clips
from tests.jobs.forecasts.running import predict
from tests.jobs.forecasts.stores import HOURS, weather
from tests.support.processes.processes import Family
from tests.support.processes.training_runs import (
    ROOT,
    job,
    small_options,
    wait_until,
    write_untrained_run,
)

PERIOD = ("2019-01-23T05:00", "2019-01-23T14:00")


@pytest.fixture
def noisy(trained: Checkpoint) -> Checkpoint:
    """The same run, with a model that has noise."""

    class Noisy(Checkpoint):
        def model(self):
            torch.manual_seed(1)
            choice = self.record["model"]
            overrides = {
                k: tuple(v) if isinstance(v, list) else v for k, v in choice["overrides"].items()
            }
            return gmg_model.create_model(choice["name"], **overrides, noise=2).eval()

    return Noisy(trained.uri, trained.record)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Run torch on one thread, as a process with OMP_NUM_THREADS=1 does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(trained: Checkpoint, store: Store, folder: Path, **options: Any) -> Prediction:
    options = {"period": PERIOD, "batch_size": 4, **options}
    return predict(trained, store, str(folder), **options)


def flag(store: Store, frame: int, value: int = 1) -> Store:
    """Return the store with one frame flagged as missing and its values removed."""
    root = zarr.open_group(store.uri, mode="r+", use_consolidated=False)
    root["available"][frame] = value  # pyright: ignore[reportIndexIssue, reportArgumentType]
    root["t2m"][frame] = np.nan  # pyright: ignore[reportIndexIssue, reportArgumentType]
    return open_store(store.uri)


def by_hand(trained: Checkpoint, store: Store, init: str, horizon: int) -> np.ndarray:
    """Return (T, H, W) kelvin: the model called on the three frames up to `init`."""
    values = store.dataset()["t2m"].sel(time=slice(None, init)).values[-3:]
    normalised = trained.normalisation.apply(values[None, :, None])
    outputs = forecast_with(trained.model())(np.nan_to_num(normalised), horizon)
    return trained.normalisation.invert(outputs)[0, :, 0]


def objects(folder: Path) -> dict[str, str]:
    """Return the checksum of every file but the lease of the writer."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith("lease")
    }


def test_plain_xarray_reads_the_models_own_values_with_decoded_times(store, trained, tmp_path):
    made = run(trained, store, tmp_path / "forecasts", every=3)
    assert (made.made, made.kept, made.left_out) == (4, 0, ())
    with xr.open_zarr(tmp_path / "forecasts") as forecasts:
        assert forecasts["t2m"].dims == ("init_time", "lead_time", "latitude", "longitude")
        assert forecasts["t2m"].attrs["units"] == "K"
        hours = ["05", "08", "11", "14"]
        inits = np.array([f"2019-01-23T{hour}" for hour in hours], "datetime64[ns]")
        np.testing.assert_array_equal(forecasts["init_time"], inits)
        leads = np.array([1, 2], "timedelta64[h]")
        np.testing.assert_array_equal(forecasts["lead_time"].values, leads)
        np.testing.assert_array_equal(forecasts["valid_time"], inits[:, None] + leads)
        assert "valid_time" in forecasts["t2m"].coords
        with store.dataset() as source:
            np.testing.assert_array_equal(forecasts["latitude"], source["latitude"])
        for init in inits:
            expected = by_hand(trained, store, str(init), 2)
            np.testing.assert_allclose(forecasts["t2m"].sel(init_time=init), expected, atol=1e-3)
        assert forecasts.attrs["synthetic"] is True
        assert forecasts.attrs["checkpoint"] == trained.uri
        assert forecasts.attrs["checkpoint_step"] == 0
        assert forecasts.attrs["statistics_fingerprint"] == store.fingerprint
        assert "torch" in forecasts.attrs["versions"]


def test_each_forecast_is_one_object(store, trained, tmp_path):
    run(trained, store, tmp_path / "forecasts")
    chunks = sorted(path.name for path in (tmp_path / "forecasts/t2m/c").iterdir())
    assert chunks == sorted(str(index) for index in range(10))
    assert sum(path.is_file() for path in (tmp_path / "forecasts/t2m/c").rglob("*")) == 10


@pytest.mark.parametrize("written", [0, 3, 5, 9])
def test_a_stopped_prediction_is_resumed_to_equal_bytes(
    store, trained, tmp_path, monkeypatch, written
):
    run(trained, store, tmp_path / "whole")
    write = forecast_store.ForecastStore.write

    def stops(self: forecast_store.ForecastStore, index: int, values: Any) -> None:
        if index == written:
            raise KeyboardInterrupt
        write(self, index, values)

    with monkeypatch.context() as patched:
        patched.setattr(forecast_store.ForecastStore, "write", stops)
        with pytest.raises(KeyboardInterrupt):
            run(trained, store, tmp_path / "resumed")
    with pytest.raises(FileNotFoundError):
        xr.open_zarr(tmp_path / "resumed")
    resumed = run(trained, store, tmp_path / "resumed")
    assert (resumed.made, resumed.kept) == (10 - written, written)
    assert objects(tmp_path / "resumed") == objects(tmp_path / "whole")


def test_a_process_that_is_killed_is_resumed_to_equal_bytes(store, trained, tmp_path, one_thread):
    days = ("2019-01-23", "2019-01-26")
    command = ["--checkpoint", trained.uri, "--store", store.uri, "--batch_size", "2"]
    command += ["--first", days[0], "--last", days[1], "--forecasts", str(tmp_path / "resumed")]
    family = Family()
    process = subprocess.Popen(
        [sys.executable, "jobs/predict.py", *command],
        cwd=ROOT,
        env={**os.environ, **family.environment, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    records = tmp_path / "resumed/.ledger/forecasts"
    try:
        wait_until(lambda: records.exists() and len(list(records.iterdir())) > 3, "forecasts")
        process.send_signal(signal.SIGKILL)
    finally:
        process.wait(30)
        family.end(0)
    assert not (tmp_path / "resumed/zarr.json").exists()
    again = run(trained, store, tmp_path / "resumed", period=days, batch_size=2)
    assert again.kept > 3
    assert again.made + again.kept == 4 * 24
    run(trained, store, tmp_path / "whole", period=days, batch_size=2)
    assert objects(tmp_path / "resumed") == objects(tmp_path / "whole")


def test_a_complete_prediction_that_runs_again_writes_nothing(store, trained, tmp_path):
    run(trained, store, tmp_path / "forecasts")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "forecasts/t2m").rglob("*")}
    again = run(trained, store, tmp_path / "forecasts")
    assert (again.made, again.kept) == (0, 10)
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "forecasts/t2m").rglob("*")}
    assert after == before


def test_a_damaged_forecast_is_made_again(store, trained, tmp_path):
    run(trained, store, tmp_path / "forecasts")
    whole = objects(tmp_path / "forecasts")
    (tmp_path / "forecasts/t2m/c/6/0/0/0").write_bytes(b"damage")
    assert run(trained, store, tmp_path / "forecasts").made == 1
    assert objects(tmp_path / "forecasts") == whole


def test_forecasts_of_other_options_are_not_mixed_with_those_in_the_store(store, trained, tmp_path):
    run(trained, store, tmp_path / "forecasts")
    with pytest.raises(UsageError, match=r"other forecasts: horizon differ .*was 2"):
        run(trained, store, tmp_path / "forecasts", horizon=1)


def test_a_run_that_failed_before_its_first_forecast_can_be_replaced(
    store, trained, tmp_path, monkeypatch
):
    def fails(self: forecast_store.ForecastStore, index: int, values: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(forecast_store.ForecastStore, "write", fails)
        with pytest.raises(MemoryError):
            run(trained, store, tmp_path / "forecasts", horizon=5)
    assert run(trained, store, tmp_path / "forecasts").made == 10


def test_an_error_about_clips_names_the_export(store, trained, tmp_path):
    clips = dataclasses.replace(store, clips=Clips(np.array(["a"]), np.arange(3), {}, False))
    with pytest.raises(UsageError, match=r"(?s)clips have no init time.*jobs/export\.py"):
        run(trained, clips, tmp_path / "forecasts")


def test_forecasts_are_the_same_on_object_storage_and_on_disk(store, trained, tmp_path):
    predict(trained, store, "memory://bucket/forecasts", period=PERIOD, batch_size=4)
    run(trained, store, tmp_path / "here")
    fs = fsspec.filesystem("memory")
    there = {
        path.removeprefix("/bucket/forecasts/"): hashlib.sha256(fs.cat_file(path)).hexdigest()
        for path in fs.find("/bucket/forecasts")
        if "lease" not in path
    }
    assert there == objects(tmp_path / "here")


def test_forecasts_are_not_written_over_their_own_store(store, trained):
    before = objects(Path(store.uri))
    with pytest.raises(UsageError, match="files that are not forecasts"):
        run(trained, store, Path(store.uri))
    assert objects(Path(store.uri)) == before


def test_an_input_with_a_missing_frame_has_no_forecast_and_is_listed(store, trained, tmp_path):
    frame = 24 * 22 + 8  # 2019-01-23T08
    gappy = flag(store, frame)
    made = run(trained, gappy, tmp_path / "forecasts")
    assert [init for init, _ in made.left_out] == [f"2019-01-23T{h:02}:00:00" for h in (8, 9, 10)]
    assert {why for _, why in made.left_out} == {"frame 2019-01-23T08:00:00 is missing_in_source"}
    with xr.open_zarr(tmp_path / "forecasts") as forecasts:
        hours = forecasts["init_time"].dt.hour.values.tolist()
        assert hours == [5, 6, 7, 11, 12, 13, 14]
        assert len(forecasts.attrs["left_out"]) == 3
        assert np.isfinite(forecasts["t2m"].values).all()


@pytest.fixture
def partial(make_store) -> Store:
    """A store in which a corner of twelve pixels is missing from 05 UTC of the 23rd on."""
    values = weather()
    values[24 * 22 + 5 :, :3, :4] = np.nan
    return make_store(values)


def run_of(store: Store, folder: Path) -> Checkpoint:
    data = DataOptions(input_frames=3, horizon=2, normalise="standardise", pool_mib=1)
    return write_untrained_run(small_options(store.uri, str(folder), data=data))


def test_missing_pixels_are_filled_as_in_training(partial, tmp_path):
    trained = run_of(partial, tmp_path / "run")
    made = run(trained, partial, tmp_path / "forecasts", period=("2019-01-23T06", "2019-01-23T06"))
    assert made.made == 1
    with xr.open_zarr(tmp_path / "forecasts") as forecasts:
        expected = by_hand(trained, partial, "2019-01-23T06:00", 2)
        np.testing.assert_allclose(forecasts["t2m"][0], expected, atol=1e-3)


def test_pixels_that_no_frame_of_the_input_has_are_missing_in_the_forecast(partial, tmp_path):
    trained = run_of(partial, tmp_path / "run")
    lines: list[str] = []
    period = ("2019-01-23T09", "2019-01-23T09")
    run(trained, partial, tmp_path / "forecasts", period=period, say=lines.append)
    assert any("that no frame of the input has are missing in the forecast" in x for x in lines)
    expected = by_hand(trained, partial, "2019-01-23T09:00", 2)
    expected[:, :3, :4] = np.nan
    with xr.open_zarr(tmp_path / "forecasts") as forecasts:
        np.testing.assert_allclose(forecasts["t2m"][0], expected, atol=1e-3)
    write_exported(tmp_path / "exported", trained.record, trained.weights_file())
    seen = partial.dataset()["t2m"].sel(time=slice(None, "2019-01-23T09")).values[-3:, None]
    again = gmg_model.load_exported(tmp_path / "exported")(seen, 2)
    np.testing.assert_allclose(again[:, 0], expected, atol=1e-3)


def test_products_of_members_are_missing_where_the_members_are():
    members = np.random.default_rng(0).normal(size=(4, 2, 3, 3)).astype(np.float32)
    members[..., 0, 0] = np.nan
    products = Products(members=4, quantiles=(0.5,), exceed=(-9.0, 9.0)).arrays("t2m", members)
    for name in ("t2m_mean", "t2m_quantile", "t2m_exceedance"):
        missing = np.isnan(products[name])
        assert missing[..., 0, 0].all()
        assert missing.sum() == missing[..., 0, 0].size, name


def test_a_member_at_the_threshold_counts_as_in_the_scores_of_events() -> None:
    members = np.array([29.5, 30.0, 30.0, 31.5], np.float32).reshape(4, 1, 1, 1)
    products = Products(members=4, exceed=(30.0, 31.5, 32.0)).arrays("dbz", members)
    assert products["dbz_exceedance"].ravel().tolist() == [0.75, 0.25, 0.0]


def test_the_newest_frames_need_no_truth(store, trained, tmp_path):
    made = run(trained, store, tmp_path / "forecasts", period=None)
    assert made.inits == (str(store.times[HOURS - 1].astype("datetime64[m]")),)
    with xr.open_zarr(tmp_path / "forecasts") as forecasts:
        assert forecasts["valid_time"].values.min() > store.times[-1]


def test_newest_frames_that_are_missing_are_listed(store, trained, tmp_path):
    made = run(trained, flag(store, HOURS - 2, 2), tmp_path / "forecasts", period=None)
    assert made.inits == (str(store.times[HOURS - 3].astype("datetime64[m]")),)
    assert [reason for _, reason in made.left_out] == [
        "frame 2019-01-30T22:00:00 is unreadable"
    ] * 2


def test_a_horizon_beyond_training_is_forecast_with_a_warning(store, trained, tmp_path):
    lines: list[str] = []
    run(trained, store, tmp_path / "forecasts", horizon=5, period=None, say=lines.append)
    assert any("5 frames with a model that was trained for 2" in line for line in lines)
    with xr.open_zarr(tmp_path / "forecasts") as forecasts:
        assert forecasts.sizes["lead_time"] == 5


def test_members_quantiles_and_exceedance_are_those_of_the_members(store, noisy, tmp_path):
    run(noisy, store, tmp_path / "members", members=5, seed=3, every=5)
    with xr.open_zarr(tmp_path / "members") as forecasts:
        limit = float(forecasts["t2m"].values.mean())
    products = {"members": 5, "quantiles": "0.1,0.5", "exceed": repr(limit)}
    run(noisy, store, tmp_path / "forecasts", **products, seed=3, every=5)
    with xr.open_zarr(tmp_path / "forecasts") as forecasts:
        members = forecasts["t2m"]
        assert members.dims[:3] == ("init_time", "lead_time", "member")
        assert float(members.std("member").max()) > 0
        np.testing.assert_allclose(forecasts["t2m_mean"], members.mean("member"), rtol=1e-5)
        expected = (
            members.load().quantile([0.1, 0.5], "member").transpose(*forecasts["t2m_quantile"].dims)
        )
        np.testing.assert_allclose(forecasts["t2m_quantile"], expected, rtol=1e-5)
        above = (members >= limit).mean("member")
        np.testing.assert_allclose(forecasts["t2m_exceedance"].isel(threshold=0), above, rtol=1e-6)
        assert 0 < float(above.mean()) < 1
        assert forecasts["t2m_exceedance"].attrs["units"] == "1"
        assert "at or above the threshold" in forecasts["t2m_exceedance"].attrs["long_name"]
        assert forecasts["threshold"].attrs["units"] == "K"
        first = members.isel(init_time=1).values
    # A member depends on its init time and number, not on what is forecast beside it.
    period = ("2019-01-23T10:00", "2019-01-23T10:00")
    run(noisy, store, tmp_path / "alone", members=2, seed=3, period=period)
    with xr.open_zarr(tmp_path / "alone") as forecasts:
        np.testing.assert_allclose(forecasts["t2m"][0], first[:, :2], atol=1e-3)


def test_a_model_without_noise_has_no_members(store, trained, tmp_path):
    with pytest.raises(UsageError, match="trained with noise"):
        run(trained, store, tmp_path / "forecasts", members=3)
    assert not (tmp_path / "forecasts").exists()


def test_quantiles_need_several_members():
    with pytest.raises(UsageError, match="those of members"):
        Products(quantiles=(0.5,))


def test_a_store_of_other_statistics_is_an_error(trained, make_store, tmp_path):
    with pytest.raises(StoreError, match="trained with statistics"):
        run(trained, make_store(weather(4), name="other.zarr"), tmp_path / "forecasts")


@pytest.mark.parametrize(
    ("period", "message"),
    [
        (("2024", "2025"), "no frame in 2024 to 2025"),
        (("yesterday", "2019"), "'yesterday' is not a time"),
        (("2019-01-01T00", "2019-01-01T01"), "none of 2 forecasts can be made"),
    ],
)
def test_a_period_without_a_forecast_is_an_error(store, trained, tmp_path, period, message):
    with pytest.raises(UsageError, match=message):
        run(trained, store, tmp_path / "forecasts", period=period)


def test_channels_keep_their_dimension(make_store, tmp_path):
    flow = np.random.default_rng(0).random((24 * 30, 2, 8, 8)).astype(np.float32)
    store = make_store(flow)
    data = DataOptions(input_frames=3, horizon=2, normalise="minmax", pool_mib=1)
    trained = write_untrained_run(small_options(store.uri, str(tmp_path / "run"), data=data))
    run(trained, store, tmp_path / "forecasts", period=None)
    with xr.open_zarr(tmp_path / "forecasts") as forecasts:
        assert forecasts["flow"].dims == ("init_time", "lead_time", "channel", "y", "x")


def test_an_exported_folder_forecasts_what_its_checkpoint_does(store, trained, tmp_path):
    known = trained.record
    record = {key: known[key] for key in ("model", "normalisation", "variables", "window", "grid")}
    record |= {"step": 0, "trained_on": {"statistics_fingerprint": trained.fingerprint}}
    write_exported(tmp_path / "exported", record, trained.weights_file())
    run(trained, store, tmp_path / "one", period=None)
    run(load_trained(str(tmp_path / "exported")), store, tmp_path / "two", period=None)
    with xr.open_zarr(tmp_path / "one") as one, xr.open_zarr(tmp_path / "two") as two:
        np.testing.assert_array_equal(one["t2m"], two["t2m"])
    weights = tmp_path / "exported/weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(StoreError, match="damaged"):
        run(load_trained(str(tmp_path / "exported")), store, tmp_path / "three", period=None)
    weights.unlink()
    with pytest.raises(StoreError, match=r"'weights.safetensors' is missing"):
        run(load_trained(str(tmp_path / "exported")), store, tmp_path / "three", period=None)


def test_the_command_writes_the_newest_forecast_as_netcdf(store, trained, tmp_path):
    file = tmp_path / "forecast.nc"
    places = ("--checkpoint", trained.uri, "--store", store.uri)
    done = job("predict.py", *places, "--latest", "--netcdf", str(file), OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert "1 made, 0 were there" in done.stdout
    with xr.open_dataset(file) as forecast:
        assert forecast["init_time"].values[0] == store.times[-1]
        assert forecast["t2m"].attrs["units"] == "K"
        expected = by_hand(trained, store, str(store.times[-1]), 2)
        np.testing.assert_allclose(forecast["t2m"][0], expected, atol=1e-3)
    assert os.listdir(tmp_path).count("forecast.nc") == 1


def test_a_netcdf_file_cannot_be_a_folder(tmp_path):
    with pytest.raises(UsageError, match="the NetCDF file is a folder"):
        check_file(str(tmp_path))


def test_init_times_must_be_given():
    done = job("predict.py", "--checkpoint", "run", "--store", "s.zarr", "--forecasts", "f.zarr")
    assert done.returncode == 2
    assert "--first and --last, or --latest" in done.stderr
