"""Scores: golden values, cases worked by hand, missing pixels, and parts that add up."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Iterable
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gmg_model.errors import ConfigurationError
from gmg_model.metrics import PROTOCOLS, create_metrics, score

OPTIONS = {
    "strict": {"data_min": 0.0, "data_max": 1.0},
    "openstl": {},
    "weather": {"latitude": np.linspace(-80, 80, 10)},
    "radar": {"thresholds": (0.4, 0.6), "scales": (3,)},
    "srvp": {},
    "motionrnn": {"thresholds": (30, 50)},
    "ensemble": {},
    "detail": {},
    "perceptual": {
        "name": "tiny",
        "frame_features": lambda frames: [frames[:, :, ::2], frames.square()[:, :, :3, :3]],
        "clip_features": lambda clips: clips.mean(dim=(-2, -1)).flatten(1)[:, :2],
    },
}


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    """A forecast and its truth, (6, 3, 2, 10, 12), in [0, 1]."""
    generator = np.random.default_rng(11)
    true = generator.uniform(size=(6, 3, 2, 10, 12))
    return true + 0.2 * generator.normal(size=true.shape), true


def assert_same(first: dict, second: dict, rtol: float = 1e-12) -> None:
    assert first.keys() == second.keys()
    assert first
    for name in first:
        np.testing.assert_allclose(first[name], second[name], rtol=rtol, err_msg=name)


def test_openstl_gives_the_golden_values(shared: Path):
    arrays = np.load(shared / "fixtures" / "metrics.npz")
    golden = json.loads((shared / "fixtures" / "metrics.json").read_text())

    scores = score(arrays["pred"], arrays["true"], "openstl")

    assert_same(scores, golden, rtol=1e-9)


def test_tensors_score_as_arrays_do(pair):
    pred, true = pair
    assert_same(
        score(torch.from_numpy(pred).requires_grad_(), torch.from_numpy(true), "openstl"),
        score(pred, true, "openstl"),
    )


def forecast_for(protocol: str, pred: np.ndarray) -> np.ndarray:
    """The forecast as the protocol takes it: members (N, 4, T, C, H, W) for an ensemble."""
    if protocol != "ensemble":
        return pred
    noise = np.random.default_rng(5).normal(size=(len(pred), 4, *pred.shape[1:]))
    return pred[:, None] + 0.1 * noise


def accumulated(protocol: str, pred: np.ndarray, true: np.ndarray, parts: Iterable[Any]):
    """One accumulator a part, each sent to another process and back, merged in this order."""
    merged = create_metrics(protocol, **OPTIONS[protocol])
    climatology = np.full_like(true, 0.5)
    for part in parts:
        metrics = create_metrics(protocol, **OPTIONS[protocol])
        metrics.update(pred[part], true[part], climatology[part])
        merged.merge(pickle.loads(pickle.dumps(metrics)))
    return merged.result()


def flat(result: dict) -> dict:
    """Every number of a result under one name each."""
    curves = {
        f"{name} {kind}": curve[kind]
        for name, curve in result.get("curves", {}).items()
        for kind in ("positions", "overall", "per_lead")
    }
    return {**result["overall"], **{f"{k} by lead": v for k, v in result["per_lead"].items()}} | (
        curves
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_parts_merged_in_any_order_equal_one_pass(protocol, pair):
    pred, true = forecast_for(protocol, pair[0]), pair[1]
    whole = flat(accumulated(protocol, pred, true, [slice(0, 6)]))
    assert all(np.isfinite(value).all() for value in whole.values())
    for order in permutations((slice(0, 1), slice(1, 4), slice(4, 6))):
        assert_same(flat(accumulated(protocol, pred, true, order)), whole)
    generator = np.random.default_rng(3)
    for count in range(1, 7):
        parts = np.array_split(generator.permutation(6), count)
        assert_same(flat(accumulated(protocol, pred, true, parts)), whole)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_scores_of_a_lead_time_depend_on_its_frames_alone(protocol, pair):
    pred, true = forecast_for(protocol, pair[0]), pair[1]
    metrics = create_metrics(protocol, **OPTIONS[protocol])
    metrics.update(pred, true)

    per_lead = metrics.result()["per_lead"]

    for lead in range(3):
        alone = score(pred[..., [lead], :, :, :], true[:, [lead]], protocol, **OPTIONS[protocol])
        alone = {name: value for name, value in alone.items() if not name.startswith("fvd")}
        assert_same({name: values[lead] for name, values in per_lead.items()}, alone)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_without_any_batch_there_are_no_scores(protocol):
    metrics = create_metrics(protocol, **OPTIONS[protocol])
    assert metrics.result() == {"overall": {}, "per_lead": {}}


def test_the_overall_error_pools_lead_times_before_taking_the_root():
    true = np.zeros((1, 2, 1, 8, 8))
    pred = np.stack([np.full((1, 1, 8, 8), 3.0), np.full((1, 1, 8, 8), 4.0)], axis=1)
    metrics = create_metrics("strict")
    metrics.update(pred, true)

    result = metrics.result()

    assert result["per_lead"]["rmse"] == [3.0, 4.0]
    assert result["overall"]["rmse"] == pytest.approx(math.sqrt(12.5))


def test_strict_errors_by_hand():
    true = np.array([0.0, 2.0, 4.0, np.nan]).reshape(1, 1, 1, 2, 2)
    pred = np.array([1.0, 2.0, 1.0, 7.0]).reshape(1, 1, 1, 2, 2)

    scores = score(pred, true)

    assert scores["mse"] == pytest.approx(10 / 3)
    assert scores["rmse"] == pytest.approx(math.sqrt(10 / 3))
    assert scores["mae"] == pytest.approx(4 / 3)
    assert scores["bias"] == pytest.approx(-2 / 3)


def test_a_missing_pixel_removes_only_its_own_windows_from_the_similarity(pair):
    pred, true = (x[:1, :1, :1] for x in pair)
    holed = true.copy()
    holed[..., 0, 0] = np.nan  # only the first of 4 x 6 whole windows contains the corner

    scores = score(pred, holed, data_min=0, data_max=1)

    shifted = [
        score(pred[..., r : r + 7, c : c + 7], true[..., r : r + 7, c : c + 7], **OPTIONS["strict"])
        for r in range(4)
        for c in range(6)
    ]
    assert len(shifted) == 24
    assert scores["ssim"] == pytest.approx(np.mean([s["ssim"] for s in shifted[1:]]))
    everything = score(pred, true, data_min=0, data_max=1)["ssim"]
    assert everything == pytest.approx(np.mean([s["ssim"] for s in shifted]))


def test_a_forecast_that_is_nan_where_the_truth_exists_is_never_rewarded(pair):
    pred, true = pair
    broken = pred.copy()
    broken[0, 0, 0, 5, 5] = np.nan
    for protocol in ("strict", "openstl"):
        scores = score(broken, true, protocol)
        assert all(math.isnan(value) for name, value in scores.items() if "mse" in name)
    weather = score(broken, true, "weather", climatology=true * 0.9, **OPTIONS["weather"])
    assert math.isnan(weather["acc"])


def test_frames_without_any_observation_change_nothing(pair):
    pred, true = pair
    unseen = np.concatenate([true, np.full_like(true[:1], np.nan)])
    more = np.concatenate([pred, np.ones_like(pred[:1])])
    for protocol in ("strict", "weather", "radar"):
        options = OPTIONS[protocol]
        assert_same(
            score(more, unseen, protocol, **options), score(pred, true, protocol, **options)
        )


def test_similarity_does_not_depend_on_units(pair):
    pred, true = pair
    scaled = score(pred, true, data_min=0, data_max=1)
    kelvin = score(250 + 60 * pred, 250 + 60 * true, data_min=250, data_max=310)
    for name in ("ssim", "psnr"):
        assert kelvin[name] == pytest.approx(scaled[name], rel=1e-9)
    assert kelvin["rmse"] == pytest.approx(60 * scaled["rmse"])


def test_an_exact_forecast_has_similarity_one_and_a_finite_psnr(pair):
    scores = score(pair[1], pair[1], data_min=0, data_max=1)
    assert scores["ssim"] == pytest.approx(1.0)
    assert scores["psnr"] == pytest.approx(144.49, abs=0.01)


def test_psnr_is_the_mean_over_frames():
    true = np.zeros((2, 1, 1, 8, 8))
    pred = np.stack([np.full((1, 1, 8, 8), 0.1), np.full((1, 1, 8, 8), 0.01)])
    assert score(pred, true, data_min=0, data_max=1)["psnr"] == pytest.approx((20 + 40) / 2)


def test_frames_smaller_than_the_window_have_errors_but_no_similarity():
    scores = score(np.ones((1, 1, 1, 4, 9)), np.zeros((1, 1, 1, 4, 9)), data_min=0, data_max=1)
    assert scores["mse"] == 1.0
    assert math.isnan(scores["ssim"])


def test_openstl_has_only_errors_for_data_that_is_not_an_image(pair):
    scores = score(*pair, "openstl", image=False)
    assert {name.rsplit("_", 2)[0] for name in scores} == {"mse", "mae", "rmse"}
    assert scores["mse_pixel_sum"] == pytest.approx(scores["mse_spatial_norm"] * 2 * 10 * 12)


def test_rows_weigh_with_the_cosine_of_their_latitude():
    true = np.zeros((1, 1, 1, 2, 3))
    pred = np.stack([np.full(3, 1.0), np.full(3, 4.0)])[None, None, None]

    scores = score(pred, true, "weather", latitude=[0.0, 60.0])

    assert scores["rmse_latitude"] == pytest.approx(math.sqrt((1 * 1 + 0.5 * 16) / 1.5))
    assert scores["bias_latitude"] == pytest.approx((1 + 0.5 * 4) / 1.5)


def test_anomaly_correlation_by_hand():
    climatology = np.full((1, 1, 1, 1, 2), 10.0)
    true = climatology + np.array([1.0, 2.0])
    pred = climatology + np.array([2.0, 1.0])
    scores = score(pred, true, "weather", climatology, latitude=[0.0])
    assert scores["acc"] == pytest.approx(4 / 5)
    assert score(true, true, "weather", climatology, latitude=[0.0])["acc"] == pytest.approx(1.0)
    assert math.isnan(score(climatology, true, "weather", climatology, latitude=[0.0])["acc"])


def test_event_scores_by_hand():
    true = np.array([50.0, 50, 50, 0, 0, 0, 0, np.nan]).reshape(1, 1, 1, 2, 4)
    pred = np.array([50.0, 50, 0, 50, 0, 0, 0, 50]).reshape(1, 1, 1, 2, 4)

    scores = score(pred, true, "radar", thresholds=(40,))

    assert scores["csi_40"] == pytest.approx(2 / 4)
    assert scores["pod_40"] == pytest.approx(2 / 3)
    assert scores["far_40"] == pytest.approx(1 / 3)
    # 2 hits, 1 miss, 1 false alarm, 3 rejections: 2 (2*3 - 1*1) / (3*4 + 3*4)
    assert scores["hss_40"] == pytest.approx(10 / 24)


def from_table(hits: int, misses: int, false: int, rejected: int) -> tuple[np.ndarray, np.ndarray]:
    """A forecast and a truth of one frame with exactly these counts of events above 40."""
    forecast = [50.0] * hits + [0.0] * misses + [50.0] * false + [0.0] * rejected
    truth = [50.0] * (hits + misses) + [0.0] * (false + rejected)
    return tuple(np.array(values).reshape(1, 1, 1, 1, -1) for values in (forecast, truth))


@pytest.mark.parametrize(
    ("table", "csi", "pod", "far", "hss"),
    [
        # Finley's tornado forecasts of 1884 (Murphy 1996): 28 hits, 23 misses, 72 false alarms
        (
            (28, 23, 72, 2680),
            28 / 123,
            28 / 51,
            72 / 100,
            2 * (28 * 2680 - 23 * 72) / (51 * 2703 + 100 * 2752),
        ),
        ((5, 0, 0, 7), 1.0, 1.0, 0.0, 1.0),
        # no skill: forecast and event are independent
        ((1, 2, 3, 6), 1 / 6, 1 / 3, 3 / 4, 0.0),
        ((0, 4, 0, 4), 0.0, 0.0, math.nan, 0.0),
        ((0, 0, 4, 4), 0.0, math.nan, 1.0, 0.0),
        ((3, 0, 0, 0), 1.0, 1.0, 0.0, math.nan),
        ((0, 0, 0, 9), math.nan, math.nan, math.nan, math.nan),
    ],
)
def test_event_scores_of_tables_worked_by_hand(table, csi, pod, far, hss):
    scores = score(*from_table(*table), "radar", thresholds=(40,))
    expected = {"csi_40": csi, "pod_40": pod, "far_40": far, "hss_40": hss}
    assert scores.keys() == expected.keys()
    for name, value in expected.items():
        assert scores[name] == pytest.approx(value, nan_ok=True), name


def test_counts_are_pooled_over_frames_before_the_ratio():
    first, second = from_table(1, 0, 0, 3), from_table(0, 1, 1, 2)
    pred, true = (np.concatenate([a, b]) for a, b in zip(first, second, strict=True))
    assert score(pred, true, "radar", thresholds=(40,))["csi_40"] == pytest.approx(1 / 3)


def test_event_scores_of_nothing_are_undefined():
    scores = score(np.zeros((1, 1, 1, 8, 8)), np.zeros((1, 1, 1, 8, 8)), "radar", scales=(3,))
    assert scores
    assert all(math.isnan(value) for value in scores.values())


def test_the_fractions_skill_score_forgives_a_displacement_below_its_scale():
    true = np.zeros((1, 1, 1, 9, 9))
    true[..., 4, 4] = 50
    pred = np.roll(true, 1, axis=-1)

    scores = score(pred, true, "radar", thresholds=(40,), scales=(1, 3, 5))

    assert scores["fss_40_1px"] == pytest.approx(0.0)
    # Of 3 + 3 squares with the event (x 3 rows) two columns agree: 1 - 2*3 / (2*3*3)
    assert scores["fss_40_3px"] == pytest.approx(1 - 6 / 18)
    assert scores["fss_40_3px"] < scores["fss_40_5px"] < 1


@pytest.fixture(scope="module")
def showers() -> tuple[np.ndarray, np.ndarray]:
    """Smooth fields that cross 30 and 40 dBZ, (2, 1, 1, 48, 40), up to the rim of the grid."""
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(8).normal(size=(2, 2, 1, 1, 48, 40))
    fields = gaussian_filter(noise, (0, 0, 0, 0, 3, 3))
    pred, true = 30 + 10 * fields / fields.std()
    return pred, true


@pytest.mark.parametrize("scale", [1, 3, 7, 15])
@pytest.mark.parametrize("threshold", [30, 40])
def test_the_padded_fractions_skill_score_is_that_of_pysteps(showers, scale, threshold):
    spatialscores = pytest.importorskip("pysteps.verification.spatialscores")
    pred, true = showers
    peer = spatialscores.fss_init(threshold, scale)
    for n in range(2):
        spatialscores.fss_accum(peer, pred[n, 0, 0], true[n, 0, 0])

    scores = score(pred, true, "radar", thresholds=(threshold,), scales=(scale,), edges="pad0")

    found = scores[f"fss_{threshold}_{scale}px_pad0"]
    assert found == pytest.approx(spatialscores.fss_compute(peer), rel=1e-12)
    assert 0 < found < 1


@pytest.mark.parametrize("scale", [3, 7])
def test_both_edges_agree_where_the_rim_is_empty(showers, scale):
    pred, true = (values.copy() for values in showers)
    rim = np.ones((48, 40), dtype=bool)
    rim[scale - 1 : 1 - scale, scale - 1 : 1 - scale] = False
    pred[..., rim] = true[..., rim] = 0.0
    found = [
        score(pred, true, "radar", thresholds=(30,), scales=(scale,), edges=edges)
        for edges in ("whole", "pad0")
    ]
    assert found[0][f"fss_30_{scale}px"] == pytest.approx(found[1][f"fss_30_{scale}px_pad0"])
    beyond = [
        score(*showers, "radar", thresholds=(30,), scales=(scale,), edges=edges)
        for edges in ("whole", "pad0")
    ]
    assert beyond[0][f"fss_30_{scale}px"] != pytest.approx(beyond[1][f"fss_30_{scale}px_pad0"])


def test_an_unknown_protocol_raises_and_names_the_nearest_one():
    with pytest.raises(ValueError, match="did you mean 'openstl'"):
        create_metrics("openslt")


def test_scores_with_different_options_cannot_be_merged(pair):
    ranges = [create_metrics("strict", data_min=0, data_max=top) for top in (1, 2)]
    with pytest.raises(ValueError, match="one set of options"):
        ranges[0].merge(ranges[1])
    with pytest.raises(ValueError, match="OpenstlMetrics"):
        ranges[0].merge(create_metrics("openstl"))


def test_shapes_that_do_not_match_raise(pair):
    pred, true = pair
    with pytest.raises(ValueError, match=r"\(6, 2, 2, 10, 12\)"):
        score(pred[:, :2], true)
    metrics = create_metrics()
    metrics.update(pred, true)
    with pytest.raises(ValueError, match="2 lead times after batches of 3"):
        metrics.update(pred[:, :2], true[:, :2])


@pytest.mark.parametrize(
    ("protocol", "options", "message"),
    [
        ("weather", {}, "needs latitude="),
        ("radar", {"treshold": (30,)}, "did you mean 'thresholds'"),
        ("detail", {"latitude": [0.0]}, "known: region"),
    ],
)
def test_a_missing_or_unknown_option_of_a_protocol_is_named(
    protocol: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        create_metrics(protocol, **options)
