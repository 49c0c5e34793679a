"""The Causal LSTM and the gradient highway unit of PredRNN++ (Wang et al., 2018, Eq. 3 and 4).

Axes: b sample, c channel, h row, w column.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from gmg_model.layers.cell import Cell, CellOutput, Reading, Start
from gmg_model.layers.convolution import convolve, for_this_precision
from gmg_model.layers.st_lstm import FORGET_BIAS, BareConvolution, LSTMState

HIGHWAY_INITIAL = 0.001
"""The highway's first weights are drawn from [-0.001, 0.001]: it begins as a plain mean with Z."""


class CausalKernels(NamedTuple):
    """The convolutions of one cell as this rollout reads them."""

    x: Tensor
    h: Tensor
    c: Tensor
    m: Tensor
    c2m: Tensor
    om: Tensor
    last: Tensor


class CausalLSTM(Cell):
    """One Causal LSTM: C is updated first, and M sees the new C; forget biases +1, no other bias.

    Parameters
    ----------
    in_channels:
        Channels of X: the patch frame's at cell 1, ``hidden`` above.
    hidden:
        Channels of H, C and M.
    filter_size:
        Side of the square kernels, in cells, odd.
    """

    DEAD_IN_CHECKPOINTS = ("conv_o.0.weight",)
    """A weight that published checkpoints carry and that no output depends on."""

    def __init__(
        self, in_channels: int, hidden: int, filter_size: int = 5, *, circular: bool = False
    ):
        super().__init__(in_channels, hidden, circular=circular)
        self.conv_x = BareConvolution(in_channels, 7 * hidden, filter_size)
        self.conv_h = BareConvolution(hidden, 4 * hidden, filter_size)
        self.conv_c = BareConvolution(hidden, 3 * hidden, filter_size)
        self.conv_m = BareConvolution(hidden, 3 * hidden, filter_size)
        self.conv_c2m = BareConvolution(hidden, 4 * hidden, filter_size)
        self.conv_om = BareConvolution(hidden, hidden, filter_size)
        self.conv_last = nn.Conv2d(2 * hidden, hidden, 1, bias=False)

    def kernels(self) -> CausalKernels:
        layers = (self.conv_x, self.conv_h, self.conv_c, self.conv_m, self.conv_c2m, self.conv_om)
        weights = (*(layer.weight for layer in layers), self.conv_last.weight)
        return CausalKernels(*(for_this_precision(weight) for weight in weights))

    def initial_state(self, start: Start) -> LSTMState:
        return LSTMState(hidden=start(self.hidden), cell=start(self.hidden))

    def read(self, x_bchw: Tensor, kernels: CausalKernels) -> Reading:
        return (convolve(x_bchw, kernels.x, circular=self.circular),)

    def advance(
        self, reading: Reading, state: LSTMState, memory: Tensor, kernels: CausalKernels
    ) -> CellOutput:
        n, circular = self.hidden, self.circular
        first_x, second_x, output_x = reading[0].split([3 * n, 3 * n, n], dim=1)
        first_h, output_h = convolve(state.hidden, kernels.h, circular=circular).split(
            [3 * n, n], dim=1
        )
        from_c = convolve(state.cell, kernels.c, circular=circular)
        entry, forget, candidate = (first_x + first_h + from_c).chunk(3, dim=1)
        kept = torch.sigmoid(forget + FORGET_BIAS) * state.cell
        c_bchw = kept + torch.sigmoid(entry) * torch.tanh(candidate)

        # Published order of the gates that the new C gives M: entry, candidate, forget, output.
        entry_c, candidate_c, forget_c, output_c = convolve(
            c_bchw, kernels.c2m, circular=circular
        ).chunk(4, dim=1)
        entry_x, forget_x, candidate_x = second_x.chunk(3, dim=1)
        entry_m, forget_m, old_m = convolve(memory, kernels.m, circular=circular).chunk(3, dim=1)
        kept = torch.sigmoid(forget_x + forget_m + forget_c + FORGET_BIAS) * torch.tanh(old_m)
        entry = torch.sigmoid(entry_x + entry_m + entry_c)
        m_bchw = kept + entry * torch.tanh(candidate_x + candidate_c)

        output_m = convolve(m_bchw, kernels.om, circular=circular)
        output = torch.tanh(output_x + output_h + output_c + output_m)
        both = torch.cat([c_bchw, m_bchw], dim=1)
        hidden = output * torch.tanh(convolve(both, kernels.last))
        return CellOutput(hidden, output, LSTMState(hidden, c_bchw), m_bchw)


class HighwayState(NamedTuple):
    """The recurrent state of the highway."""

    hidden: Tensor
    """Z (B, hidden, h, w)."""


class HighwayKernels(NamedTuple):
    """The convolutions of the unit as this rollout reads them."""

    x: Tensor
    z: Tensor


class GradientHighway(Cell):
    """``Z_t = s * tanh(p) + (1 - s) * Z_{t-1}``: a short way back in time; M passes through.

    A layer of its own between two others: it hands Z on as its H.
    """

    def __init__(
        self, in_channels: int, hidden: int, filter_size: int = 5, *, circular: bool = False
    ):
        super().__init__(in_channels, hidden, circular=circular)
        self.x_concat = BareConvolution(in_channels, 2 * hidden, filter_size)
        self.z_concat = BareConvolution(hidden, 2 * hidden, filter_size)
        for layer in (self.x_concat, self.z_concat):
            nn.init.uniform_(layer.weight, -HIGHWAY_INITIAL, HIGHWAY_INITIAL)

    def kernels(self) -> HighwayKernels:
        layers = (self.x_concat, self.z_concat)
        return HighwayKernels(*(for_this_precision(layer.weight) for layer in layers))

    def initial_state(self, start: Start) -> HighwayState:
        return HighwayState(hidden=start(self.hidden))

    def read(self, x_bchw: Tensor, kernels: HighwayKernels) -> Reading:
        return (convolve(x_bchw, kernels.x, circular=self.circular),)

    def advance(
        self, reading: Reading, state: HighwayState, memory: Tensor, kernels: HighwayKernels
    ) -> CellOutput:
        gates = reading[0] + convolve(state.hidden, kernels.z, circular=self.circular)
        candidate, switch = gates.chunk(2, dim=1)
        switch = torch.sigmoid(switch)
        z_bchw = switch * torch.tanh(candidate) + (1 - switch) * state.hidden
        return CellOutput(z_bchw, switch, HighwayState(z_bchw), memory)
