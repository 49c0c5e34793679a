"""Scores by month, hour, day and channel, their intervals, and the files that hold them."""

from __future__ import annotations

import csv
import io
import math
import shutil

import numpy as np
import pytest
import xarray as xr

from gmg_model.metrics import create_metrics, score
from jobs.forecasts.forecasters.baselines import MemberForecast, persistence
from jobs.forecasts.reports.error_maps import error_dataset, write_error_fields
from jobs.forecasts.reports.outputs import check_writable
from jobs.forecasts.reports.score_table import COLUMNS, as_csv
from jobs.forecasts.scoring.bootstrap import draw, interval, plan_bootstrap, resampled
from jobs.forecasts.scoring.protocols import Selection
from jobs.forecasts.scoring.score_rows import Part
from jobs.forecasts.scoring.scores import Evaluation
from jobs.forecasts.scoring.sums import GroupedSums, WindowGroups
from pipelines.errors import UsageError
from pipelines.inputs.normalisation import Normalisation
from pipelines.stores.store import Store, open_store
from pipelines.stream.windows import WindowSpec, split_starts
from tests.jobs.forecasts.running import evaluate
from tests.jobs.forecasts.stores import weather, write_store

WINDOW = WindowSpec(4, 3)
SPLITS = {
    "train": ("2019-01-01T00:00:00", "2019-01-20T23:00:00"),
    "validation": ("2019-01-21T00:00:00", "2019-01-21T23:00:00"),
    "test": ("2019-01-25T00:00:00", "2019-02-06T23:00:00"),
}


class Damped(MemberForecast):
    """Persistence, damped towards the mean, with noise that differs by window and member."""

    def members(self, frames_btchw, horizon, numbers):
        still = 0.9 * persistence(frames_btchw, horizon)[:, None]
        noise = [
            np.random.default_rng(number).normal(size=(5, *still.shape[2:])) for number in numbers
        ]
        return (still + 0.3 * np.stack(noise)).astype(np.float32)


def run(store: Store, forecast=persistence, **options) -> Evaluation:
    variables = tuple(store.variables)
    normalisation = Normalisation.from_store(store, variables, "standardise")
    options = {"variables": variables, "window": WINDOW, "normalisation": normalisation, **options}
    return evaluate(store, forecast, **options)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of hours in January and February."""
    values = np.concatenate([weather(), weather(1)[: 24 * 7]])
    return write_store(tmp_path_factory.mktemp("stores") / "store.zarr", values, splits=SPLITS)


@pytest.fixture(scope="module")
def evaluation(store: Store) -> Evaluation:
    return run(store, lambda seen, horizon: 0.9 * persistence(seen, horizon))


@pytest.fixture(scope="module")
def persisted(store: Store) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Persistence, truth (N, T, C, H, W) and valid times (N, T), directly from the store."""
    values, starts = store.array("t2m")[:], split_starts(store, "test", WINDOW)
    truth = np.stack([values[start + 4 : start + 7] for start in starts])[:, :, None]
    still = np.stack([values[[start + 3] * 3] for start in starts])[:, :, None]
    return still, truth, store.times[starts[:, None] + np.arange(4, 7)]


def test_months_and_hours_are_those_of_the_valid_time(evaluation, persisted):
    still, truth, times = persisted
    (scores,) = evaluation.scores
    months, hours = (scores.scores.select(kind).parts for kind in ("month", "hour"))
    assert [part.name for part in months] == ["01", "02"]
    assert [part.name for part in hours] == [f"{hour:02d}" for hour in range(24)]
    month = times.astype("datetime64[M]").astype(int) % 12 + 1
    hour = times.astype("datetime64[h]").astype(int) % 24
    for part, chosen in ((months[1], month == 2), (hours[7], hour == 7)):
        found = scores.scores.means("strict", "persistence", part)
        expected = score(still[chosen][:, None], truth[chosen][:, None])
        for name in ("rmse", "mae", "bias"):
            assert found[name] == pytest.approx(expected[name], rel=1e-4)
        assert {"model", "climatology"} <= set(scores.scores.select(part=part).systems)


