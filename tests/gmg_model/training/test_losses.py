"""Losses return one number per sample."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from gmg_model.errors import ConfigurationError
from gmg_model.layers.patches import patchify
from gmg_model.training.losses import HKO7_THRESHOLDS, create_loss, list_losses


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.rand(3, 2, 1, 4, 5), torch.rand(3, 2, 1, 4, 5)


@pytest.mark.parametrize("name", list_losses())
def test_each_sample_is_scored_on_its_own(name: str) -> None:
    pred, true = pair()
    loss = create_loss(name)
    together = loss(pred, true)
    assert together.shape == (3,)
    assert (together > 0).all()
    alone = torch.cat([loss(pred[i : i + 1], true[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(alone, together)
    if name != "bce":  # its least value is the entropy of the truth
        assert (loss(true, true) == 0).all()
    assert (loss(true, true) < together).all()


def test_losses_follow_their_definitions() -> None:
    pred, true = pair()
    error = pred - true
    mean = (1, 2, 3, 4)
    expected = {
        "mse": (error**2).mean(mean),
        "l1": error.abs().mean(mean),
        "l1+l2": (error**2).mean(mean) + error.abs().mean(mean),
        "bce": -(true * pred.log() + (1 - true) * (1 - pred).log()).mean(mean),
    }
    for name, value in expected.items():
        torch.testing.assert_close(create_loss(name)(pred, true), value)


def test_a_loss_is_the_same_in_patches_as_in_pixels() -> None:
    torch.manual_seed(1)
    pred, true = (torch.rand(2, 5, 2, 8, 12) for _ in range(2))
    for name in ("mse", "l1", "l1+l2", "bce", "balanced-l1+l2"):
        loss = create_loss(name)
        torch.testing.assert_close(loss(patchify(pred, 4), patchify(true, 4)), loss(pred, true))


def test_balanced_losses_equal_values_computed_by_hand() -> None:
    true = torch.tensor([0.1, 0.5, 0.7, 0.9]).view(1, 1, 1, 2, 2)
    pred = true + torch.tensor([0.1, -0.2, 0.3, 0.4]).view(1, 1, 1, 2, 2)
    options = {"thresholds": (0.5, 0.8), "weights": (1.0, 3.0, 10.0)}
    weights = (1.0, 3.0, 3.0, 10.0)  # a value at a threshold is above it
    squares, sizes = (0.01, 0.04, 0.09, 0.16), (0.1, 0.2, 0.3, 0.4)
    by_mse = sum(w * e for w, e in zip(weights, squares, strict=True)) / 4
    by_l1 = sum(w * e for w, e in zip(weights, sizes, strict=True)) / 4
    for name, value in (
        ("balanced-mse", by_mse),
        ("balanced-l1", by_l1),
        ("balanced-l1+l2", by_mse + by_l1),
    ):
        assert create_loss(name, **options)(pred, true).item() == pytest.approx(value, rel=1e-5)


def test_the_default_thresholds_are_the_published_rain_rates() -> None:
    for rate, threshold in zip((2, 5, 10, 30), HKO7_THRESHOLDS, strict=True):
        dbz = 10 * math.log10(58.53) + 15.6 * math.log10(rate)
        assert (dbz + 10) / 70 == pytest.approx(threshold, abs=1e-4)


def test_the_best_constant_forecast_of_a_balanced_loss_leans_to_strong_events() -> None:
    # four frames of truth 0 and one of truth 1: E[w y] / E[w] against the mean
    true = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0]).view(5, 1, 1, 1, 1)
    candidates = torch.linspace(0, 1, 1001)

    def best(name: str, **options: object) -> float:
        loss = create_loss(name, **options)
        totals = [loss(value.expand_as(true), true).mean() for value in candidates]
        return candidates[int(torch.stack(totals).argmin())].item()

    assert best("mse") == pytest.approx(0.2, abs=1e-3)
    heavy = {"thresholds": (0.5,), "weights": (1.0, 6.0)}
    assert best("balanced-mse", **heavy) == pytest.approx(6 / 10, abs=1e-3)
    even = {"thresholds": (0.5,), "weights": (1.0, 1.0)}
    assert best("balanced-mse", **even) == pytest.approx(0.2, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mse", {"weights": (1.0,)}, "mse has no options"),
        ("balanced-mse", {"weight": (1.0,)}, "no option 'weight'"),
        ("balanced-mse", {"thresholds": ()}, "rising"),
        ("balanced-mse", {"thresholds": (0.5, 0.5)}, "rising"),
        ("balanced-mse", {"thresholds": (0.5,)}, "for 1 thresholds: give 2"),
        ("balanced-mse", {"thresholds": (0.5,), "weights": (0.0, 0.0)}, "not all 0"),
        ("balanced", {}, "did you mean 'balanced"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        create_loss(name, **options)


def test_gradient_difference_ignores_a_constant_shift_and_sees_blur() -> None:
    true = torch.zeros(1, 1, 1, 4, 4)
    true[..., 2:] = 1.0
    gdl = create_loss("gdl")
    assert gdl(true + 3, true).item() == 0
    assert gdl(true.mean().expand_as(true), true).item() == pytest.approx(1 / 3)


def test_half_precision_predictions_are_summed_in_single_precision() -> None:
    pred, true = pair()
    assert create_loss("l1+l2")(pred.bfloat16(), true).dtype == torch.float32
    assert create_loss("l1+l2")(pred.double(), true.double()).dtype == torch.float64


def test_unknown_names_and_unequal_shapes_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"did you mean 'l1\+l2'"):
        create_loss("l1+l3")
    pred, true = pair()
    with pytest.raises(ConfigurationError, match="one shape"):
        create_loss("mse")(pred[:, :1], true)
