"""The trending momentum D as displacements of the visible patterns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from gmg_model.errors import ConfigurationError
from gmg_model.layers.warp import sample_taps
from gmg_model.models.motion_trend import has_motion, motion_trend

Make = Callable[..., Any]


@pytest.fixture
def frames() -> torch.Tensor:
    """(2, 4, 1, 8, 12)."""
    return torch.randn(2, 4, 1, 8, 12, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", ["gmg-s", "motionrnn-predrnn", "motionrnn-e3dlstm"])
def test_there_is_one_trend_per_lead_time_in_pixels_of_the_frame(
    small: Make, frames: torch.Tensor, name: str
) -> None:
    model = small(name).eval()
    assert has_motion(model)
    trend = motion_trend(model, frames, 3)
    assert trend.down_bthw.shape == trend.right_bthw.shape == (2, 3, 2, 3)
    assert trend.rows.tolist() == [1.5, 5.5]
    assert trend.columns.tolist() == [1.5, 5.5, 9.5]
    assert not torch.equal(trend.down_bthw[:, 0], trend.down_bthw[:, 1])
    assert trend.right_bthw.abs().max() > 0


def test_the_trend_is_the_momentum_of_the_recurrence_scaled_to_pixels(
    small: Make, frames: torch.Tensor
) -> None:
    model = small("gmg-s", offset_scale=2.0).eval()
    momenta = []
    module = model.motion_list[1]
    handle = module.register_forward_hook(lambda _m, _given, made: momenta.append(made[2]))
    with torch.no_grad():
        model(frames, 2)
    handle.remove()
    trend = motion_trend(model, frames, 2, layer=1)
    # 4 frames are fed before the first forecast frame; a cell is 2 patches of 2 pixels.
    assert len(momenta) == 5
    torch.testing.assert_close(trend.down_bthw[:, 0], -8 * momenta[3][:, :9].mean(dim=1))
    torch.testing.assert_close(trend.right_bthw[:, 1], -8 * momenta[4][:, 9:].mean(dim=1))


def test_an_offset_that_reads_from_the_left_moves_things_to_the_right() -> None:
    field = torch.zeros(1, 1, 5, 5)
    field[..., 2, 2] = 1
    offsets = torch.zeros(1, 18, 5, 5)
    offsets[:, 9:] = -1
    middle_tap = sample_taps(field, offsets)[0, 0, 4]
    assert middle_tap[2, 3] == 1


def test_reading_the_trend_leaves_no_hook_on_the_model(small: Make, frames: torch.Tensor) -> None:
    model = small("gmg-s").eval()
    with torch.no_grad():
        before = model(frames, 2)
        motion_trend(model, frames, 2)
        after = model(frames, 2)
    assert torch.equal(before, after)
    assert not model.motion_list[0]._forward_hooks


def test_cells_in_the_padding_are_left_out(small: Make) -> None:
    model = small("gmg-s").eval()
    trend = motion_trend(model, torch.randn(1, 3, 1, 9, 12), 1)
    # Nine rows are padded to twelve: the middle of the third cell, row 9.5, lies beyond them.
    assert trend.rows.tolist() == [1.5, 5.5]
    assert trend.down_bthw.shape[-2:] == (2, 3)


def test_models_without_motion_modules_have_no_trend(small: Make, frames: torch.Tensor) -> None:
    model = small("predrnn").eval()
    assert not has_motion(model)
    assert not has_motion(torch.nn.Identity())
    with pytest.raises(ConfigurationError, match="no motion module 0: this model has 0"):
        motion_trend(model, frames, 2)
    with pytest.raises(ConfigurationError, match="no motion module 3: this model has 3"):
        motion_trend(small("gmg-s").eval(), frames, 2, layer=3)
