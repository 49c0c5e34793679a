"""What the LSTM cells share: convolutions without bias, the state (H, C), the update of a memory.

Axes: b sample, c channel, h row, w column.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from gmg_model.layers.cell import Cell, Reading, Start
from gmg_model.layers.convolution import convolve, for_this_precision

FORGET_BIAS = 1.0
"""Added to a forget gate before its sigmoid, so that an untrained cell keeps most of its memory."""


class LSTMState(NamedTuple):
    """The recurrent state of one cell, (B, hidden, h, w) each."""

    hidden: Tensor
    """H."""
    cell: Tensor
    """C."""


class BareConvolution(nn.Sequential):
    """A convolution without bias; published checkpoints name its container, hence `Sequential`.

    It only holds the weight. Cells convolve with the weights that `Cell.kernels` returns.
    """

    def __init__(self, in_channels: int, out_channels: int, filter_size: int):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, filter_size, padding=filter_size // 2, bias=False)
        )

    @property
    def weight(self) -> Tensor:
        """The kernel (O, I, k, k)."""
        return cast(nn.Conv2d, self[0]).weight


class LSTMCell(Cell):
    """A cell with the state (H, C) that reads its input X by one convolution.

    The weights that `kernels` returns must have a field `x` for that convolution.
    """

    def initial_state(self, start: Start) -> LSTMState:
        """Return H and C before the first step."""
        return LSTMState(hidden=start(self.hidden), cell=start(self.hidden))

    def read(self, x_bchw: Tensor, kernels: Any) -> Reading:
        """Return what all gates take from X."""
        return (convolve(x_bchw, kernels.x, circular=self.circular),)


def rollout_weights(*layers: BareConvolution | nn.Conv2d) -> Iterator[Tensor]:
    """Yield the weights of some convolutions in the precision of this rollout."""
    return (for_this_precision(layer.weight) for layer in layers)


def update_memory(
    i_bchw: Tensor,
    f_bchw: Tensor,
    g_bchw: Tensor,
    memory_bchw: Tensor,
    forget_bias: float = FORGET_BIAS,
) -> Tensor:
    """Return `sigmoid(f + bias) * memory + sigmoid(i) * tanh(g)`, the LSTM's memory update.

    i is the input gate, f the forget gate and g the candidate, all before their activation.
    The memory keeps the precision of its first state (float32 under autocast) by type promotion.
    """
    kept = torch.sigmoid(f_bchw + forget_bias) * memory_bchw
    return kept + torch.sigmoid(i_bchw) * torch.tanh(g_bchw)
