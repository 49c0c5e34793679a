"""The motion that a model with motion modules sees: its trending momentum D.

Figure 9 of MotionRNN (Wu et al. 2021) draws D of the first layer. Axes: b sample, t lead time,
n offset channel, h row, w column of the grid of stride 2 on which motion modules work.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from gmg_model.errors import ConfigurationError
from gmg_model.layers.motion import MotionFilter
from gmg_model.layers.warp import TAPS
from gmg_model.models.stack import CellStack


class MotionTrend(NamedTuple):
    """Displacements of the visible patterns, in pixels per frame, and their positions."""

    down_bthw: Tensor
    """displacement towards the last row"""
    right_bthw: Tensor
    """displacement towards the last column"""
    rows: Tensor
    """(h,) row in the frame, from 0, of the centre of each grid cell; cells whose centre lies in
    the padding are left out"""
    columns: Tensor
    """(w,) column in the frame, likewise"""


def has_motion(model: nn.Module) -> bool:
    """Return whether the model has motion modules between its cells."""
    return isinstance(model, CellStack) and len(model.motion_list) > 0


@torch.inference_mode()
def motion_trend(
    model: nn.Module, frames_btchw: Tensor, horizon: int, layer: int = 0
) -> MotionTrend:
    """Return D of one layer at each step that makes a forecast, as displacements in pixels.

    D has an offset for each of the nine taps of the warp (Eq. 17 and 19): where, relative to the
    tap, a cell takes its new state FROM, in cells of the stride-2 grid times `offset_scale`. The
    negative mean over the taps is therefore the direction in which the pattern moves. It is the
    trend alone: the warp adds the transient variation F'.

    Parameters
    ----------
    frames_btchw:
        (B, T, C, H, W) normalised observed frames.
    layer:
        Index of the motion module, from 0 at the frame.

    Raises
    ------
    ConfigurationError
        The model does not have this motion module.
    """
    if not isinstance(model, CellStack) or not 0 <= layer < len(model.motion_list):
        count = len(model.motion_list) if isinstance(model, CellStack) else 0
        raise ConfigurationError(f"there is no motion module {layer}: this model has {count}")
    module = model.motion_list[layer]
    assert isinstance(module, MotionFilter)
    momenta: list[Tensor] = []

    def keep(_module: nn.Module, _given: object, made: tuple[Tensor, Tensor, Tensor]) -> None:
        momenta.append(made[2])

    hook = module.register_forward_hook(keep)
    try:
        model(frames_btchw, horizon)
    finally:
        hook.remove()
    # The model runs one step per frame, and the output of a step is the next frame: the last
    # `horizon` steps make the forecast.
    momentum_btnhw = torch.stack(momenta[-horizon:], dim=1).float()
    cell = 2 * model.patch_size
    from_down, from_right = (
        part.mean(dim=2) * module.offset_scale * cell for part in momentum_btnhw.split(TAPS, dim=2)
    )
    centres = [
        (torch.arange(count, device=frames_btchw.device) + 0.5) * cell - 0.5
        for count in from_down.shape[-2:]
    ]
    rows, columns = (
        centre[centre <= size - 1]
        for centre, size in zip(centres, frames_btchw.shape[-2:], strict=True)
    )
    inside = (..., slice(len(rows)), slice(len(columns)))
    return MotionTrend(-from_down[inside], -from_right[inside], rows, columns)
