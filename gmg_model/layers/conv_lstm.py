"""The convolutional LSTM cell (Shi et al., 2015, without peepholes).

Axes: b sample, c channel, h row, w column.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from gmg_model.layers.cell import Cell, CellOutput, Reading, Start
from gmg_model.layers.convolution import convolve, for_this_precision
from gmg_model.layers.st_lstm import BareConvolution, LSTMState


class ConvLSTMKernels(NamedTuple):
    """The convolutions of one cell as this rollout reads them."""

    x: Tensor
    h: Tensor


class ConvLSTM(Cell):
    """One ConvLSTM cell; M passes through untouched.

    Parameters
    ----------
    in_channels:
        Channels of X.
    hidden:
        Channels of H and C.
    filter_size:
        Side of the square kernels, in cells, odd.
    forget_bias:
        Added to the forget gate before its sigmoid; the published code has 0.
    """

    DEAD_IN_CHECKPOINTS = ("conv_o.0.weight", "conv_last.weight")
    """Weights that published checkpoints carry and that no output depends on."""

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        filter_size: int = 5,
        *,
        forget_bias: float = 1.0,
        circular: bool = False,
    ):
        super().__init__(in_channels, hidden, circular=circular)
        self.forget_bias = forget_bias
        self.conv_x = BareConvolution(in_channels, 4 * hidden, filter_size)
        self.conv_h = BareConvolution(hidden, 4 * hidden, filter_size)

    def kernels(self) -> ConvLSTMKernels:
        return ConvLSTMKernels(*(for_this_precision(c.weight) for c in (self.conv_x, self.conv_h)))

    def initial_state(self, start: Start) -> LSTMState:
        return LSTMState(hidden=start(self.hidden), cell=start(self.hidden))

    def read(self, x_bchw: Tensor, kernels: ConvLSTMKernels) -> Reading:
        return (convolve(x_bchw, kernels.x, circular=self.circular),)

    def advance(
        self, reading: Reading, state: LSTMState, memory: Any, kernels: ConvLSTMKernels
    ) -> CellOutput:
        gates = reading[0] + convolve(state.hidden, kernels.h, circular=self.circular)
        entry, forget, candidate, output = gates.chunk(4, dim=1)
        kept = torch.sigmoid(forget + self.forget_bias) * state.cell
        c_bchw = kept + torch.sigmoid(entry) * torch.tanh(candidate)
        output = torch.sigmoid(output)
        h_bchw = output * torch.tanh(c_bchw)
        return CellOutput(h_bchw, output, LSTMState(h_bchw, c_bchw), memory)
