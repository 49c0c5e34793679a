"""Memory In Memory (Wang et al., CVPR 2019): the forget gate of ST-LSTM as two recurrent cells.

Where ST-LSTM forgets its temporal memory C by one gate, a MIM block passes C through two cells with
memories of their own. MIM-N (non-stationary) reads how the layer below changed since the last step.
MIM-S (stationary) reads the output of MIM-N, and C.

Gates before their activation are named as in the papers: i input gate, f forget gate, g candidate,
o output gate. Their source stands behind the underscore: `f_x` is what f takes from X.
Axes: b sample, c channel, h row, w column.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gmg_model.layers.cell import Cell, CellOutput, Reading, Start
from gmg_model.layers.convolution import convolve, for_this_precision
from gmg_model.layers.lstm import FORGET_BIAS, BareConvolution, LSTMState
from gmg_model.layers.st_lstm import SpatioTemporalLSTM


class MIMMemory(NamedTuple):
    """What a cell of a MIM stack hands to the cell above it."""

    spatial: Tensor
    """M (B, hidden, h, w)."""
    difference: Tensor | None
    """The output of the MIM-N of the block below; None if the cell below has no MIM-N."""


class MIMState(NamedTuple):
    """The recurrent state of one MIM block, (B, hidden, h, w) each."""

    hidden: Tensor
    """H."""
    cell: Tensor
    """C."""
    stationary: Tensor
    """The memory of MIM-S. Here it starts anew with each rollout; the published code carries it
    over from one batch to the next, so that the same input gives another output."""
    non_stationary: LSTMState
    """Hidden state and memory of MIM-N."""
    below: Tensor | None
    """X of the step before, in the first block; None before the first frame and in the others."""


class MIMKernels(NamedTuple):
    """The convolution weights of one block, as every step of one rollout reads them."""

    x: Tensor
    h: Tensor
    m: Tensor
    stationary: Tensor
    non_stationary: Tensor
    last: Tensor


class PeepholeLSTM(nn.Module):
    """An LSTM whose gates also see its memory, by one weight per grid cell: MIM-S and MIM-N.

    Parameters
    ----------
    hidden:
        Channels of input, state and memory.
    filter_size:
        Side of the square kernels in cells of the patch grid, odd.
    grid:
        Rows and columns of the only patch grid that the peephole weights fit.
    """

    DEAD_IN_CHECKPOINTS = ("conv_last.weight",)
    """Weights of MIM-N that published checkpoints hold although no output depends on them."""

    def __init__(
        self, hidden: int, filter_size: int, grid: tuple[int, int], *, circular: bool = False
    ):
        super().__init__()
        self.hidden, self.circular = hidden, circular
        self.ct_weight = nn.Parameter(torch.zeros(2 * hidden, *grid))
        self.oc_weight = nn.Parameter(torch.zeros(hidden, *grid))
        self.conv_x_concat = BareConvolution(hidden, 4 * hidden, filter_size)
        self.conv_h_concat = BareConvolution(hidden, 4 * hidden, filter_size)

    def kernel(self) -> Tensor:
        """Return the weights of both convolutions as one convolution of [input, state]."""
        layers = (self.conv_x_concat, self.conv_h_concat)
        return for_this_precision(torch.cat([layer.weight for layer in layers], dim=1))

    def forward(self, x_bchw: Tensor, state: LSTMState, kernel: Tensor) -> LSTMState:
        """Run one time step; the memory keeps the precision of its first state."""
        both = torch.cat([x_bchw, state.hidden], dim=1)
        gates = convolve(both, kernel, circular=self.circular)
        # Published order of the gates: i, g, f, o.
        i_bchw, g_bchw, f_bchw, o_bchw = gates.chunk(4, dim=1)
        i_weight, f_weight = self.ct_weight.chunk(2)
        kept = torch.sigmoid(f_bchw + f_weight * state.cell + FORGET_BIAS) * state.cell
        cell = kept + torch.sigmoid(i_bchw + i_weight * state.cell) * torch.tanh(g_bchw)
        hidden = torch.sigmoid(o_bchw + self.oc_weight * cell) * torch.tanh(cell)
        return LSTMState(hidden, cell)


class MIMEntry(SpatioTemporalLSTM):
    """Cell 1 of a MIM stack: an ST-LSTM that hands no differences to the block above it."""

    def initial_memory(self, start: Start) -> MIMMemory:
        return MIMMemory(start(self.hidden), None)

    def advance(self, reading: Reading, state: LSTMState, memory: Any, kernels: Any) -> CellOutput:
        out = super().advance(reading, state, memory.spatial, kernels)
        return out._replace(memory=MIMMemory(out.memory, None))


class MIMBlock(Cell):
    """One MIM block, above a `MIMEntry` or another block.

    The MIM-N of the first block reads X_t - X_{t-1} (zeros at the first frame), where X is the
    block's own input. The MIM-N of a later block reads the output of the MIM-N below it. X is the H
    of the layer below, and behind a motion module it is the moved state; both terms of a difference
    are then moved states.

    Parameters
    ----------
    hidden:
        Channels of X, H and the memories.
    filter_size:
        Side of the square kernels in cells of the patch grid, odd.
    grid:
        Rows and columns of the only patch grid that the peephole weights fit.
    """

    def __init__(
        self, hidden: int, filter_size: int, grid: tuple[int, int], *, circular: bool = False
    ):
        super().__init__(hidden, hidden, circular=circular)
        self.grid = grid
        self.conv_x_cc = BareConvolution(hidden, 4 * hidden, filter_size)
        self.conv_t_cc = BareConvolution(hidden, 3 * hidden, filter_size)
        self.conv_s_cc = BareConvolution(hidden, 4 * hidden, filter_size)
        self.conv_last = nn.Conv2d(2 * hidden, hidden, 1, bias=False)
        self.stationary = PeepholeLSTM(hidden, filter_size, grid, circular=circular)
        self.non_stationary = PeepholeLSTM(hidden, filter_size, grid, circular=circular)

    def kernels(self) -> MIMKernels:
        return MIMKernels(
            x=for_this_precision(self.conv_x_cc.weight),
            h=for_this_precision(self.conv_t_cc.weight),
            m=for_this_precision(self.conv_s_cc.weight),
            stationary=self.stationary.kernel(),
            non_stationary=self.non_stationary.kernel(),
            last=for_this_precision(self.conv_last.weight),
        )

    def initial_state(self, start: Start) -> MIMState:
        n = self.hidden
        hidden, cell, stationary = start(n), start(n), start(n)
        return MIMState(hidden, cell, stationary, LSTMState(start(n), start(n)), None)

    def read(self, x_bchw: Tensor, kernels: MIMKernels) -> Reading:
        return convolve(x_bchw, kernels.x, circular=self.circular), x_bchw

    def advance(
        self, reading: Reading, state: MIMState, memory: MIMMemory, kernels: MIMKernels
    ) -> CellOutput:
        from_x, x_bchw = reading
        difference, below = memory.difference, None
        if difference is None:
            below = x_bchw
            difference = torch.zeros_like(below) if state.below is None else below - state.below
        non_stationary = self.non_stationary(
            difference, state.non_stationary, kernels.non_stationary
        )
        # Published order of the gates: i, g, f, o; C has no forget gate, which is what the two
        # cells replace.
        i_x, g_x, f_x, o_x = from_x.chunk(4, dim=1)
        from_h = convolve(state.hidden, kernels.h, circular=self.circular)
        i_h, g_h, o_h = from_h.chunk(3, dim=1)
        from_m = convolve(memory.spatial, kernels.m, circular=self.circular)
        i_m, g_m, f_m, o_m = from_m.chunk(4, dim=1)

        kept = torch.sigmoid(f_x + f_m + FORGET_BIAS) * memory.spatial
        spatial = kept + torch.sigmoid(i_x + i_m) * torch.tanh(g_x + g_m)
        kept, stationary = self.stationary(
            non_stationary.hidden, LSTMState(state.cell, state.stationary), kernels.stationary
        )
        cell = kept + torch.sigmoid(i_x + i_h) * torch.tanh(g_x + g_h)
        output = torch.sigmoid(o_x + o_h + o_m)
        both = torch.cat([cell, spatial], dim=1)
        hidden = output * torch.tanh(convolve(both, kernels.last))
        return CellOutput(
            hidden,
            output,
            MIMState(hidden, cell, stationary, non_stationary, below),
            MIMMemory(spatial, non_stationary.hidden),
        )


def own_name(name: str) -> str:
    """Return the name here of a tensor in a published MIM checkpoint.

    >>> own_name("stlstm_layer_diff.0.ct_weight")
    'cell_list.1.non_stationary.ct_weight'
    >>> own_name("stlstm_layer.2.conv_h_concat.0.weight")
    'cell_list.2.stationary.conv_h_concat.0.weight'
    """
    kind, _, rest = name.partition(".")
    layer, _, weight = rest.partition(".")
    if kind == "stlstm_layer_diff":
        return f"cell_list.{int(layer) + 1}.non_stationary.{weight}"
    if kind != "stlstm_layer":
        return name
    part = "stationary." if re.match(r"conv_[xh]_concat|(ct|oc)_weight", weight) else ""
    return f"cell_list.{layer}.{part}{weight}"
