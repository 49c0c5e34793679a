"""Losses over ensemble members, and the spread that a model learns from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gmg_model import create_model
from gmg_model.errors import ConfigurationError
from gmg_model.metrics import create_metrics
from gmg_model.models.ensembles import member_keys, window_keys
from gmg_model.training.member_losses import create_member_loss
from gmg_model.training.optimisation import Optimisation
from gmg_model.training.options import OptimisationOptions

SMALL = {"in_shape": (1, 8, 8), "patch_size": 2, "hidden": (8, 8)}


def pair(members: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    shape = (2, 1, 4, 4)
    return (
        torch.randn(2, members, *shape, generator=generator, dtype=torch.float64),
        torch.randn(2, *shape, generator=generator, dtype=torch.float64),
    )


@pytest.mark.parametrize("members", [2, 3, 7])
def test_the_fair_score_equals_that_of_the_metrics(members: int):
    pred, true = pair(members)
    metrics = create_metrics("ensemble")
    metrics.update(pred.numpy(), true.numpy())
    measured = create_member_loss("crps", fairness=1.0)(pred, true).mean()
    assert float(measured) == pytest.approx(metrics.result()["overall"]["crps_fair"], rel=1e-12)


@pytest.mark.parametrize("fairness", [0.0, 0.5, 0.95])
def test_less_fairness_subtracts_less_of_the_spread(fairness: float):
    pred, true = pair(3)
    distance = (pred - true[:, None]).abs().mean(1)
    pairs = sum((pred[:, i] - pred[:, j]).abs() for i in range(3) for j in range(3))
    # The sum written out: (M - 1 + fairness) / M of the mean over ordered pairs i != j, halved.
    expected = (distance - (2 + fairness) / 3 * pairs / (2 * 3 * 2)).flatten(1).mean(1)
    measured = create_member_loss("crps", fairness=fairness)(pred, true)
    torch.testing.assert_close(measured, expected)


def test_the_noise_of_a_window_does_not_depend_on_its_batch():
    whole = member_keys(window_keys(5, [0, 1, 2, 3], step=9), 3)
    part = member_keys(window_keys(5, [2, 3], step=9), 3)
    assert torch.equal(whole[6:], part)
    assert len(whole.unique(dim=0)) == 12


def test_windows_in_one_batch_or_in_two_give_the_same_losses_and_gradients():
    frames = torch.rand(4, 5, 1, 8, 8, generator=torch.Generator().manual_seed(1)).double()

    def gradients(parts: list[slice]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        torch.manual_seed(0)
        model = create_model("convlstm", **SMALL, noise=2).double()
        options = OptimisationOptions(loss="crps", members=3, precision="fp64")
        optimisation = Optimisation(model, options, total_steps=1)
        losses = []
        for part in parts:
            keys = window_keys(0, np.arange(4)[part], step=0)
            losses.append(
                optimisation.backward(model, frames[part], 3, None, 0.25, noise_keys=keys)
            )
        return torch.cat(losses), [p.grad for p in model.parameters() if p.grad is not None]

    losses, whole = gradients([slice(0, 4)])
    cut_losses, cut = gradients([slice(0, 1), slice(1, 4)])
    assert losses.shape == (4,)
    torch.testing.assert_close(cut_losses, losses, rtol=1e-12, atol=0)
    torch.testing.assert_close(cut, whole, rtol=1e-9, atol=1e-15)


def test_a_model_learns_how_uncertain_the_next_frame_is():
    """The last frame of each window is flat; its height does not follow from the first ones."""
    torch.manual_seed(0)
    model = create_model("convlstm", **SMALL, noise=2, residual=True)
    options = OptimisationOptions(
        learning_rate=5e-3, schedule="constant", loss="crps", members=4, crps_fairness=1.0
    )
    optimisation = Optimisation(model, options, total_steps=150)
    heights = torch.Generator().manual_seed(7)

    def windows(count: int) -> torch.Tensor:
        frames = torch.full((count, 3, 1, 8, 8), 0.5)
        frames[:, 2] += torch.randn(count, 1, 1, 1, generator=heights) * 0.3
        return frames

    for step in range(150):
        keys = window_keys(0, range(8), step)
        optimisation.backward(model, windows(8), 2, None, 1 / 8, noise_keys=keys)
        optimisation.update(step)
    members = model.predict(windows(16)[:, :2], 1, members=16, samples=range(16))
    spread = float(members.std(dim=1).mean())
    assert 0.15 < spread < 0.45
    assert float(members.mean()) == pytest.approx(0.5, abs=0.1)


def test_noise_without_members_and_members_without_noise_are_refused():
    noisy, plain = (create_model("convlstm", **SMALL, noise=noise) for noise in (1, 0))
    with pytest.raises(ConfigurationError, match="loss over members alone"):
        Optimisation(noisy, OptimisationOptions(), total_steps=1)
    with pytest.raises(ConfigurationError, match="made with noise=4"):
        Optimisation(plain, OptimisationOptions(loss="crps", members=2), total_steps=1)
    with pytest.raises(ConfigurationError, match="needs members=2 or more"):
        Optimisation(plain, OptimisationOptions(loss="crps"), total_steps=1)
    with pytest.raises(ConfigurationError, match="members=1"):
        Optimisation(plain, OptimisationOptions(loss="mse", members=2), total_steps=1)
    with pytest.raises(ConfigurationError, match="called 'crsp'"):
        create_member_loss("crsp")
    with pytest.raises(ConfigurationError, match=r"fairness=1\.5"):
        create_member_loss("crps", fairness=1.5)