def test_scores_of_all_months_add_up_to_the_whole(evaluation, persisted):
    _, _, times = persisted
    (scores,) = evaluation.scores
    weight = (times.astype("datetime64[M]").astype(int) % 12 == 1).mean()
    january, february = scores.scores.select(
        "month", protocol="strict", system="model", name="mse"
    ).values
    whole = scores.strict("model", "mse")
    assert (1 - weight) * january + weight * february == pytest.approx(whole, rel=1e-9)


def test_channels_of_one_quantity_are_also_scored_one_by_one(tmp_path):
    flow = np.stack([weather(1), 3 * weather(2)], axis=1)
    store = write_store(tmp_path / "store.zarr", flow)
    (scores,) = run(store, max_windows=20).scores
    parts = scores.scores.select("channel").parts
    assert [part.name for part in parts] == ["flow[0]", "flow[1]"]
    both = [scores.scores.overall("strict", "model", "mse", part).value for part in parts]
    assert both[1] > 2 * both[0]
    assert np.mean(both) == pytest.approx(scores.strict("model", "mse"), rel=1e-9)


def test_intervals_are_those_of_days_drawn_anew(persisted, store):
    """The definition: put the windows of the drawn days together, and score them."""
    still, truth, _ = persisted
    starts = split_starts(store, "test", WINDOW)
    groups = WindowGroups.of(store, WINDOW, starts)
    sums = GroupedSums(create_metrics("strict"))
    sums.update(still, truth, None, groups)
    days = np.unique(groups.units)
    assert len(days) == 13
    plan = plan_bootstrap("day", len(days), 3, seed=5)
    counts = draw(plan)
    assert counts.shape == (3, 13)
    assert (counts.sum(axis=1) == 13).all()

    overall, per_lead = resampled(sums.by_unit(), counts)

    for resample in range(3):
        rows = np.concatenate(
            [
                np.flatnonzero(groups.units == day)
                for day, times in zip(days, counts[resample], strict=True)
                for _ in range(int(times))
            ]
        )
        metrics = create_metrics("strict")
        metrics.update(still[rows], truth[rows])
        expected = metrics.result()
        for name in ("rmse", "bias"):
            assert overall[name][resample] == pytest.approx(expected["overall"][name], rel=1e-9)
            found = per_lead[name][:, resample]
            np.testing.assert_allclose(found, expected["per_lead"][name], rtol=1e-9)


def test_the_day_of_a_window_is_that_of_its_init_time(store):
    starts = split_starts(store, "test", WINDOW)
    groups = WindowGroups.of(store, WINDOW, starts)
    first = np.datetime64("2019-01-25").astype(int)
    # Of the windows that begin on the first day, three have their last input frame on the next day.
    assert (groups.units == first).sum() == 21
    assert groups.unit == "day of the init time"


def test_scores_and_differences_lie_in_their_intervals(evaluation):
    (scores,) = evaluation.scores
    assert evaluation.bootstrap is not None
    assert evaluation.bootstrap.none is None
    assert evaluation.bootstrap.units == 13
    for system in scores.forecasts:
        low, high = scores.scores.overall("strict", system, "rmse").interval
        assert low < scores.strict(system, "rmse") < high
        by_lead = scores.scores.per_lead("strict", system, "rmse")
        assert [row.has_interval for row in by_lead] == [True] * 3
    # Damping the deviations by a tenth makes the forecast worse.
    less_persistence = Part("difference", "persistence")
    row = scores.scores.overall("strict", "model", "mse", less_persistence)
    ours, theirs = (scores.strict(name, "mse") for name in ("model", "persistence"))
    assert row.value == pytest.approx(ours - theirs)
    low, high = row.interval
    assert low <= row.value <= high
    assert row.is_significant == (low > 0 or high < 0)
    low, high = scores.skill("persistence").interval
    assert low <= scores.skill("persistence").value <= high


def test_a_model_that_is_its_own_baseline_does_not_differ_significantly(store):
    (scores,) = run(store, persistence, max_windows=60).scores
    entry = scores.as_dict()["differences"]["strict"]["persistence"]["overall"]["rmse"]
    assert entry == {"difference": 0.0, "low": 0.0, "high": 0.0, "significant": False}


