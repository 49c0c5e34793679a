"""The convolutional gated recurrent unit of SRVP (Eq. 1 of Kim and Park, 2025).

Axes: b sample, c channel, h row, w column.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gmg_model.layers.cell import Cell, CellOutput, Reading, Start
from gmg_model.layers.convolution import convolve, for_this_precision


class GRUState(NamedTuple):
    """The recurrent state of one unit."""

    hidden: Tensor
    """H (B, hidden, h, w)."""


class GRUKernels(NamedTuple):
    """The convolution weights of one unit, as every step of one rollout reads them."""

    x: Tensor
    """Of X: update gate, reset gate and candidate, (3 * hidden, in_channels, k, k)."""
    bias: Tensor
    """The sums of the biases of X's and H's convolutions, (3 * hidden,)."""
    h: Tensor
    """Of H: update gate and reset gate."""
    candidate: Tensor
    """Of reset gate times H, into the candidate."""


class ConvGRU(Cell):
    """One ConvGRU with an update and a reset gate; M passes through unchanged.

    Parameters
    ----------
    in_channels:
        Channels of X.
    hidden:
        Channels of H.
    filter_size:
        Side of the square kernels in cells of the patch grid, odd.
    dropout:
        Probability that training drops an element of X before the gates. The candidate reads all
        of X, as in the published code.
    fused:
        Whether gates and candidate read X in one convolution whenever they read the same X.
    """

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        filter_size: int = 5,
        *,
        dropout: float = 0.0,
        fused: bool = True,
        circular: bool = False,
    ):
        super().__init__(in_channels, hidden, circular=circular)
        self.dropout, self.fused = dropout, fused
        padding = filter_size // 2
        self.i2h = nn.Conv2d(in_channels, 2 * hidden, filter_size, padding=padding)
        self.h2h = nn.Conv2d(hidden, 2 * hidden, filter_size, padding=padding)
        self.xg = nn.Conv2d(in_channels, hidden, filter_size, padding=padding)
        self.hg = nn.Conv2d(hidden, hidden, filter_size, padding=padding)

    def kernels(self) -> GRUKernels:
        from_x = torch.cat([self.i2h.weight, self.xg.weight])
        bias = torch.cat([_bias(self.i2h) + _bias(self.h2h), _bias(self.xg) + _bias(self.hg)])
        weights = (from_x, bias, self.h2h.weight, self.hg.weight)
        return GRUKernels(*(for_this_precision(weight) for weight in weights))

    def initial_state(self, start: Start) -> GRUState:
        return GRUState(hidden=start(self.hidden))

    def initial_memory(self, start: Start) -> None:
        """Return None: a GRU has no M."""

    def read(self, x_bchw: Tensor, kernels: GRUKernels) -> Reading:
        drops = self.training and self.dropout > 0
        if self.fused and not drops:
            return (convolve(x_bchw, kernels.x, kernels.bias, circular=self.circular),)
        parts = [2 * self.hidden, self.hidden]
        inputs = (F.dropout(x_bchw, self.dropout, self.training), x_bchw)
        weights = zip(inputs, kernels.x.split(parts), kernels.bias.split(parts), strict=True)
        return (torch.cat([convolve(*of, circular=self.circular) for of in weights], dim=1),)

    def advance(
        self, reading: Reading, state: GRUState, memory: Any, kernels: GRUKernels
    ) -> CellOutput:
        from_x, candidate = reading[0].split([2 * self.hidden, self.hidden], dim=1)
        from_h = convolve(state.hidden, kernels.h, circular=self.circular)
        update, reset = torch.sigmoid(from_x + from_h).chunk(2, dim=1)
        kept = convolve(reset * state.hidden, kernels.candidate, circular=self.circular)
        # H keeps the precision of its first state (float32 under autocast) by type promotion.
        renewed = 1 - update
        hidden = renewed * torch.tanh(candidate + kept) + update * state.hidden
        return CellOutput(hidden, renewed, GRUState(hidden), memory)


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias
