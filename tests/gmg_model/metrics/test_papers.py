"""Scores under the conventions of SRVP's and MotionRNN's tables, against sums written out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gmg_model.errors import ConfigurationError
from gmg_model.metrics import score
from gmg_model.metrics.srvp import SrvpMetrics, published_ssim


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    """A forecast that leaves [0, 1] and a truth of whole grey levels, (8, 2, 2, 9, 10)."""
    generator = np.random.default_rng(2)
    true = generator.integers(0, 256, size=(8, 2, 2, 9, 10)) / 255
    return true + 0.2 * generator.normal(size=true.shape), true


def similarity(first: np.ndarray, second: np.ndarray, data_range: float = 255.0) -> float:
    """SSIM of one window, from its definition."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    covariance = np.cov(first.ravel(), second.ravel())
    means = first.mean(), second.mean()
    top = (2 * means[0] * means[1] + c1) * (2 * covariance[0, 1] + c2)
    return top / ((means[0] ** 2 + means[1] ** 2 + c1) * (covariance[0, 0] + covariance[1, 1] + c2))


def mean_similarity(pred: np.ndarray, true: np.ndarray) -> float:
    """Mean over all whole 7 x 7 windows of frames (..., 9, 10), data range 255."""
    frames = [x.reshape(-1, 9, 10) for x in (pred, true)]
    return float(
        np.mean(
            [
                similarity(*(x[n, r : r + 7, c : c + 7] for x in frames))
                for n in range(len(frames[0]))
                for r in range(3)
                for c in range(4)
            ]
        )
    )


def test_srvp_scores_whole_grey_levels_by_hand():
    true = np.array([0.0, 10.0, 250.0, 255.0]).reshape(1, 1, 1, 2, 2) / 255
    pred = np.array([0.4, 11.6, 249.5, 300.0]).reshape(1, 1, 1, 2, 2) / 255
    scores = score(pred, true, "srvp")  # levels 0, 12, 250 (half to even) and 255
    assert scores["mse_uint8_rounded"] == pytest.approx(4 / 4)
    assert scores["mae_uint8_rounded"] == pytest.approx(2 / 4)
    assert scores["psnr_uint8_rounded_pooled_range255"] == pytest.approx(20 * math.log10(255))
    faint = score(np.clip(pred, 0.1, 0.9), true, "srvp")  # from level 26 (25.5) to 230 (229.5)
    assert faint["psnr_uint8_rounded_pooled_range_forecast"] == pytest.approx(
        10 * math.log10(204**2 / faint["mse_uint8_rounded"])
    )


def test_srvp_pools_the_error_of_a_lead_time_and_averages_decibels_over_lead_times(pair):
    pred, true = pair
    levels = np.rint(np.clip(pred, 0, 1) * 255)
    mse = ((levels - np.rint(true * 255)) ** 2).mean(axis=(0, 2, 3, 4))

    scores = score(pred, true, "srvp")

    assert scores["mse_uint8_rounded"] == pytest.approx(mse.mean())
    decibels = 10 * np.log10(255**2 / mse)
    assert scores["psnr_uint8_rounded_pooled_range255"] == pytest.approx(decibels.mean())
    assert decibels.mean() != pytest.approx(10 * math.log10(255**2 / mse.mean()), abs=1e-6)
    expected = mean_similarity(levels, np.rint(true * 255))
    assert scores["ssim_uint8_rounded_uniform7_range255"] == pytest.approx(expected)


def test_the_published_decibels_follow_from_the_published_errors():
    # Horizons 1 and 10 of the score table that SRVP's authors publish with their code: forecasts
    # span all levels at first and 251 of them at last.
    for mse, span, decibel in (
        (433.37439516601563, 255, 21.762171123211267),
        (1350.2421555664062, 251, 16.68935780100213),
    ):
        levels = np.zeros((1, 256))
        levels[0, [2, 2 + span] if span < 255 else [0, 255]] = 1
        sums = {"pixels": np.ones(1), "squared": np.array([mse]), "levels": levels}
        sums |= {name: np.ones(1) for name in ("absolute", "ssim", "windows")}
        found = SrvpMetrics().scores(sums)["psnr_uint8_rounded_pooled_range_forecast"]
        assert found == pytest.approx(decibel, abs=1e-9)


def test_srvp_scores_do_not_depend_on_the_units(pair):
    pred, true = pair
    kelvin = score(250 + 50 * pred, 250 + 50 * true, "srvp", data_min=250, data_max=300)
    for name, value in score(pred, true, "srvp").items():
        assert kelvin[name] == pytest.approx(value, rel=1e-9)


def test_the_published_similarity_of_srvp_covers_seven_sequences(pair):
    pred, true = pair
    levels, levels_true = (np.rint(np.clip(x, 0, 1) * 255) for x in pair)
    cubes = [
        similarity(
            levels[n : n + 7, 1, c, row : row + 7, column : column + 7],
            levels_true[n : n + 7, 1, c, row : row + 7, column : column + 7],
        )
        for n in range(2)
        for c in range(2)
        for row in range(3)
        for column in range(4)
    ]
    published = published_ssim(pred, true)
    assert published[1] == pytest.approx(np.mean(cubes))
    other_order = [4, 1, 2, 3, 0, 5, 6, 7]
    assert published_ssim(pred[other_order], true[other_order]) != pytest.approx(published)
    with pytest.raises(ValueError, match="at least 7 sequences"):
        published_ssim(pred[:6], true[:6])


def test_the_published_similarity_does_not_depend_on_the_block_size(pair, monkeypatch):
    whole = published_ssim(*pair)
    monkeypatch.setattr("gmg_model.metrics.images.SEQUENCES_AT_ONCE", 1)
    assert published_ssim(*pair) == pytest.approx(whole, rel=1e-12)


