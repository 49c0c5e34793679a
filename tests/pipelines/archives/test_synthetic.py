"""The synthetic archive: layout of WeatherBench, reproducible, and possible to forecast."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipelines.archives.synthetic import write_weatherbench
from pipelines.errors import UsageError


@pytest.fixture(scope="module")
def two_months(tmp_path_factory: pytest.TempPathFactory) -> xr.DataArray:
    folder = tmp_path_factory.mktemp("archive")
    [path] = write_weatherbench(folder, [2015], seed=1, days=60)
    with xr.open_dataset(path) as dataset:
        return dataset["t2m"].load()


def test_files_have_the_layout_of_weatherbench(tmp_path: Path):
    paths = write_weatherbench(tmp_path, [2016, 2015], days=2)
    assert [str(path.relative_to(tmp_path)) for path in paths] == [
        "2m_temperature/2m_temperature_2015_5.625deg.nc",
        "2m_temperature/2m_temperature_2016_5.625deg.nc",
    ]
    with xr.open_dataset(paths[0]) as dataset:
        assert dataset["t2m"].dims == ("time", "lat", "lon")
        assert dataset["t2m"].shape == (48, 32, 64)
        assert dataset["t2m"].dtype == np.float32
        assert dataset["t2m"].attrs == {"units": "K", "long_name": "2 metre temperature"}
        assert (dataset["lat"][0], dataset["lat"][-1]) == (-87.1875, 87.1875)
        assert (dataset["lon"][0], dataset["lon"][-1]) == (0.0, 354.375)
        assert (np.diff(dataset["time"]) == np.timedelta64(1, "h")).all()


def test_files_are_marked_as_synthetic(tmp_path: Path):
    [path] = write_weatherbench(tmp_path, [2015], days=1)
    with xr.open_dataset(path) as dataset:
        assert dataset.attrs["synthetic"] == 1
        assert "not observed" in dataset.attrs["title"]


def test_the_values_of_a_year_do_not_depend_on_the_other_years(tmp_path: Path):
    alone = write_weatherbench(tmp_path / "alone", [2016], seed=3, days=40)
    among = write_weatherbench(tmp_path / "among", [2014, 2015, 2016], seed=3, days=35)
    other = write_weatherbench(tmp_path / "other", [2016], seed=4, days=35)
    one, same, different = (xr.load_dataset(p[-1])["t2m"] for p in (alone, among, other))
    np.testing.assert_array_equal(one[: len(same)], same)
    assert abs(one[: len(different)] - different).max() > 1.0


def test_consecutive_years_fit_together(tmp_path: Path):
    before, after = write_weatherbench(tmp_path, [2014, 2015], seed=2, noise_kelvin=0.0)
    joined = np.concatenate(
        [xr.load_dataset(before)["t2m"][-24:], xr.load_dataset(after)["t2m"][:24]]
    )
    steps = np.abs(np.diff(joined, axis=0)).mean(axis=(1, 2))
    assert steps[23] < 1.5 * np.median(steps)


def test_temperatures_are_plausible(two_months: xr.DataArray):
    assert 200 < float(two_months.min()) < 250
    assert 295 < float(two_months.max()) < 330
    by_latitude = two_months.mean(("time", "lon")).values
    assert by_latitude[15] - by_latitude[-1] > 25
    assert by_latitude[0] > by_latitude[-1]  # January and February: the south is in summer


def test_land_is_warmest_in_the_early_afternoon_of_local_time(two_months: xr.DataArray):
    day = two_months.values.reshape(-1, 24, 32, 64).mean(0)
    swing = np.ptp(day, axis=0)
    latitude, longitude = np.unravel_index(np.argmax(swing), swing.shape)
    assert swing[latitude, longitude] > 8.0
    assert np.median(swing) < 4.0
    local = (np.argmax(day[:, latitude, longitude]) + longitude * 5.625 / 15.0) % 24
    assert 12.5 < local < 16.5


def test_a_linear_forecast_beats_persistence_and_the_mean_by_hour(two_months: xr.DataArray):
    """A regression on past hours and neighbours forecasts the weather six hours ahead."""
    values = two_months.values[:, 20:28] - two_months.values[:, 20:28].mean(0)
    lead, split = 6, 45 * 24

    def features(at: np.ndarray) -> np.ndarray:
        past = [values[at - k] for k in (0, 1, 3, 6, 11)]
        around = [np.roll(values[at - k], shift, 2) for k in (0, 6) for shift in (-3, -1, 1, 3)]
        return np.stack([*past, *around], axis=-1)

    train, test = np.arange(12, split - lead), np.arange(split, len(values) - lead)
    squares = {"linear": 0.0, "persistence": 0.0, "by hour": 0.0}
    x, y, x_test, y_test = (
        features(train),
        values[train + lead],
        features(test),
        values[test + lead],
    )
    by_hour = values[:split].reshape(-1, 24, 8, 64).mean(0)[(test + lead) % 24]
    for i, j in np.ndindex(8, 64):
        design = x[:, i, j]
        weights = np.linalg.solve(design.T @ design + np.eye(13), design.T @ y[:, i, j])
        squares["linear"] += np.mean((x_test[:, i, j] @ weights - y_test[:, i, j]) ** 2)
    squares["persistence"] = np.mean((values[test] - y_test) ** 2, axis=0).sum()
    squares["by hour"] = np.mean((by_hour - y_test) ** 2, axis=0).sum()
    rmse = {name: np.sqrt(total / 512) for name, total in squares.items()}
    assert rmse["linear"] < 0.6 * rmse["persistence"]
    assert rmse["linear"] < 0.6 * rmse["by hour"]
    assert rmse["linear"] > 0.3  # but it is not perfect


def test_an_empty_list_of_years_raises_an_error(tmp_path: Path):
    with pytest.raises(UsageError, match="at least one year"):
        write_weatherbench(tmp_path, [])
