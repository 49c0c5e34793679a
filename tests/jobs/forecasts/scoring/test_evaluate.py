"""Scores of a model and its baselines: which windows are compared, and in which units."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from gmg_model.metrics import score
from jobs.forecasts.forecasters.baselines import persistence
from jobs.forecasts.forecasters.model_forecast import forecast_with
from jobs.forecasts.scoring.evaluate import evenly_spaced
from jobs.forecasts.scoring.scores import Evaluation
from pipelines.errors import StoreError, UsageError
from pipelines.inputs.climatology import climatology
from pipelines.inputs.normalisation import Normalisation
from pipelines.stores.store import Store
from pipelines.stream.windows import WindowSpec, split_starts
from tests.jobs.forecasts.running import evaluate
from tests.jobs.forecasts.stores import SPLITS, weather

WINDOW = WindowSpec(4, 3)


def run(store: Store, forecast=persistence, window=WINDOW, kind="standardise", **options):
    variables = tuple(store.variables)
    normalisation = Normalisation.from_store(store, variables, kind)
    return evaluate(
        store, forecast, variables=variables, window=window, normalisation=normalisation, **options
    )


def frames(store: Store, starts: np.ndarray, offsets: range) -> np.ndarray:
    """Return (B, T, C, H, W) directly from the arrays of the store."""
    (name,) = store.variables
    values = store.array(name)[:]
    values = values.reshape(len(values), -1, *values.shape[-2:])
    return np.stack([values[start + np.array(offsets)] for start in starts])


class Drift(nn.Module):
    """The last frame, moved by one pixel per step and damped by a parameter."""

    def __init__(self):
        super().__init__()
        self.damping = nn.Parameter(torch.tensor(0.9))

    def forward(self, frames_btchw: torch.Tensor, horizon: int) -> torch.Tensor:
        last = frames_btchw[:, -1]
        steps = [torch.roll(last, lead, dims=-1) * self.damping**lead for lead in range(horizon)]
        return torch.stack(steps, dim=1)


@pytest.mark.parametrize("kind", ["standardise", "minmax"])
def test_a_model_that_repeats_the_last_frame_has_the_scores_of_persistence(make_store, kind):
    (scores,) = run(make_store(), persistence, kind=kind).scores
    assert scores.strict("model", "rmse") > 0
    assert {"strict", "openstl", "weather"} <= set(scores.protocols)
    for by_forecast in scores.as_dict()["protocols"].values():
        assert by_forecast["model"] == by_forecast["persistence"]
    assert scores.skill("persistence").value == 0.0
    assert scores.skill_per_lead("persistence").values == [0.0, 0.0, 0.0]


def test_the_scores_are_those_of_the_frames_in_the_store(make_store):
    store = make_store()
    starts = split_starts(store, "test", WINDOW)
    truth = frames(store, starts, range(4, 7))
    inputs = frames(store, starts, range(4))
    mean, std = (store.statistics["variables"]["t2m"][key] for key in ("mean", "std"))

    evaluation = run(store, forecast_with(Drift()))

    rolled = [np.roll((inputs[:, -1] - mean) / std, lead, -1) * 0.9**lead for lead in range(3)]
    expected = score(np.stack(rolled, 1) * std + mean, truth)
    (scores,) = evaluation.scores
    for name in ("rmse", "mae"):
        assert scores.strict("model", name) == pytest.approx(expected[name], rel=1e-5)
    still = score(np.repeat(inputs[:, -1:], 3, axis=1), truth)
    assert scores.strict("persistence", "rmse") == pytest.approx(still["rmse"], rel=1e-5)
    times = store.times[starts[:, None] + np.arange(4, 7)]
    typical = climatology(store, ("t2m",)).at(times.ravel()).reshape(truth.shape)
    assert scores.strict("climatology", "rmse") == pytest.approx(
        score(typical, truth)["rmse"], rel=1e-5
    )


def test_scores_do_not_depend_on_the_batch_size(make_store):
    store = make_store()
    first, second = (run(store, batch_size=size).scores[0].as_dict() for size in (1, 50))
    assert json.dumps(first) == json.dumps(second)


def test_an_exact_forecast_has_skill_one_and_no_error(make_store):
    # Every day is the same, so that a window of a day holds the frames to forecast in its input.
    store = make_store(np.tile(weather()[:24], (30, 1, 1)))
    window = WindowSpec(24, 3)

    (scores,) = run(store, lambda seen, horizon: seen[:, :horizon], window=window).scores

    assert scores.strict("model", "rmse") < 1e-4 < scores.strict("persistence", "rmse")
    assert scores.skill("persistence").value == pytest.approx(1.0, abs=1e-6)
    assert scores.strict("climatology", "rmse") < 1e-4


def test_frames_of_the_test_period_do_not_reach_the_climatology(make_store):
    values = weather()
    altered = values.copy()
    test = 24 * 22  # hours before the test period
    altered[test:] = altered[test:] * 1.1 + 7
    times = np.datetime64("2019-01-23", "ns") + np.arange(48) * np.timedelta64(1, "h")

    before, after = (
        climatology(make_store(v, name=f"{i}.zarr"), ("t2m",)).at(times)
        for i, v in enumerate((values, altered))
    )

    np.testing.assert_array_equal(before, after)
    altered[:test] += 7
    moved = climatology(make_store(altered, name="moved.zarr"), ("t2m",)).at(times)
    assert not np.allclose(before, moved)


def test_an_error_about_a_split_that_the_statistics_have_seen_names_both_periods(make_store):
    seen = ("2019-01-01T00:00:00", "2019-01-23T00:00:00")
    store = make_store(statistics_period=seen)
    with pytest.raises(StoreError) as raised:
        run(store)
    assert raised.value.exit_code == 4
    assert " to ".join(seen) in str(raised.value)
    assert " to ".join(SPLITS["test"]) in str(raised.value)


def test_the_train_split_cannot_be_scored(make_store):
    with pytest.raises(StoreError, match="would not be honest"):
        run(make_store(), split="train")


def test_an_error_about_an_unknown_split_names_the_nearest_one(make_store):
    with pytest.raises(UsageError, match="did you mean 'test'"):
        run(make_store(), split="tset")


def test_every_window_begins_inside_its_split(make_store):
    store = make_store()
    evaluation = run(store)
    first = np.datetime64(SPLITS["test"][0])
    starts = split_starts(store, "test", WINDOW)
    assert (store.times[starts] >= first).all()
    assert evaluation.windows_scored == len(starts) == 8 * 24 - 6
    assert all(example.valid_times[0] >= first for example in evaluation.examples)


def test_max_windows_are_spread_evenly_over_the_split(make_store):
    evaluation = run(make_store(), max_windows=5)
    assert (evaluation.windows_scored, evaluation.windows_available) == (5, 186)
    np.testing.assert_array_equal(evenly_spaced(np.arange(186), 5), [0, 46, 92, 139, 185])


def test_lead_times_follow_the_cadence_and_the_stride(make_store):
    assert run(make_store(), window=WindowSpec(2, 3, stride=2)).lead_seconds == (7200, 14400, 21600)


def test_strided_windows_are_scored_at_their_own_valid_times(make_store):
    store = make_store()
    evaluation = run(store, window=WindowSpec(2, 3, stride=6))
    for example in evaluation.examples:
        (index,) = np.flatnonzero(store.times == example.valid_times[0])
        expected = store.array("t2m")[:][index + 6 * np.arange(3)][:, None]
        np.testing.assert_array_equal(example.truth_tchw, expected)
        assert (np.diff(example.valid_times) == np.timedelta64(6, "h")).all()


def test_the_examples_are_the_best_the_median_and_the_worst_window(make_store):
    store = make_store()
    evaluation: Evaluation = run(store)
    starts = split_starts(store, "test", WINDOW)
    truth = frames(store, starts, range(4, 7))
    error = truth - frames(store, starts, range(3, 4))
    std = store.statistics["variables"]["t2m"]["std"]
    rmse = np.sort(np.sqrt((error**2).mean(axis=(1, 2, 3, 4)))) / std

    found = {example.rank: example.rmse for example in evaluation.examples}

    assert list(found) == ["best", "median", "worst"]
    assert found["best"] == pytest.approx(rmse[0], rel=1e-4)
    assert found["median"] == pytest.approx(rmse[(len(rmse) - 1) // 2], rel=1e-4)
    assert found["worst"] == pytest.approx(rmse[-1], rel=1e-4)
    for example in evaluation.examples:
        own = np.sqrt(((example.forecast_tchw - example.truth_tchw) ** 2).mean()) / std
        assert example.rmse == pytest.approx(float(own), rel=1e-4)


def test_without_a_climatology_the_evaluation_says_why_and_goes_on(make_store):
    splits = {
        "train": ("2019-01-01T00:00:00", "2019-01-08T00:00:00"),
        "test": ("2019-01-08T01:00:00", "2019-01-09T00:00:00"),
    }
    evaluation = run(make_store(splits=splits, cadence_seconds=2580))
    assert evaluation.climatology.startswith("none: a cadence of 2580 s")
    (scores,) = evaluation.scores
    assert scores.forecasts == ("model", "persistence")
    assert evaluation.as_dict()["variables"]["t2m"]["skill"].keys() == {"persistence"}


def test_pixels_missing_in_the_truth_are_left_out_for_every_forecast(make_store):
    values = weather()
    values[:, :3] = np.nan
    whole, holed = make_store(), make_store(values, name="holed.zarr")

    (scores,) = run(holed).scores

    starts = split_starts(whole, "test", WINDOW)
    truth, last = (frames(whole, starts, r)[..., 3:, :] for r in (range(4, 7), range(3, 4)))
    expected = math.sqrt(((truth - last) ** 2).mean(dtype=np.float64))
    assert scores.strict("persistence", "rmse") == pytest.approx(expected, rel=1e-5)
    assert all(math.isfinite(scores.strict(name, "rmse")) for name in scores.forecasts)


def test_channels_of_one_quantity_are_scored_together_on_the_scale_of_the_tables(make_store):
    flow = np.stack([weather(1), weather(2)[:, ::-1]], axis=1) - 250
    store = make_store(flow)
    starts = split_starts(store, "test", WINDOW)
    low, high = (store.statistics["variables"]["flow"][key] for key in ("min", "max"))
    truth, last = (
        (frames(store, starts, r) - low) / (high - low) for r in (range(4, 7), range(3, 4))
    )

    evaluation = run(store, kind="minmax")

    (scores,) = evaluation.scores
    assert scores.label == "flow"
    found = scores.scores.means("openstl", "persistence")
    expected = score(np.repeat(last, 3, axis=1), truth, "openstl")
    for name in ("mse_pixel_sum", "ssim_uniform7_range2_clipped", "psnr_frame_mean_clipped"):
        assert found[name] == pytest.approx(expected[name], rel=1e-5)
    assert "weather" not in scores.protocols


def test_reflectivity_is_also_scored_by_events(make_store):
    store = make_store(weather() - 240, units="dBZ")
    starts = split_starts(store, "test", WINDOW)
    truth, last = (frames(store, starts, r) for r in (range(4, 7), range(3, 4)))
    expected = score(np.repeat(last, 3, axis=1), truth, "radar", scales=(5,))

    (scores,) = run(store).scores

    found = scores.scores.means("radar", "persistence")
    assert found["csi_40"] == pytest.approx(expected["csi_40"], rel=1e-4)
    assert 0 < found["csi_40"] < 1
    assert found.keys() == expected.keys()


def test_data_of_eight_bit_images_have_the_protocols_of_the_papers(make_store):
    grey = np.clip(np.rint((weather() - 240) * 4), 0, 255)
    store = make_store((grey * 95 / 255 - 10), units="dBZ", grey_level_values=[-10.0, 85.0])
    starts = split_starts(store, "test", WINDOW)
    truth, last = (frames(store, starts, r) for r in (range(4, 7), range(3, 4)))
    forecast = np.repeat(last, 3, axis=1)

    (scores,) = run(store).scores

    span = {"data_min": -10.0, "data_max": 85.0}
    events = {"conventions": ("dbz", "pixel", "motionrnn"), "dbz_range": (-10.0, 85.0)}
    for protocol, options, telling in (
        ("radar", {"scales": (5,), **events}, ("csi_40_dbz", "csi_134_pixel", "csi_50_motionrnn")),
        ("motionrnn", {**span, "thresholds": (30, 40, 50)}, ("csi_50_motionrnn",)),
        ("srvp", span, ("mse_uint8_rounded", "ssim_uint8_rounded_uniform7_range255")),
        ("detail", {}, ("gdl", "power_ratio_finer_8px")),
    ):
        found = scores.scores.means(protocol, "persistence")
        expected = score(forecast, truth, protocol, **options)
        assert found.keys() == expected.keys()
        for name in telling:
            assert math.isfinite(found[name])
            assert found[name] == pytest.approx(expected[name], rel=1e-3), name


def test_nan_in_a_forecast_makes_its_scores_nan(make_store):
    def broken(seen: np.ndarray, horizon: int) -> np.ndarray:
        outputs = persistence(seen, horizon)
        outputs[:, 0, :, 0, 0] = np.nan
        return outputs

    (scores,) = run(make_store(), broken).scores
    assert math.isnan(scores.strict("model", "rmse"))
    assert math.isfinite(scores.strict("persistence", "rmse"))
