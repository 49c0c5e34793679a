"""The Eidetic 3D LSTM cell (Wang et al., ICLR 2019), in the form of the published PyTorch port.

States span a window of two frames. Each convolution spans it too and has one output, which stands
for both frames; so gates, global memory and recalled query are the same in both, and only H and C
differ between them, by the layer norm's weights. Axes: b sample, c channel, d frame of the window,
h row, w column, s position to recall from or for.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from gmg_model.layers.attention_memory import attend
from gmg_model.layers.cell import Cell, CellOutput, Reading, Start
from gmg_model.layers.convolution import convolve, for_this_precision
from gmg_model.layers.st_lstm import FORGET_BIAS
from gmg_model.layers.window import WindowConvolution, as_channels, over_window

WINDOW = 2
"""Frames that a state spans, as published."""


class EideticState(NamedTuple):
    """The recurrent state of one cell."""

    hidden: Tensor
    """H (B, hidden, 2, h, w)."""
    cell: Tensor
    """C, same shape."""
    history: tuple[Tensor, ...]
    """The C of the steps before, as the recall reads them: (B, S, hidden) each. It grows with the
    rollout unless the cell has a memory length."""
    earlier: Tensor | None
    """In cell 1: what the gates take from the frame before, (B, 7 * hidden, h, w); None: zeros."""


class EideticKernels(NamedTuple):
    """The convolutions of one cell as this rollout reads them, all 2-D."""

    x: Tensor
    h: Tensor
    m: Tensor
    o: Tensor
    """Of [C, M] into the output gate."""
    last: Tensor


class EideticLSTM(Cell):
    """One E3D-LSTM cell, without biases, forget bias +1.

    C is recalled from its whole history by unscaled attention and normalised; a global memory M
    goes from cell to cell. The published port hands on the M it was given, which is zero at every
    step; here, as in the paper, the cell hands on the one it made.

    Parameters
    ----------
    in_channels:
        Channels of X.
    hidden:
        Channels of H, C and M.
    filter_size:
        Side of the kernels, in cells, odd; their depth is the window's.
    grid:
        Rows and columns of the patch grid, to which the layer norm is bound.
    of_frames:
        Whether X are single frames (cell 1), of which this and the one before make the window.
    memory_length:
        States of C that the recall sees, the latest; None: all since the first frame.
    published_recall:
        Whether queries and keys are runs of ``hidden`` consecutive numbers of a state in memory,
        as the published port takes them, in place of the channels of one position.
    fused:
        Whether what is the same in both frames of the window is computed once.
    """

    depth, grows = WINDOW, True

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        filter_size: int,
        grid: tuple[int, int],
        *,
        of_frames: bool,
        memory_length: int | None = None,
        published_recall: bool = False,
        fused: bool = True,
        circular: bool = False,
    ):
        super().__init__(in_channels, hidden, circular=circular)
        self.grid, self.of_frames, self.memory_length = grid, of_frames, memory_length
        self.published_recall, self.fused = published_recall, fused
        size = (WINDOW, filter_size)
        self.norm = nn.LayerNorm([hidden, WINDOW, *grid])
        self.conv_x = WindowConvolution(in_channels, 7 * hidden, *size)
        self.conv_h = WindowConvolution(hidden, 4 * hidden, *size)
        self.conv_gm = WindowConvolution(hidden, 4 * hidden, *size)
        self.conv_new_cell = WindowConvolution(hidden, hidden, *size)
        self.conv_new_gm = WindowConvolution(hidden, hidden, *size)
        self.conv_last = nn.Conv3d(2 * hidden, hidden, 1, bias=False)

    def kernels(self) -> EideticKernels:
        x = self.conv_x.weight
        # Of a frame, what it gives as the window's last and, a step later, as its first.
        of_x = torch.cat([x[:, :, 1], x[:, :, 0]]) if self.of_frames else as_channels(x)
        of_c, of_m = as_channels(self.conv_new_cell.weight), self._of_memory(self.conv_new_gm)
        weights = (
            of_x,
            as_channels(self.conv_h.weight),
            self._of_memory(self.conv_gm),
            torch.cat([of_c, of_m], dim=1),
            self.conv_last.weight[:, :, 0],
        )
        return EideticKernels(*(for_this_precision(weight) for weight in weights))

    def _of_memory(self, layer: WindowConvolution) -> Tensor:
        """A kernel as it reads M, which is the same in both frames."""
        return layer.weight.sum(2) if self.fused else as_channels(layer.weight)

    def _spread(self, m_bchw: Tensor) -> Tensor:
        return m_bchw if self.fused else as_channels(over_window(m_bchw, WINDOW))

    def initial_state(self, start: Start) -> EideticState:
        hidden, cell = (start(self.hidden, depth=WINDOW) for _ in range(2))
        return EideticState(hidden, cell, (), None)

    def read(self, x_bchw: Tensor, kernels: EideticKernels) -> Reading:
        """Of frames (B, in_channels, h, w) at cell 1, of states (B, in_channels, 2, h, w) above."""
        return (convolve(as_channels(x_bchw), kernels.x, circular=self.circular),)

    def advance(
        self, reading: Reading, state: EideticState, memory: Tensor, kernels: EideticKernels
    ) -> CellOutput:
        n, circular = self.hidden, self.circular
        from_x, earlier = reading[0], None
        if self.of_frames:
            from_x, earlier = from_x.split(7 * n, dim=1)
            if state.earlier is not None:
                from_x = from_x + state.earlier
        from_h = convolve(as_channels(state.hidden), kernels.h, circular=circular)
        entry, candidate, recall, output = (from_x[:, : 4 * n] + from_h).chunk(4, dim=1)

        history = (*state.history, self._positions(state.cell))
        history = history[-self.memory_length :] if self.memory_length else history
        recalled = self._recall(torch.sigmoid(recall), torch.cat(history, dim=1))
        entered = torch.sigmoid(entry) * torch.tanh(candidate)
        cell = self.norm(state.cell + recalled) + entered.unsqueeze(2)

        from_m = convolve(self._spread(memory), kernels.m, circular=circular).to(memory.dtype)
        entry_m, forget_m, candidate_m, kept_m = from_m.chunk(4, dim=1)
        entry_x, candidate_x, forget_x = from_x[:, 4 * n :].chunk(3, dim=1)
        kept = torch.sigmoid(forget_x + forget_m + FORGET_BIAS) * torch.tanh(kept_m)
        memory = kept + torch.sigmoid(entry_x + entry_m) * torch.tanh(candidate_x + candidate_m)

        both = torch.cat([as_channels(cell), self._spread(memory)], dim=1)
        output = output + convolve(both, kernels.o, circular=circular)
        output = torch.sigmoid(torch.tanh(output)).unsqueeze(2)
        both = torch.cat([cell, over_window(memory, WINDOW)], dim=1)
        # A 1 x 1 kernel takes the frames of the window for more rows.
        mixed = convolve(both.flatten(2, 3), kernels.last).unflatten(2, (WINDOW, -1))
        hidden = output * torch.tanh(mixed)
        return CellOutput(hidden, output, EideticState(hidden, cell, history, earlier), memory)

    def _recall(self, query_bchw: Tensor, history_bsc: Tensor) -> Tensor:
        """(B, hidden, h, w) and (B, S, hidden) to (B, hidden, 2 or 1, h, w)."""
        once = self.fused and not self.published_recall
        query = over_window(query_bchw, 1 if once else WINDOW)
        keys_bcs = history_bsc.transpose(1, 2)
        found_bcs = attend(self._positions(query).transpose(1, 2), keys_bcs, keys_bcs)
        if self.published_recall:
            return found_bcs.transpose(1, 2).reshape(query.shape)
        return found_bcs.reshape(query.shape)

    def _positions(self, x_bcdhw: Tensor) -> Tensor:
        """What attends or is attended to, (B, S, hidden), in the precision of this rollout."""
        x_bcdhw = for_this_precision(x_bcdhw)
        if self.published_recall:
            return x_bcdhw.reshape(len(x_bcdhw), -1, self.hidden)
        return x_bcdhw.flatten(2).transpose(1, 2).contiguous()


def own_name(name: str) -> str:
    """Where a tensor of a published E3D-LSTM checkpoint belongs in a stack of these cells.

    >>> own_name("cell_list.0.conv_x.0.conv3d.weight"), own_name("cell_list.1._norm_c_t.bias")
    ('cell_list.0.conv_x.0.weight', 'cell_list.1.norm.bias')
    """
    return name.replace(".conv3d.", ".").replace("._norm_c_t.", ".norm.")
