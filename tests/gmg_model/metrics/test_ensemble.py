"""Scores of ensembles, against double sums over members and cases with a known answer."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gmg_model.metrics import create_metrics, score


@pytest.fixture
def members_and_truth() -> tuple[np.ndarray, np.ndarray]:
    """An ensemble (3, 5, 2, 1, 4, 6) and its truth (3, 2, 1, 4, 6)."""
    generator = np.random.default_rng(4)
    return generator.normal(size=(3, 5, 2, 1, 4, 6)), generator.normal(size=(3, 2, 1, 4, 6))


def fair_crps(members: list[float], truth: float) -> float:
    """The definition, as a double sum over members."""
    count = len(members)
    near = sum(abs(x - truth) for x in members) / count
    apart = sum(abs(x - y) for x in members for y in members)
    return near - apart / (2 * count * (count - 1))


def test_the_fair_crps_equals_the_double_sum_over_members(members_and_truth):
    members, truth = members_and_truth
    expected = np.mean(
        [
            fair_crps([float(members[n, m][place]) for m in range(5)], float(truth[n][place]))
            for n in range(3)
            for place in np.ndindex(truth.shape[1:])
        ]
    )
    assert score(members, truth, "ensemble")["crps_fair"] == pytest.approx(expected, rel=1e-12)


def test_spread_and_error_by_hand():
    members = np.array([1.0, 3.0, 0.0, 4.0]).reshape(1, 2, 1, 1, 1, 2, order="F")
    assert members[0, :, 0, 0, 0, 0].tolist() == [1.0, 3.0]
    truth = np.array([2.0, 5.0]).reshape(1, 1, 1, 1, 2)
    scores = score(members, truth, "ensemble")
    # means 2 and 2, errors 0 and -3; variances (M - 1 below) 2 and 8
    assert scores["rmse_ensemble_mean"] == pytest.approx(math.sqrt(9 / 2))
    assert scores["spread"] == pytest.approx(math.sqrt(10 / 2))
    assert scores["spread_skill"] == pytest.approx(math.sqrt(1.5) * math.sqrt(10 / 9))
    # |1-2|+|3-2| over 2 less |1-3| over 2; |0-5|+|4-5| over 2 less 4 over 2
    assert scores["crps_fair"] == pytest.approx(((1 - 1) + (3 - 2)) / 2)


def test_members_like_the_truth_have_a_flat_histogram_and_a_ratio_of_one():
    generator = np.random.default_rng(9)
    drawn = generator.normal(size=(8, 5, 1, 1, 64, 64))
    metrics = create_metrics("ensemble")
    metrics.update(drawn[:, :4], drawn[:, 4])
    result = metrics.result()
    histogram = result["curves"]["rank_histogram"]
    assert histogram["positions"] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert histogram["overall"] == pytest.approx([0.2] * 5, abs=0.01)
    assert histogram["per_lead"] == [histogram["overall"]]
    assert result["overall"]["spread_skill"] == pytest.approx(1.0, abs=0.02)
    # the expected fair CRPS of a normal truth and normal members: 1 / sqrt(pi)
    assert result["overall"]["crps_fair"] == pytest.approx(1 / math.sqrt(math.pi), abs=0.01)

    metrics = create_metrics("ensemble")
    metrics.update(0.3 * drawn[:, :4], drawn[:, 4])
    sure = metrics.result()
    assert sure["overall"]["spread_skill"] < 0.5
    shares = sure["curves"]["rank_histogram"]["overall"]
    assert min(shares[0], shares[4]) > 2 * max(shares[1:4])


def test_ranks_count_members_below_and_share_ties_in_equal_parts():
    members = np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 5.0], [4.0, 4.0, 4.0]]).T
    truth = np.array([2.5, 0.0, 4.0])
    metrics = create_metrics("ensemble")
    metrics.update(members.reshape(1, 3, 1, 1, 1, 3), truth.reshape(1, 1, 1, 1, 3))
    shares = np.array(metrics.result()["curves"]["rank_histogram"]["overall"])
    # two below; none below and two equal; none below and three equal
    by_hand = np.array([0, 0, 1, 0]) + np.array([1, 1, 1, 0]) / 3 + np.array([1, 1, 1, 1]) / 4
    np.testing.assert_allclose(shares, by_hand / 3, rtol=1e-12)


def test_missing_truth_is_left_out_and_a_nan_member_makes_the_scores_nan(members_and_truth):
    members, truth = members_and_truth
    holed, other = truth.copy(), members.copy()
    holed[1] = np.nan
    other[1] = np.nan
    kept = [0, 2]
    expected = score(members[kept], truth[kept], "ensemble")
    for ensemble in (members, other):
        found = score(ensemble, holed, "ensemble")
        assert found == pytest.approx(expected, rel=1e-12)
    members[0, 2, 1, 0, 3, 3] = np.nan
    metrics = create_metrics("ensemble")
    metrics.update(members, truth)
    result = metrics.result()
    assert all(math.isnan(value) for value in result["overall"].values())
    assert np.isnan(result["curves"]["rank_histogram"]["per_lead"][1]).all()
    assert np.isfinite(result["curves"]["rank_histogram"]["per_lead"][0]).all()


def test_shapes_that_are_not_an_ensemble_raise(members_and_truth):
    members, truth = members_and_truth
    with pytest.raises(ValueError, match=r"\(N, M, T, C, H, W\)"):
        score(truth, truth, "ensemble")
    with pytest.raises(ValueError, match="at least 2 members"):
        score(members[:, :1], truth, "ensemble")
    metrics = create_metrics("ensemble")
    metrics.update(members, truth)
    with pytest.raises(ValueError, match="ensembles of one size"):
        metrics.update(members[:, :4], truth)


def test_scores_of_event_probabilities_follow_their_definition():
    rng = np.random.default_rng(8)
    members, truth = rng.normal(size=(3, 4, 2, 1, 6, 7)), rng.normal(size=(3, 2, 1, 6, 7))
    truth[0, 0, 0, :2] = np.nan
    metrics = create_metrics("ensemble", thresholds=(0.25,))
    metrics.update(members, truth)
    result = metrics.result()
    seen = ~np.isnan(truth)
    probability, event = (members >= 0.25).mean(axis=1)[seen], (truth >= 0.25)[seen]

    overall, curves = result["overall"], result["curves"]

    assert overall["brier_0.25"] == pytest.approx(((probability - event) ** 2).mean(), rel=1e-12)
    parts = [overall[f"brier_{x}_0.25"] for x in ("reliability", "resolution", "uncertainty")]
    assert overall["brier_0.25"] == pytest.approx(parts[0] - parts[1] + parts[2], rel=1e-12)
    assert curves["reliability_0.25"]["positions"] == [0, 0.25, 0.5, 0.75, 1]
    for place, share in enumerate((0, 0.25, 0.5, 0.75, 1)):
        forecast = probability == share
        assert curves["forecast_share_0.25"]["overall"][place] == pytest.approx(forecast.mean())
        assert curves["reliability_0.25"]["overall"][place] == pytest.approx(event[forecast].mean())


def test_a_member_that_is_nan_does_not_count_as_a_forecast_of_no_event():
    members, truth = np.zeros((1, 3, 1, 1, 2, 2)), np.zeros((1, 1, 1, 2, 2))
    members[0, 1, 0, 0, 0, 0] = np.nan
    metrics = create_metrics("ensemble", thresholds=(1,))
    metrics.update(members, truth)
    result = metrics.result()
    assert math.isnan(result["overall"]["brier_1"])
    assert np.isnan(result["curves"]["forecast_share_1"]["overall"]).all()
