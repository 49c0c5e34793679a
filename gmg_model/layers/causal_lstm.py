"""The Causal LSTM and the gradient highway unit of PredRNN++ (Wang et al., 2018, Eq. 3 and 4).

Gates before their activation are named as in the papers: i input gate, f forget gate, g candidate,
o output gate. Their source stands behind the underscore: `f_x` is what f takes from X.
Axes: b sample, c channel, h row, w column.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from gmg_model.layers.cell import Cell, CellOutput, Reading, Start
from gmg_model.layers.convolution import convolve
from gmg_model.layers.lstm import (
    FORGET_BIAS,
    BareConvolution,
    LSTMCell,
    LSTMState,
    rollout_weights,
    update_memory,
)

HIGHWAY_INITIAL = 0.001
"""The highway's first weights are drawn from [-0.001, 0.001], as published. Its switch then starts
near 1/2: the new Z is about half the old one."""


class CausalKernels(NamedTuple):
    """The convolution weights of one cell, as every step of one rollout reads them."""

    x: Tensor
    h: Tensor
    c: Tensor
    """Of the old C."""
    m: Tensor
    c2m: Tensor
    """Of the new C."""
    om: Tensor
    """Of the new M into the output gate."""
    last: Tensor
    """Of [C, M] into H, 1 x 1."""


class CausalLSTM(LSTMCell):
    """One Causal LSTM (Eq. 3): C is updated first, and the gates of M see the new C.

    The forget biases are +1; there are no other biases.

    Parameters
    ----------
    in_channels:
        Channels of X: those of the patch frame in cell 1, `hidden` in the cells above.
    hidden:
        Channels of H, C and M.
    filter_size:
        Side of the square kernels in cells of the patch grid, odd.
    """

    DEAD_IN_CHECKPOINTS = ("conv_o.0.weight",)
    """Weights that published checkpoints hold although no output depends on them."""

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
        return CausalKernels(*rollout_weights(*layers, self.conv_last))

    def advance(
        self, reading: Reading, state: LSTMState, memory: Tensor, kernels: CausalKernels
    ) -> CellOutput:
        n, circular = self.hidden, self.circular
        # C: one set of gates from X, H and the old C.
        first_x, second_x, o_x = reading[0].split([3 * n, 3 * n, n], dim=1)
        first_h, o_h = convolve(state.hidden, kernels.h, circular=circular).split([3 * n, n], dim=1)
        from_c = convolve(state.cell, kernels.c, circular=circular)
        i_bchw, f_bchw, g_bchw = (first_x + first_h + from_c).chunk(3, dim=1)
        c_bchw = update_memory(i_bchw, f_bchw, g_bchw, state.cell)

        # M: a second set of gates from X, the old M and the new C. The published code orders those
        # of the new C i, g, f, o.
        i_c, g_c, f_c, o_c = convolve(c_bchw, kernels.c2m, circular=circular).chunk(4, dim=1)
        i_x, f_x, g_x = second_x.chunk(3, dim=1)
        i_m, f_m, old_m = convolve(memory, kernels.m, circular=circular).chunk(3, dim=1)
        kept = torch.sigmoid(f_x + f_m + f_c + FORGET_BIAS) * torch.tanh(old_m)
        entered = torch.sigmoid(i_x + i_m + i_c)
        m_bchw = kept + entered * torch.tanh(g_x + g_c)

        # H: the output gate sees both new memories, and is a tanh as in the paper.
        o_m = convolve(m_bchw, kernels.om, circular=circular)
        output = torch.tanh(o_x + o_h + o_c + o_m)
        both = torch.cat([c_bchw, m_bchw], dim=1)
        hidden = output * torch.tanh(convolve(both, kernels.last))
        return CellOutput(hidden, output, LSTMState(hidden, c_bchw), m_bchw)


class HighwayState(NamedTuple):
    """The recurrent state of the highway."""

    hidden: Tensor
    """Z (B, hidden, h, w)."""


class HighwayKernels(NamedTuple):
    """The convolution weights of the unit, as every step of one rollout reads them."""

    x: Tensor
    z: Tensor


class GradientHighway(Cell):
    """The gradient highway unit (Eq. 4), a layer of its own whose H is Z; M passes unchanged.

    `Z_t = s * tanh(p) + (1 - s) * Z_{t-1}`, with the switch s and the candidate p computed from X
    and Z. Gradients reach early steps through Z without passing a memory cell.
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
        return HighwayKernels(*rollout_weights(self.x_concat, self.z_concat))

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