def test_motionrnn_sums_over_the_pixels_of_clipped_frames(pair):
    pred, true = pair
    clipped = np.clip(pred, 0, 1)
    levels, levels_true = np.floor(clipped * 255 + 1e-4), np.rint(true * 255)

    scores = score(pred, true, "motionrnn")

    axes = (2, 3, 4)
    assert scores["mse_pixel_sum_clipped"] == pytest.approx(
        ((clipped - true) ** 2).sum(axis=axes).mean()
    )
    assert scores["mae_pixel_sum_clipped"] == pytest.approx(
        np.abs(clipped - true).sum(axis=axes).mean()
    )
    decibel = 10 * np.log10(255**2 / ((levels - levels_true) ** 2).mean(axis=axes))
    assert scores["psnr_uint8_truncated_frame_mean"] == pytest.approx(decibel.mean())
    assert scores["ssim_uint8_truncated_uniform7_range255"] == pytest.approx(
        mean_similarity(levels, levels_true)
    )
    rounded = score(pred, true, "srvp")
    assert rounded["ssim_uint8_rounded_uniform7_range255"] != pytest.approx(
        scores["ssim_uint8_truncated_uniform7_range255"], abs=1e-6
    )


def test_motionrnn_gradient_differences_by_hand():
    true = np.array([[0.0, 1.0], [0.0, 0.5]]).reshape(1, 1, 1, 2, 2)
    pred = np.array([[0.0, 0.5], [0.0, 0.0]]).reshape(1, 1, 1, 2, 2)
    scores = score(pred, true, "motionrnn")
    # down: |0 - 0|, |0.5 - 0.5|; along: |1 - 0.5|, |0.5 - 0|
    assert scores["gdl1_pixel_sum_clipped"] == pytest.approx(1.0)
    assert scores["gdl2_pixel_sum_clipped"] == pytest.approx(0.5)


def test_motionrnn_truncates_grey_levels_but_keeps_levels_stored_as_float32():
    true = np.arange(256, dtype=np.float32).reshape(1, 1, 1, 16, 16) / np.float32(255)
    scores = score(true, true.astype(np.float64), "motionrnn")
    assert scores["psnr_uint8_truncated_frame_mean"] == math.inf
    scores = score(true + 0.9 / 255, true, "motionrnn")
    assert scores["psnr_uint8_truncated_frame_mean"] == math.inf


def test_motionrnn_events_begin_at_twice_the_threshold_less_thirty():
    levels = np.array([49.0, 50.0, 69.0, 70.0]).reshape(1, 1, 1, 2, 2)
    pred = np.array([50.0, 50.9, 70.0, 69.9]).reshape(1, 1, 1, 2, 2)
    scores = score(pred / 255, levels / 255, "motionrnn", thresholds=(40, 50))
    assert scores["csi_40_motionrnn"] == pytest.approx(3 / 4)
    assert scores["csi_50_motionrnn"] == pytest.approx(0 / 2)
    assert scores["far_50_motionrnn"] == pytest.approx(1.0)


def test_a_missing_pixel_makes_the_papers_scores_nan(pair):
    pred, true = pair
    true[0, 0, 0, 4, 4] = np.nan
    for protocol, options in (
        ("openstl", {}),
        ("srvp", {}),
        ("motionrnn", {"thresholds": (30,)}),
    ):
        assert all(math.isnan(value) for value in score(pred, true, protocol, **options).values())


@pytest.mark.parametrize(
    ("dbz_range", "levels"), [((-10.0, 85.0), (107, 134, 161)), ((0.0, 70.0), (109, 146, 182))]
)
def test_radar_conventions_convert_the_threshold_as_their_name_says(dbz_range, levels):
    low, high = dbz_range
    grey = np.arange(256.0).reshape(1, 1, 1, 16, 16)
    true = (low + grey * (high - low) / 255).astype(np.float32)
    black = np.full_like(true, low)

    def events(least: float) -> float:
        return float((grey >= least).sum())

    conventions = ("dbz", "pixel", "motionrnn")
    options = {"conventions": conventions, "dbz_range": dbz_range}
    scores = score(true, true, "radar", **options)
    named = {name for name in scores if name.startswith("csi")}
    assert named == {
        *(f"csi_{dbz}_dbz" for dbz in (30, 40, 50)),
        *(f"csi_{level}_pixel" for level in levels),
        *(f"csi_{dbz}_motionrnn" for dbz in (30, 40, 50)),
    }
    assert all(scores[name] == 1.0 for name in named)

    # A forecast that is right only from level 120 on is right in a share that tells the threshold.
    partly = score(np.where(grey >= 120, true, black), true, "radar", **options)
    for dbz, level in zip((30, 40, 50), levels, strict=True):
        exact = (dbz - low) * 255 / (high - low)
        assert partly[f"pod_{dbz}_dbz"] == pytest.approx(events(max(120, exact)) / events(exact))
        assert partly[f"pod_{level}_pixel"] == pytest.approx(
            events(max(120, level)) / events(level)
        )
        theirs = 2 * dbz - 30
        assert partly[f"pod_{dbz}_motionrnn"] == pytest.approx(events(120) / events(theirs))


def test_grey_level_conventions_need_the_scale():
    frames = np.zeros((1, 1, 1, 8, 8))
    with pytest.raises(ConfigurationError, match="dbz_range"):
        score(frames, frames, "radar", conventions=("pixel",))
    with pytest.raises(ConfigurationError, match="did you mean 'pixel'"):
        score(frames, frames, "radar", conventions=("pixels",))
    with pytest.raises(ConfigurationError, match="must exceed"):
        score(frames, frames, "srvp", data_min=1.0, data_max=0.0)
