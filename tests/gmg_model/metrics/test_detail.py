"""Spectra, gradient differences and scores over features, against formulas and pysteps."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from gmg_model.errors import ConfigurationError
from gmg_model.metrics import create_metrics, score
from gmg_model.metrics.detail import ring_power
from gmg_model.metrics.perceptual import frechet_distance
from gmg_model.training.losses import create_loss


def wave(height: int, width: int, cycles: int, along: int) -> np.ndarray:
    """Return frames with a cosine of some cycles along the columns (-1) or down the rows (-2)."""
    size = (height, width)[along]
    line = np.cos(2 * np.pi * cycles * np.arange(size) / size)
    shape = (1, 1, 1, 1, size) if along == -1 else (1, 1, 1, size, 1)
    return np.broadcast_to(line.reshape(shape), (1, 1, 1, height, width)).copy()


@pytest.mark.parametrize(("height", "width"), [(32, 32), (16, 32), (32, 20), (15, 21)])
def test_a_wave_has_its_power_at_its_wavelength_on_any_grid(height, width):
    for along in (-1, -2):
        cycles = 4
        wavelength = (height, width)[along] / cycles
        metrics = create_metrics("detail")
        frame = wave(height, width, cycles, along)
        metrics.update(frame, frame)
        curve = metrics.result()["curves"]["power_truth"]
        assert (curve["label"], curve["units"]) == ("wavelength", "pixels")
        peak = curve["positions"][int(np.argmax(curve["overall"]))]
        longest = max(height, width)
        assert round(longest / peak) == round(longest / wavelength)
        assert curve["overall"] == curve["per_lead"][0]


@pytest.mark.parametrize(("height", "width"), [(32, 32), (31, 31)])
def test_the_spectrum_of_a_square_grid_equals_that_of_pysteps(height, width):
    spectral = pytest.importorskip("pysteps.utils.spectral")
    field = np.random.default_rng(0).normal(size=(height, width))
    peer, frequency = spectral.rapsd(field, fft_method=np.fft, return_freq=True)
    ours = ring_power(field)
    rings = len(peer) - 1  # pysteps begins with the mean, and stops before 1/2 cycle a pixel
    np.testing.assert_allclose(ours[:rings], peer[1:], rtol=1e-10)
    metrics = create_metrics("detail")
    metrics.update(field[None, None, None], field[None, None, None])
    positions = metrics.result()["curves"]["power_truth"]["positions"]
    np.testing.assert_allclose(1 / np.array(positions[:rings]), frequency[1:])


def test_rings_of_white_noise_hold_its_variance():
    noise = 3 * np.random.default_rng(1).normal(size=(40, 1, 1, 32, 48))
    assert ring_power(noise).mean(axis=(0, 1, 2)) == pytest.approx(np.full(24, 9.0), rel=0.15)


def test_blur_shows_in_the_power_of_fine_scales_and_in_the_gradients():
    true = np.random.default_rng(2).normal(size=(4, 2, 1, 32, 32))
    blurred = (true + np.roll(true, 1, -1) + np.roll(true, 1, -2)) / 3
    exact, blur = (score(pred, true, "detail") for pred in (true, blurred))
    assert exact.pop("frames_with_spectrum") == 1.0
    whole = {"gdl": 0.0, "power_ratio_finer_8px": 1.0, "area_with_spectrum": 1.0}
    assert exact == pytest.approx(whole)
    assert blur["power_ratio_finer_8px"] < 0.5
    assert blur["gdl"] > 0.3
    noisy = score(true + np.random.default_rng(3).normal(size=true.shape), true, "detail")
    assert noisy["power_ratio_finer_8px"] > 1.5


def test_the_gradient_difference_equals_the_loss_of_the_same_name():
    generator = np.random.default_rng(4)
    pred, true = generator.normal(size=(2, 3, 2, 2, 8, 9))
    loss = create_loss("gdl")(torch.from_numpy(pred), torch.from_numpy(true)).mean().item()
    assert score(pred, true, "detail")["gdl"] == pytest.approx(loss, rel=1e-12)


def test_detail_leaves_out_missing_truth_and_makes_scores_of_a_nan_forecast_nan():
    generator = np.random.default_rng(5)
    pred, true = generator.normal(size=(2, 3, 2, 1, 8, 8))
    holed = true.copy()
    holed[1] = np.nan
    kept = [0, 2]
    expected = score(pred[kept], true[kept], "detail")
    found = score(pred, holed, "detail")
    assert found.pop("frames_with_spectrum") == pytest.approx(2 / 3)
    assert expected.pop("frames_with_spectrum") == 1.0
    assert found == pytest.approx(expected, rel=1e-12)
    pred[0, 0, 0, 4, 4] = np.nan
    broken = score(pred, true, "detail")
    assert math.isnan(broken["gdl"])
    assert math.isnan(broken["power_ratio_finer_8px"])
    # one missing pixel takes four pairs of 2 * 56 out, and the frame's spectrum
    speck = np.full((1, 1, 1, 8, 8), 1.0)
    speck[..., 3, 3] = np.nan
    only = score(np.where(np.isnan(speck), 50.0, speck), speck, "detail")
    assert only["gdl"] == 0.0
    assert math.isnan(only["power_ratio_finer_8px"])
    assert only["frames_with_spectrum"] == 0.0


def test_spectra_of_a_region_equal_those_of_frames_cut_to_that_region():
    generator = np.random.default_rng(6)
    pred, true = generator.normal(size=(2, 3, 2, 1, 16, 20))
    true[..., :3, :] = np.nan
    true[..., -2:] = np.nan
    part = create_metrics("detail", region=(3, 16, 1, 18))
    part.update(pred, true)
    inner = create_metrics("detail")
    inner.update(pred[..., 3:16, 1:18], true[..., 3:16, 1:18])
    found, expected = part.result(), inner.result()
    assert found["curves"] == expected["curves"]
    ratio = "power_ratio_finer_8px"
    assert found["overall"][ratio] == expected["overall"][ratio]
    assert found["overall"]["frames_with_spectrum"] == 1.0
    assert found["overall"]["area_with_spectrum"] == pytest.approx(13 * 17 / (16 * 20))
    # gradients know missing pixels, and are those of the whole grid
    assert found["overall"]["gdl"] == score(pred, true, "detail")["gdl"]
    with pytest.raises(ValueError, match="cannot merge"):
        part.merge(create_metrics("detail", region=(3, 16, 1, 19)))


def test_spectra_of_different_grids_cannot_be_merged():
    first, other = create_metrics("detail"), create_metrics("detail")
    first.update(np.zeros((1, 1, 1, 8, 8)), np.zeros((1, 1, 1, 8, 8)))
    other.update(np.zeros((1, 1, 1, 8, 9)), np.zeros((1, 1, 1, 8, 9)))
    with pytest.raises(ValueError, match=r"\(8, 9\) pixels after frames of \(8, 8\)"):
        first.merge(other)


def test_frechet_distance_of_known_gaussians():
    # commuting covariances: |m1 - m2|^2 + sum (s1 - s2)^2 over the deviations s
    means = np.array([1.0, 0.0, -2.0]), np.array([0.0, 0.0, 1.0])
    deviations = np.array([1.0, 2.0, 3.0]), np.array([2.0, 0.5, 3.0])
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turned = [rotation @ np.diag(d**2) @ rotation.T for d in deviations]
    expected = (1 + 9) + (1 + 2.25 + 0)
    assert frechet_distance(means[0], turned[0], means[1], turned[1]) == pytest.approx(expected)
    assert frechet_distance(means[0], turned[0], means[0], turned[0]) == pytest.approx(0, abs=1e-12)
    # a covariance without full rank
    assert frechet_distance(means[0], np.diag([1.0, 0, 0]), means[0], np.diag([4.0, 0, 0])) == (
        pytest.approx(1.0)
    )


def test_frechet_distance_of_clips_follows_from_mean_and_covariance_of_features():
    generator = np.random.default_rng(6)
    true = generator.normal(size=(40, 4, 1, 1, 1))
    pred = 1.5 * generator.normal(size=(40, 4, 1, 1, 1)) + 0.3

    scores = score(
        pred, true, "perceptual", name="pixels", clip_features=lambda clips: clips.flatten(1)
    )

    rows = [x.astype(np.float32).astype(np.float64).reshape(40, 4) for x in (pred, true)]
    (m1, s1), (m2, s2) = ((x.mean(axis=0), np.cov(x.T)) for x in rows)
    root = np.asarray(sqrtm(s1 @ s2)).real
    expected = ((m1 - m2) ** 2).sum() + np.trace(s1 + s2 - 2 * root)
    assert scores == {"fvd_pixels": pytest.approx(expected, rel=1e-9)}
    assert expected > 0.1
    one = score(pred[:1], true[:1], "perceptual", name="p", clip_features=lambda x: x.flatten(1))
    assert math.isnan(one["fvd_p"])


def test_lpips_by_hand():
    true = np.array([[3.0, 4.0], [0.0, 2.0]]).reshape(1, 1, 2, 1, 2)  # channels (3, 0), (4, 2)
    pred = np.array([[1.0, 0.0], [0.0, 2.0]]).reshape(1, 1, 2, 1, 2)  # channels (1, 0), (0, 2)
    options = {"name": "raw", "frame_features": lambda frames: [frames]}
    # place 0: (1, 0) both; place 1: (0, 1) against (4, 2) / sqrt(20)
    along, across = 4 / math.sqrt(20), 2 / math.sqrt(20)
    by_channel = along**2, (1 - across) ** 2
    assert score(pred, true, "perceptual", **options)["lpips_raw"] == pytest.approx(
        sum(by_channel) / 2
    )
    weighted = score(pred, true, "perceptual", layer_weights=[[10.0, 1.0]], **options)
    assert weighted["lpips_raw"] == pytest.approx((10 * by_channel[0] + by_channel[1]) / 2)
    twice = {"name": "two", "frame_features": lambda frames: [frames, frames.numpy()]}
    assert score(pred, true, "perceptual", **twice)["lpips_two"] == pytest.approx(sum(by_channel))
    with pytest.raises(ConfigurationError, match="1 layers and the features have 2"):
        score(pred, true, "perceptual", layer_weights=[[1.0, 1.0]], **twice)


def test_feature_functions_are_required_and_are_not_pickled():
    with pytest.raises(ConfigurationError, match="no feature networks of its own"):
        create_metrics("perceptual", name="none")
    frames = np.ones((2, 1, 1, 4, 4))
    metrics = create_metrics("perceptual", name="x", frame_features=lambda frames: [frames])
    metrics.update(frames, frames)
    travelled = pickle.loads(pickle.dumps(metrics))
    assert travelled.result() == metrics.result()
    with pytest.raises(ConfigurationError, match="merge it into one"):
        travelled.update(frames, frames)
    other = create_metrics("perceptual", name="y", frame_features=lambda frames: [frames])
    with pytest.raises(ValueError, match="one set of options"):
        metrics.merge(other)
