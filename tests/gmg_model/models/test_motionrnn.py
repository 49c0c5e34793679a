"""MotionRNN as in the paper's text and as in its code, and the plain backbones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import gmg_model
from gmg_model.errors import ConfigurationError

Make = Callable[..., Any]


def clips(size: tuple[int, int] = (8, 12)) -> torch.Tensor:
    return torch.randn(2, 3, 1, *size, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def test_the_two_readings_of_the_recurrent_state_differ_from_the_second_step_on(
    small: Make,
) -> None:
    post, pre = small("motionrnn-predrnn"), small("motionrnn-predrnn", recurrent="pre")
    frames = clips()
    assert torch.equal(post(frames[:, :1], 1), pre(frames[:, :1], 1))
    assert (post(frames, 1) - pre(frames, 1)).abs().max() > 1e-5


@torch.no_grad()
def test_offsets_of_both_recurrences_differ(small: Make) -> None:
    bounded = small("motionrnn-predrnn")
    additive = small("motionrnn-predrnn", offsets="additive")
    assert (bounded(clips(), 4) - additive(clips(), 4)).abs().max() > 1e-6


@torch.no_grad()
def test_backbones_without_motion_need_only_whole_patches(small: Make) -> None:
    frames = clips((6, 10))
    model = small("predrnn", compat="official")
    assert model(frames, 2).shape == (2, 2, 1, 6, 10)
    with pytest.raises(ConfigurationError, match=r"7 x 10.*multiples of 2"):
        model(clips((7, 10)), 2)


@torch.no_grad()
def test_convlstm_forgets_less_at_the_start_than_the_published_one(small: Make) -> None:
    default, official = small("convlstm"), small("convlstm", compat="official")
    assert (default(clips(), 2) - official(clips(), 2)).abs().max() > 1e-4


def test_dead_weights_of_published_convlstm_checkpoints_are_skipped(small: Make) -> None:
    model = small("convlstm")
    tensors = dict(model.state_dict())
    for i in range(4):
        tensors[f"cell_list.{i}.conv_o.0.weight"] = torch.zeros(8, 16, 5, 5)
        tensors[f"cell_list.{i}.conv_last.weight"] = torch.zeros(8, 16, 1, 1)
    gmg_model.load_official(model, tensors)
    with pytest.raises(ConfigurationError, match=r"unknown: cell_list\.0\.conv_p"):
        gmg_model.load_official(model, tensors | {"cell_list.0.conv_p": torch.zeros(1)})


@torch.no_grad()
@pytest.mark.parametrize("backbone", ["convlstm", "predrnn", "mim", "e3dlstm"])
def test_every_backbone_has_a_published_form_by_itself_and_in_motionrnn(
    small: Make, backbone: str
) -> None:
    for name in (backbone, f"motionrnn-{backbone}"):
        model = small(name, compat="official")
        assert model(clips(), 3).isfinite().all()
        with pytest.raises(ConfigurationError, match=r"contradicts compat='official'"):
            small(name, compat="official", circular=True)


@torch.no_grad()
@pytest.mark.parametrize("backbone", ["mim", "e3dlstm"])
def test_noise_beside_the_frames_reaches_the_forecast(small: Make, backbone: str) -> None:
    model = small(f"motionrnn-{backbone}", noise=1)
    keys = torch.arange(2)[:, None]
    first, again, other = (model(clips(), 3, noise_keys=keys + i) for i in (0, 0, 5))
    assert torch.equal(first, again)
    assert (first - other).abs().max() > 1e-5
