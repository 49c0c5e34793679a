"""Reverse scheduled sampling: input frames that are hidden from the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gmg_model.errors import ConfigurationError
from gmg_model.training.sampling import observed_frames

BACKBONES = ("predrnn", "convlstm", "mim", "e3dlstm")
PLAIN = (*BACKBONES, *(f"motionrnn-{name}" for name in BACKBONES))
INPUT_FRAMES, FRAMES = 4, 7
Make = Callable[..., Any]


@pytest.fixture
def frames() -> Tensor:
    """(3, 7, 1, 8, 12)."""
    return torch.randn(3, FRAMES, 1, 8, 12, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def outputs(model: Any, frames: Tensor, **masks: Tensor) -> Tensor:
    return model(frames, input_frames=INPUT_FRAMES, **masks)


def by_hand(model: Any, frames: Tensor, shown: Tensor, forced: Tensor) -> Tensor:
    """Compute one-step outputs slowly: sample by sample, the masks choose what each step reads."""
    rows = []
    for i in range(len(frames)):
        fed = frames[i : i + 1, :1]
        made: list[Tensor] = []
        truth = [*shown[i].tolist(), *forced[i].tolist()]
        for t in range(1, FRAMES):
            # The whole rollout again, on the frames fed so far: its next frame is output t - 1.
            made.append(model(fed, 1)[:, 0])
            if t < FRAMES - 1:
                following = frames[i : i + 1, t] if truth[t - 1] else made[-1]
                fed = torch.cat([fed, following[:, None]], dim=1)
        rows.append(torch.stack(made, dim=1))
    return torch.cat(rows)


@pytest.mark.parametrize("name", PLAIN)
@torch.no_grad()
def test_a_hidden_frame_is_replaced_by_the_models_own_output(
    small: Make, frames: Tensor, name: str
) -> None:
    model = small(name)
    shown = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    forced = torch.tensor([[0.0, 1.0], [0.0, 0.0], [1.0, 1.0]])
    found = outputs(model, frames, shown=shown, forced=forced)
    torch.testing.assert_close(found, by_hand(model, frames, shown, forced), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", PLAIN)
def test_all_frames_shown_is_plain_training(small: Make, frames: Tensor, name: str) -> None:
    model = small(name)
    plain = outputs(model, frames)
    everything = outputs(model, frames, shown=torch.ones(3, INPUT_FRAMES - 1))
    torch.testing.assert_close(everything, plain, rtol=0, atol=1e-6)
    forced = torch.ones(3, FRAMES - INPUT_FRAMES - 1)
    torch.testing.assert_close(
        outputs(model, frames, shown=torch.ones(3, INPUT_FRAMES - 1), forced=forced),
        outputs(model, frames, forced=forced),
        rtol=0,
        atol=1e-6,
    )


def test_a_hidden_frame_does_not_influence_the_outputs(small: Make, frames: Tensor) -> None:
    model, shown = small("predrnn"), torch.tensor([[1.0, 0.0, 1.0]] * 3)
    other = frames.clone()
    other[:, 2] += 5.0
    assert torch.equal(outputs(model, other, shown=shown), outputs(model, frames, shown=shown))
    other[:, 3] += 5.0
    assert not torch.equal(outputs(model, other, shown=shown), outputs(model, frames, shown=shown))


def test_gradients_flow_through_the_outputs_that_replace_hidden_frames(
    small: Make, frames: Tensor
) -> None:
    model = small("predrnn", checkpoint_steps=False)
    shown = observed_frames(0.5, INPUT_FRAMES, seed=0, step=0, lanes=range(3))
    assert 0 < shown.mean() < 1
    gradients = []
    for checkpoint_steps in (False, True):
        model.checkpoint_steps = checkpoint_steps
        model.zero_grad()
        model(frames, input_frames=INPUT_FRAMES, shown=shown).square().mean().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert all(g.abs().max() > 0 for g in gradients[0])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["gmg-l", "gmg-m", "gmg-s", "srvp"])
def test_models_that_need_every_frame_raise_for_hidden_ones(
    small: Make, frames: Tensor, name: str
) -> None:
    options = {"input_frames": INPUT_FRAMES, "patch_size": 1} if name == "srvp" else {}
    model = small(name, **options)
    assert not model.takes_hidden_frames
    with pytest.raises(ConfigurationError, match="needs every input frame"):
        outputs(model, frames, shown=torch.ones(3, INPUT_FRAMES - 1))


def test_masks_of_the_wrong_size_or_in_a_forecast_raise(small: Make, frames: Tensor) -> None:
    model = small("predrnn")
    with pytest.raises(ConfigurationError, match=r"shape \(3, 4\).*need \(3, 3\)"):
        outputs(model, frames, shown=torch.ones(3, INPUT_FRAMES))
    with pytest.raises(ConfigurationError, match="belong to training"):
        model(frames, 3, shown=torch.ones(3, FRAMES - 1))