def test_the_same_seed_gives_the_same_intervals_and_another_does_not(store, evaluation):
    def again(seed: int) -> dict:
        found = run(store, lambda seen, horizon: 0.9 * persistence(seen, horizon), seed=seed)
        return found.scores[0].as_dict()["intervals"]["strict"]["model"]["overall"]

    known = evaluation.scores[0].as_dict()["intervals"]["strict"]["model"]["overall"]
    assert again(0) == known
    assert again(1) != known


def test_few_days_have_no_intervals_and_a_note_says_why(store):
    evaluation = run(store, max_windows=4)
    assert evaluation.bootstrap is not None
    assert "too few units, 4 where 5 are needed" in str(evaluation.bootstrap.none)
    assert any(note.startswith("no intervals (too few units") for note in evaluation.notes)
    assert evaluation.scores[0].as_dict()["intervals"] == {}
    asked = run(store, max_windows=8, resamples=0)
    assert asked.bootstrap is not None
    assert asked.bootstrap.none == "none was asked for"
    assert asked.notes == ()


def test_a_score_that_is_missing_in_many_resamples_has_no_interval():
    samples = np.arange(100.0)
    samples[:6] = np.nan
    assert all(math.isnan(end) for end in interval(samples))
    samples[:2] = 0.0
    assert all(math.isfinite(end) for end in interval(samples))


def test_members_are_scored_as_an_ensemble_and_their_mean_as_the_model(store):
    options = {"thresholds": "290", "members": 5}
    evaluation = run(store, Damped(), max_windows=12, resamples=0, **options)
    (scores,) = evaluation.scores
    assert scores.systems("ensemble") == ("model",)
    own, curves = scores.scores.means("ensemble", "model"), scores.curves["ensemble"]["model"]
    assert len(curves["rank_histogram"].overall) == 6
    assert curves.keys() >= {"reliability_290", "forecast_share_290"}
    assert 0 < own["brier_290"] < 1
    mean = scores.strict("model", "rmse")
    assert own["rmse_ensemble_mean"] == pytest.approx(mean, rel=1e-5)
    assert own["crps_fair"] < scores.strict("model", "mae")
    assert all(example.spread_tchw is not None for example in evaluation.examples)
    assert scores.scores.means("radar", "model")["csi_290"] > 0


def test_protocol_strict_is_scored_beside_the_protocols_of_the_options(store):
    (scores,) = run(store, protocols="openstl,weather", max_windows=2).scores
    assert scores.protocols == ("strict", "openstl", "weather")
    assert Selection(protocols=("openstl", "weather")).headline == "openstl"


def test_an_error_says_why_a_protocol_does_not_suit_the_data(store):
    for name, reason in (("srvp", "8-bit images"), ("radar", "give --thresholds")):
        with pytest.raises(UsageError, match=reason):
            run(store, protocols=name)
    with pytest.raises(UsageError, match="did you mean 'strict'"):
        Selection(protocols=("strickt",))
    with pytest.raises(UsageError, match="give --members"):
        Selection(protocols=("ensemble",))


def test_the_table_holds_every_score_with_its_interval(evaluation):
    rows = list(csv.DictReader(io.StringIO(as_csv(evaluation))))
    (scores,) = evaluation.scores
    assert tuple(rows[0]) == COLUMNS

    def one(**wanted: str) -> dict[str, str]:
        (row,) = (row for row in rows if wanted.items() <= row.items())
        return row

    strict = {"system": "model", "protocol": "strict", "metric": "rmse"}
    row = one(**strict, group_kind="all", lead="all")
    assert float(row["value"]) == scores.strict("model", "rmse")
    low, high = scores.scores.overall("strict", "model", "rmse").interval
    assert (float(row["low"]), float(row["high"])) == (low, high)
    row = one(**strict, group_kind="all", lead="7200")
    assert float(row["value"]) == scores.strict_per_lead("model", "rmse")[1]
    row = one(**strict, group_kind="month", group="02")
    assert (
        float(row["value"])
        == scores.scores.overall("strict", "model", "rmse", Part("month", "02")).value
    )
    row = one(**strict, group_kind="difference", group="climatology", lead="all")
    less_climatology = Part("difference", "climatology")
    entry = scores.scores.overall("strict", "model", "rmse", less_climatology)
    assert float(row["value"]) == entry.value
    row = one(metric="skill", group="persistence", lead="all")
    assert float(row["value"]) == scores.skill("persistence").value
    missing = one(
        system="climatology", protocol="weather", metric="acc", group_kind="all", lead="all"
    )
    assert missing["value"] == ""


