"""The convolutional LSTM cell (Shi et al., 2015, without peepholes).

Axes: b sample, c channel, h row, w column.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from gmg_model.layers.convolution import convolve, for_this_precision
from gmg_model.layers.st_lstm import BareConvolution, CellOutput


class ConvLSTMKernels(NamedTuple):
    """The convolutions of one cell as this rollout reads them."""

    x: Tensor
    h: Tensor


class ConvLSTM(nn.Module):
    """One ConvLSTM cell with the interface of `SpatioTemporalLSTM`; M passes through untouched.

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
        super().__init__()
        self.hidden, self.forget_bias, self.circular = hidden, forget_bias, circular
        self.conv_x = BareConvolution(in_channels, 4 * hidden, filter_size)
        self.conv_h = BareConvolution(hidden, 4 * hidden, filter_size)

    def kernels(self) -> ConvLSTMKernels:
        """What `forward` wants as ``kernels``: made once a rollout."""
        return ConvLSTMKernels(*(for_this_precision(c.weight) for c in (self.conv_x, self.conv_h)))

    def forward(
        self,
        x_bchw: Tensor,
        h_bchw: Tensor,
        c_bchw: Tensor,
        m_bchw: Tensor,
        kernels: ConvLSTMKernels,
    ) -> CellOutput:
        """One time step: X (B, in, h, w), H, C, M (B, hidden, h, w)."""
        gates = convolve(x_bchw, kernels.x, circular=self.circular)
        gates = gates + convolve(h_bchw, kernels.h, circular=self.circular)
        entry, forget, candidate, output = gates.chunk(4, dim=1)
        kept = torch.sigmoid(forget + self.forget_bias) * c_bchw
        c_bchw = kept + torch.sigmoid(entry) * torch.tanh(candidate)
        output = torch.sigmoid(output)
        return CellOutput(output * torch.tanh(c_bchw), output, c_bchw, m_bchw)
