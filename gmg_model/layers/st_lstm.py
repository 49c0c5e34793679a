"""The spatiotemporal LSTM cell (Eq. 26-35 of the GMG paper; PredRNN).

Axes: b sample, c channel, h row, w column.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from gmg_model.layers.cell import Cell, CellOutput, Reading, Start
from gmg_model.layers.convolution import convolve, for_this_precision

FORGET_BIAS = 1.0


class LSTMState(NamedTuple):
    """The recurrent state of one cell, (B, hidden, h, w) each."""

    hidden: Tensor
    """H."""
    cell: Tensor
    """C."""


class LSTMKernels(NamedTuple):
    """The convolutions of one cell as this rollout reads them."""

    x: Tensor
    h: Tensor
    m: Tensor
    o: Tensor
    last: Tensor


class BareConvolution(nn.Sequential):
    """A convolution without bias; the container is part of its name in published checkpoints."""

    def __init__(self, in_channels: int, out_channels: int, filter_size: int):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, filter_size, padding=filter_size // 2, bias=False)
        )

    @property
    def weight(self) -> Tensor:
        """(O, I, k, k)."""
        return cast(nn.Conv2d, self[0]).weight


class SpatioTemporalLSTM(Cell):
    """One ST-LSTM cell: gates of X, H and M without bias, forget bias +1, no layer norm.

    Parameters
    ----------
    in_channels:
        Channels of X: the patch frame's at cell 1, ``hidden`` above.
    hidden:
        Channels of H, C and M.
    filter_size:
        Side of the square kernels, in cells, odd.
    """

    def __init__(
        self, in_channels: int, hidden: int, filter_size: int = 5, *, circular: bool = False
    ):
        super().__init__(in_channels, hidden, circular=circular)
        self.conv_x = BareConvolution(in_channels, 7 * hidden, filter_size)
        self.conv_h = BareConvolution(hidden, 4 * hidden, filter_size)
        self.conv_m = BareConvolution(hidden, 3 * hidden, filter_size)
        self.conv_o = BareConvolution(2 * hidden, hidden, filter_size)
        self.conv_last = nn.Conv2d(2 * hidden, hidden, 1, bias=False)

    def lstm_kernels(self) -> LSTMKernels:
        """The cell's own weights in the precision of this rollout."""
        layers = (self.conv_x, self.conv_h, self.conv_m, self.conv_o, self.conv_last)
        return LSTMKernels(*(for_this_precision(layer.weight) for layer in layers))

    def kernels(self) -> Any:
        return self.lstm_kernels()

    def initial_state(self, start: Start) -> LSTMState:
        return LSTMState(hidden=start(self.hidden), cell=start(self.hidden))

    def read(self, x_bchw: Tensor, kernels: Any) -> Reading:
        return (convolve(x_bchw, kernels.x, circular=self.circular),)

    def advance(
        self, reading: Reading, state: LSTMState, memory: Tensor, kernels: Any
    ) -> CellOutput:
        return self.gates(reading[0], state, memory, kernels)

    def gates(
        self, from_x: Tensor, state: LSTMState, m_bchw: Tensor, kernels: LSTMKernels
    ) -> CellOutput:
        """Eq. 26-35, given the input-side gates ``from_x`` (B, 7 * hidden, h, w)."""
        n = self.hidden
        from_h = convolve(state.hidden, kernels.h, circular=self.circular)
        from_m = convolve(m_bchw, kernels.m, circular=self.circular)
        c_bchw = _forget_and_enter(from_x[:, : 3 * n] + from_h[:, : 3 * n], state.cell)
        m_bchw = _forget_and_enter(from_x[:, 3 * n : 6 * n] + from_m, m_bchw)
        both = torch.cat([c_bchw, m_bchw], dim=1)
        from_both = convolve(both, kernels.o, circular=self.circular)
        output = torch.sigmoid(from_x[:, 6 * n :] + from_h[:, 3 * n :] + from_both)
        hidden = output * torch.tanh(convolve(both, kernels.last))
        return CellOutput(hidden, output, LSTMState(hidden, c_bchw), m_bchw)


def _forget_and_enter(gates_bchw: Tensor, memory_bchw: Tensor) -> Tensor:
    entry, forget, candidate = gates_bchw.chunk(3, dim=1)
    kept = torch.sigmoid(forget + FORGET_BIAS) * memory_bchw
    # The memory keeps the precision of its start (float32 under autocast) by type promotion.
    return kept + torch.sigmoid(entry) * torch.tanh(candidate)