def test_maps_of_errors_are_a_cf_store_that_xarray_opens(evaluation, store, persisted, tmp_path):
    still, truth, _ = persisted
    dataset = error_dataset(evaluation, store, ("t2m",))
    assert dataset is not None
    uri = str(tmp_path / "fields.zarr")
    for _ in range(2):  # a second report replaces the first
        write_error_fields(uri, dataset)
    with xr.open_zarr(uri) as opened:
        error = (still - truth)[:, :, 0].astype(np.float64)
        found = opened["t2m_bias"].sel(system="persistence")
        assert found.dims == ("lead_time", "latitude", "longitude")
        np.testing.assert_allclose(found, error.mean(axis=0), atol=1e-4)
        rmse = opened["t2m_rmse"].sel(system="persistence")
        np.testing.assert_allclose(rmse, np.sqrt((error**2).mean(axis=0)), rtol=1e-4)
        assert rmse.attrs["units"] == "K"
        np.testing.assert_array_equal(opened["latitude"], store.coordinates["latitude"])
        assert list(opened["lead_time"].values) == [np.timedelta64(h, "h") for h in (1, 2, 3)]
        assert list(opened["system"].values) == ["model", "persistence", "climatology"]
        assert (opened["t2m_count"] == len(truth)).all()
        assert opened.attrs["Conventions"] == "CF-1.11"


def test_maps_of_errors_replace_only_maps_of_errors(evaluation, tmp_path):
    """The maps beside a page t2m.html are t2m.zarr, which is a usual name for a store."""
    dataset = error_dataset(evaluation, write_store(tmp_path / "t2m.zarr", weather()), ("t2m",))
    assert dataset is not None
    (tmp_path / "file.zarr").write_text("not a folder")
    (tmp_path / "other.zarr").mkdir()
    (tmp_path / "other.zarr" / "zarr.json").write_text('{"attributes": {}}')
    for name in ("t2m", "file", "other"):
        with pytest.raises(UsageError, match="something else is here") as raised:
            check_writable(str(tmp_path / f"{name}.html"))
        assert raised.value.where == str(tmp_path / f"{name}.zarr")
        with pytest.raises(UsageError, match="something else is here"):
            write_error_fields(str(tmp_path / f"{name}.zarr"), dataset)
    assert len(open_store(str(tmp_path / "t2m.zarr")).times) == len(weather())


@pytest.mark.parametrize("left", [("system",), ("system", "t2m_bias", "latitude")])
def test_maps_of_a_killed_evaluation_are_replaced(evaluation, store, tmp_path, left):
    dataset = error_dataset(evaluation, store, ("t2m",))
    assert dataset is not None
    uri = tmp_path / "fields.zarr"
    write_error_fields(str(uri), dataset)
    (uri / "zarr.json").unlink()
    for name in {path.name for path in uri.iterdir()} - {*left}:
        shutil.rmtree(uri / name)
    check_writable(str(tmp_path / "fields.html"))
    write_error_fields(str(uri), dataset)
    with xr.open_zarr(str(uri)) as opened:
        assert {"t2m_bias", "t2m_rmse"} <= opened.data_vars.keys()


def test_notes_give_the_shares_of_missing_pixels(tmp_path):
    values = weather()
    values[:, :3] = np.nan
    evaluation = run(write_store(tmp_path / "store.zarr", values), max_windows=6)
    assert "25.00% of the input pixels are missing" in evaluation.notes[0]
    assert "25.00% of the pixels to forecast are missing" in evaluation.notes[1]
    assert evaluation.fields is not None
    assert np.isnan(evaluation.fields.rmse_stchw[..., :3, :]).all()
    assert np.isfinite(evaluation.fields.rmse_stchw[..., 3:, :]).all()


def test_a_grid_that_is_too_large_for_maps_of_errors_is_scored_without_them(store, monkeypatch):
    monkeypatch.setattr("jobs.forecasts.scoring.evaluate.MOST_BYTES", 1000)
    evaluation = run(store, max_windows=3)
    assert evaluation.fields is None
    assert any(note.startswith("no maps of errors") for note in evaluation.notes)
    assert error_dataset(evaluation, store, ("t2m",)) is None
