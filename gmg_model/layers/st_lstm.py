"""The spatiotemporal LSTM cell (Eq. 26-35 of the GMG paper; PredRNN, Wang et al., 2017).

Axes: b sample, c channel, h row, w column.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gmg_model.layers.cell import CellOutput, Reading
from gmg_model.layers.convolution import convolve
from gmg_model.layers.lstm import (
    BareConvolution,
    LSTMCell,
    LSTMState,
    rollout_weights,
    update_memory,
)


class LSTMKernels(NamedTuple):
    """The convolution weights of one cell, as every step of one rollout reads them."""

    x: Tensor
    """Of X: the gates of C (i, f, g), those of M (i', f', g'), then o: 7 * hidden outputs."""
    h: Tensor
    """Of H: i, f, g and o."""
    m: Tensor
    """Of M: i', f' and g'."""
    o: Tensor
    """Of [C, M] into o."""
    last: Tensor
    """Of [C, M] into H, 1 x 1."""


class SpatioTemporalLSTM(LSTMCell):
    """One ST-LSTM cell: gates of X, H and M without bias, forget bias +1, no layer norm.

    Parameters
    ----------
    in_channels:
        Channels of X: those of the patch frame in cell 1, `hidden` in the cells above.
    hidden:
        Channels of H, C and M.
    filter_size:
        Side of the square kernels in cells of the patch grid, odd.
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
        """Return the cell's own weights in the precision of this rollout."""
        return LSTMKernels(
            *rollout_weights(self.conv_x, self.conv_h, self.conv_m, self.conv_o, self.conv_last)
        )

    def kernels(self) -> Any:
        return self.lstm_kernels()

    def advance(
        self, reading: Reading, state: LSTMState, memory: Tensor, kernels: Any
    ) -> CellOutput:
        return self.gates(reading[0], state, memory, kernels)

    def gates(
        self, from_x: Tensor, state: LSTMState, m_bchw: Tensor, kernels: LSTMKernels
    ) -> CellOutput:
        """Compute Eq. 26-35, given what the gates take from X, (B, 7 * hidden, h, w)."""
        n = self.hidden
        from_h = convolve(state.hidden, kernels.h, circular=self.circular)
        from_m = convolve(m_bchw, kernels.m, circular=self.circular)
        # Eq. 26-29: the temporal memory C.
        i_bchw, f_bchw, g_bchw = (from_x[:, : 3 * n] + from_h[:, : 3 * n]).chunk(3, dim=1)
        c_bchw = update_memory(i_bchw, f_bchw, g_bchw, state.cell)
        # Eq. 30-33: the spatiotemporal memory M.
        i_bchw, f_bchw, g_bchw = (from_x[:, 3 * n : 6 * n] + from_m).chunk(3, dim=1)
        m_bchw = update_memory(i_bchw, f_bchw, g_bchw, m_bchw)
        # Eq. 34-35: the output gate o and H.
        both = torch.cat([c_bchw, m_bchw], dim=1)
        from_both = convolve(both, kernels.o, circular=self.circular)
        output = torch.sigmoid(from_x[:, 6 * n :] + from_h[:, 3 * n :] + from_both)
        hidden = output * torch.tanh(convolve(both, kernels.last))
        return CellOutput(hidden, output, LSTMState(hidden, c_bchw), m_bchw)
