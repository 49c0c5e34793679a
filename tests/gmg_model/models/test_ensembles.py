"""Members of an ensemble: what they depend on, and which requests raise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import gmg_model
from gmg_model.errors import ConfigurationError
from gmg_model.models.ensembles import draw_noise

Make = Callable[..., Any]


def clips(batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, 3, 1, 8, 12, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", ["gmg-l", "gmg-s", "motionrnn-predrnn", "convlstm"])
def test_members_differ_and_a_second_call_repeats_them(small: Make, name: str) -> None:
    model, frames = small(name, noise=2), clips()
    ensemble = model.predict(frames, 4, members=3, seed=5)
    assert ensemble.shape == (3, 3, 4, 1, 8, 12)
    assert torch.equal(model.predict(frames, 4, members=3, seed=5), ensemble)
    assert ensemble.std(dim=1).amin(dim=(1, 2, 3, 4)).min() > 0
    assert not torch.equal(model.predict(frames, 4, members=3, seed=6), ensemble)


def test_a_member_does_not_depend_on_batch_members_or_horizon(small: Make) -> None:
    model, frames = small(noise=2), clips()
    whole = model.predict(frames, 6, members=3, samples=[11, 4, 4])
    alone = model.predict(frames[1:2], 4, members=2, samples=[4])
    torch.testing.assert_close(alone[0], whole[1, :2, :4], rtol=0, atol=1e-5)


def test_samples_share_noise_unless_they_are_numbered(small: Make) -> None:
    model = small(noise=2)
    same = clips(1).repeat(2, 1, 1, 1, 1)
    shared = model.predict(same, 2, members=2)
    torch.testing.assert_close(shared[0], shared[1], rtol=0, atol=1e-6)
    apart = model.predict(same, 2, members=2, samples=[0, 1])
    assert (apart[0] - apart[1]).abs().max() > 1e-5


def test_each_step_and_each_key_has_its_own_noise() -> None:
    keys = torch.tensor([[1, 0], [0, 1], [1, 0]])
    noise = draw_noise(keys, 300, 2, 4, 5)
    assert torch.equal(noise[0], noise[2])
    flat = noise[:2].flatten(2).flatten(0, 1)
    correlations = torch.corrcoef(flat.T[:, :50].T).fill_diagonal_(0)
    assert correlations.abs().max() < 0.7
    assert noise.mean().abs() < 0.02
    assert abs(noise.std() - 1) < 0.02
    assert torch.equal(draw_noise(keys, 7, 2, 4, 5), noise[:, :7])


def test_without_keys_the_noise_is_zero_and_a_forecast_is_repeatable(small: Make) -> None:
    model, frames = small(noise=2).eval(), clips()
    with torch.no_grad():
        assert torch.equal(model(frames, 3), model(frames, 3))


def test_one_member_of_a_deterministic_model_is_its_forecast(small: Make) -> None:
    model, frames = small(), clips()
    with torch.no_grad():
        expected = model(frames, 3)
    assert torch.equal(model.predict(frames, 3)[:, 0], expected)


def test_prediction_restores_the_mode_of_every_module(small: Make) -> None:
    model = small(noise=1)
    model.cell_list[0].eval()
    ensemble = model.predict(clips(), 1, members=2)
    assert not ensemble.requires_grad
    assert model.training
    assert not model.cell_list[0].training
    assert model.cell_list[1].training


def test_noise_can_be_trained_through_the_one_step_outputs(small: Make) -> None:
    model = small(noise=2)
    frames = torch.randn(2, 6, 1, 8, 12)
    keys = torch.tensor([[0, 1], [0, 2]])
    outputs = model(frames, input_frames=3, noise_keys=keys)
    with torch.no_grad():
        plain = model(frames, input_frames=3)
    assert (outputs - plain).abs().amax(dim=(1, 2, 3, 4)).min() > 1e-5
    outputs.square().mean().backward()
    patch_channels = 4
    of_noise = model.cell_list[0].conv_x.weight.grad[:, patch_channels:]
    assert of_noise.shape[1] == 2
    assert of_noise.abs().max() > 0


def test_training_a_model_with_noise_without_keys_raises(small: Make) -> None:
    with pytest.raises(ConfigurationError, match="give noise_keys"):
        small(noise=2)(torch.randn(2, 6, 1, 8, 12), input_frames=3)


@pytest.mark.parametrize(
    ("noise", "arguments", "message"),
    [
        (0, {"members": 2}, "make the model with noise=4"),
        (1, {"members": 0}, "members=0"),
        (1, {"samples": [1]}, "1 numbers for a batch of 3"),
        (1, {"seed": -1}, "seed=-1"),
    ],
)
def test_impossible_ensembles_raise_an_error_that_says_what_to_give(
    small: Make, noise: int, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        small(noise=noise).predict(clips(), 1, **arguments)


def test_noise_keys_and_options_that_do_not_fit_raise(small: Make) -> None:
    with pytest.raises(ConfigurationError, match="made with noise=1"):
        small()(clips(), 1, noise_keys=torch.zeros(3, 1, dtype=torch.long))
    with pytest.raises(ConfigurationError, match=r"give \(3, K\)"):
        small(noise=1)(clips(), 1, noise_keys=torch.zeros(3, dtype=torch.long))
    with pytest.raises(ConfigurationError, match="noise=-1"):
        gmg_model.create_model("gmg-l", noise=-1)
    with pytest.raises(ConfigurationError, match="contradicts compat='official'"):
        gmg_model.create_model("gmg-l", noise=1, compat="official")
