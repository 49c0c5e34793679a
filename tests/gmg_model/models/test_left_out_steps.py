"""A step that is left out changes nothing that a later step starts from."""

from __future__ import annotations

import torch

from gmg_model import create_model
from gmg_model.training.optimisation import Optimisation
from gmg_model.training.options import OptimisationOptions


def test_weights_moments_and_average_stay_as_they_were() -> None:
    torch.manual_seed(0)
    model = create_model("gmg-s", in_shape=(1, 8, 8), hidden=(4, 4), patch_size=2, filter_size=3)
    options = OptimisationOptions(ema=0.9, schedule="constant")
    optimisation = Optimisation(model, options, total_steps=10)
    frames = torch.rand(2, 4, 1, 8, 8)

    def step(number: int, factor: float) -> bool:
        """One guarded step; whether anything changed."""
        before = state()
        loss = optimisation.backward(model, frames * factor, 2, None, 0.5).sum()
        optimisation.update(number, loss=loss)
        after = state()
        return any(not before[name].equal(after[name]) for name in before)

    def state() -> dict[str, torch.Tensor]:
        tensors = {**model.state_dict(), **optimisation.state_tensors()}
        return {name: value.clone() for name, value in tensors.items()}

    assert step(0, 1.0)
    assert not step(1, float("inf"))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert step(2, 1.0)
    assert all(torch.isfinite(value).all() for value in state().values())
