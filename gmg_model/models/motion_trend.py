"""The motion that a model with motion modules has learned to see: its trending momentum D.

Figure 9 of MotionRNN (Wu et al. 2021) draws D of the first layer. Axes: b sample, t lead time,
h row, w column of the motion modules' grid of stride 2.
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
    """Displacements of what is seen, in pixels a frame, and where they hold."""

    down_bthw: Tensor
    """towards the last row"""
    right_bthw: Tensor
    """towards the last column"""
    rows: Tensor
    """(h,) middles of the grid's cells as places in the frame, from 0; those beyond it left out"""
    columns: Tensor
    """(w,) the same"""


def has_motion(model: nn.Module) -> bool:
    """Whether there are motion modules between the model's cells."""
    return isinstance(model, CellStack) and len(model.motion_list) > 0


@torch.inference_mode()
def motion_trend(
    model: nn.Module, frames_btchw: Tensor, horizon: int, layer: int = 0
) -> MotionTrend:
    """D of one layer at each step that makes a forecast.

    D holds an offset for each of the nine taps of the warp (Eq. 17 and 19): the place relative to
    the tap that a cell takes its new state FROM, in cells of the stride-2 grid times
    ``offset_scale``. The mean over the taps with its sign turned is the way that what is there
    moves. It is the trend alone: the warp adds the transient variation F'.

    Parameters
    ----------
    frames_btchw:
        (B, T, C, H, W) normalised frames that the model is given.
    layer:
        Of the motion modules, from 0 at the frame.

    Raises
    ------
    ConfigurationError
        The model has no such motion module.
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
    # One step a frame, and a step's output is the frame after it.
    momentum_btnhw = torch.stack(momenta[-horizon:], dim=1).float()
    cell = 2 * model.patch_size
    from_down, from_right = (
        part.mean(dim=2) * module.offset_scale * cell for part in momentum_btnhw.split(TAPS, dim=2)
    )
    places = [
        (torch.arange(count, device=frames_btchw.device) + 0.5) * cell - 0.5
        for count in from_down.shape[-2:]
    ]
    rows, columns = (
        place[place <= size - 1]
        for place, size in zip(places, frames_btchw.shape[-2:], strict=True)
    )
    inside = (..., slice(len(rows)), slice(len(columns)))
    return MotionTrend(-from_down[inside], -from_right[inside], rows, columns)
