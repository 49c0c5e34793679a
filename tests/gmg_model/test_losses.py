"""Losses: one number a sample."""

from __future__ import annotations

import pytest
import torch

from gmg_model.errors import ConfigurationError
from gmg_model.losses import create_loss, list_losses


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
    if name != "bce":  # whose least value is the entropy of the truth
        assert (loss(true, true) == 0).all()
    assert (loss(true, true) < together).all()


def test_values_follow_the_definitions() -> None:
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


def test_gradient_difference_ignores_a_constant_shift_and_sees_blur() -> None:
    true = torch.zeros(1, 1, 1, 4, 4)
    true[..., 2:] = 1.0
    gdl = create_loss("gdl")
    assert gdl(true + 3, true).item() == 0
    assert gdl(true.mean().expand_as(true), true).item() == pytest.approx(1 / 3)


def test_half_precision_predictions_are_summed_in_single() -> None:
    pred, true = pair()
    assert create_loss("l1+l2")(pred.bfloat16(), true).dtype == torch.float32
    assert create_loss("l1+l2")(pred.double(), true.double()).dtype == torch.float64


def test_unknown_names_and_unequal_shapes_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"did you mean 'l1\+l2'"):
        create_loss("l1+l3")
    pred, true = pair()
    with pytest.raises(ConfigurationError, match="one shape"):
        create_loss("mse")(pred[:, :1], true)
