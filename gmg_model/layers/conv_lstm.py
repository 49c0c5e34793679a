"""The convolutional LSTM cell (Shi et al., 2015, Eq. 3, without peepholes).

Axes: b sample, c channel, h row, w column.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from gmg_model.layers.cell import CellOutput, Reading
from gmg_model.layers.convolution import convolve
from gmg_model.layers.lstm import (
    FORGET_BIAS,
    BareConvolution,
    LSTMCell,
    LSTMState,
    rollout_weights,
    update_memory,
)


class ConvLSTMKernels(NamedTuple):
    """The convolution weights of one cell, as every step of one rollout reads them."""

    x: Tensor
    h: Tensor


class ConvLSTM(LSTMCell):
    """One ConvLSTM cell; M passes through unchanged.

    Parameters
    ----------
    in_channels:
        Channels of X.
    hidden:
        Channels of H and C.
    filter_size:
        Side of the square kernels in cells of the patch grid, odd.
    forget_bias:
        Added to the forget gate before its sigmoid; 0 in the published code.
    """

    DEAD_IN_CHECKPOINTS = ("conv_o.0.weight", "conv_last.weight")
    """Weights that published checkpoints hold although no output depends on them."""

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        filter_size: int = 5,
        *,
        forget_bias: float = FORGET_BIAS,
        circular: bool = False,
    ):
        super().__init__(in_channels, hidden, circular=circular)
        self.forget_bias = forget_bias
        self.conv_x = BareConvolution(in_channels, 4 * hidden, filter_size)
        self.conv_h = BareConvolution(hidden, 4 * hidden, filter_size)

    def kernels(self) -> ConvLSTMKernels:
        return ConvLSTMKernels(*rollout_weights(self.conv_x, self.conv_h))

    def advance(
        self, reading: Reading, state: LSTMState, memory: Any, kernels: ConvLSTMKernels
    ) -> CellOutput:
        gates = reading[0] + convolve(state.hidden, kernels.h, circular=self.circular)
        i_bchw, f_bchw, g_bchw, o_bchw = gates.chunk(4, dim=1)
        c_bchw = update_memory(i_bchw, f_bchw, g_bchw, state.cell, self.forget_bias)
        output = torch.sigmoid(o_bchw)
        h_bchw = output * torch.tanh(c_bchw)
        return CellOutput(h_bchw, output, LSTMState(h_bchw, c_bchw), memory)
