"""The Eidetic 3D LSTM cell (Wang et al., ICLR 2019), in the form of the published PyTorch port.

States span a window of two frames. Each convolution spans the window too and has one output for
both frames. So the gates, the global memory and the query of the recall are equal in both frames.
Only H and C differ between the frames, through the weights of the layer norm.

Gates before their activation are named as in the papers: i input gate, f forget gate, g candidate,
o output gate. Their source stands behind the underscore: `f_x` is what f takes from X.
Axes: b sample, c channel, d frame of the window, h row, w column, s position that is attended to
or attends.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from gmg_model.layers.attention_memory import attend
from gmg_model.layers.cell import Cell, CellOutput, Reading, Start
from gmg_model.layers.convolution import convolve, for_this_precision
from gmg_model.layers.lstm import FORGET_BIAS
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
    """The C of the earlier steps as the recall reads them, (B, S, hidden) each. It grows with each
    step unless the cell has a memory length."""
    earlier: Tensor | None
    """In cell 1: what the gates take from the previous frame, (B, 7 * hidden, h, w).
    None: zeros."""


class EideticKernels(NamedTuple):
    """The convolution weights of one cell, as every step of one rollout reads them, all 2-D."""

    x: Tensor
    h: Tensor
    m: Tensor
    o: Tensor
    """Of [C, M] into the output gate."""
    last: Tensor


class EideticLSTM(Cell):
    """One E3D-LSTM cell, without biases, forget bias +1.

    The RECALL of the paper replaces the forget gate of C: unscaled attention over the history of C,
    then a layer norm. A global memory M goes from cell to cell. The published port hands on the M
    that a cell was given, which is therefore zero at every step; here, as in the paper, a cell
    hands on its new M.

    Parameters
    ----------
    in_channels:
        Channels of X.
    hidden:
        Channels of H, C and M.
    filter_size:
        Side of the kernels in cells of the patch grid, odd; their depth is that of the window.
    grid:
        Rows and columns of the only patch grid that the layer norm fits.
    of_frames:
        Whether X is a single frame (cell 1). The window then consists of this frame and the
        previous one.
    memory_length:
        Number of the latest states of C that the recall sees; None: all since the first frame.
    published_recall:
        Whether a query or key is a run of `hidden` consecutive numbers of the state in computer
        memory, as in the published port, in place of the channels of one position.
    fused:
        Whether values that are equal in both frames of the window are computed once.
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
        # One convolution of a frame yields what it contributes now, as the last frame of the
        # window, and what it will contribute at the next step, as the first one.
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
        """Return a kernel as it reads M; M is equal in both frames, so its depths can be summed."""
        return layer.weight.sum(2) if self.fused else as_channels(layer.weight)

    def _spread(self, m_bchw: Tensor) -> Tensor:
        return m_bchw if self.fused else as_channels(over_window(m_bchw, WINDOW))

    def initial_state(self, start: Start) -> EideticState:
        hidden, cell = (start(self.hidden, depth=WINDOW) for _ in range(2))
        return EideticState(hidden, cell, (), None)

    def read(self, x_bchw: Tensor, kernels: EideticKernels) -> Reading:
        """Return what the gates take from X, (B, 7 * hidden or twice that, h, w).

        X is a frame (B, in_channels, h, w) in cell 1 and a state (B, in_channels, 2, h, w) above.
        """
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
        i_bchw, g_bchw, r_bchw, o_bchw = (from_x[:, : 4 * n] + from_h).chunk(4, dim=1)

        # RECALL, and the new C.
        history = (*state.history, self._positions(state.cell))
        history = history[-self.memory_length :] if self.memory_length else history
        recalled = self._recall(torch.sigmoid(r_bchw), torch.cat(history, dim=1))
        entered = torch.sigmoid(i_bchw) * torch.tanh(g_bchw)
        cell = self.norm(state.cell + recalled) + entered.unsqueeze(2)

        # The new global memory M.
        from_m = convolve(self._spread(memory), kernels.m, circular=circular).to(memory.dtype)
        i_m, f_m, g_m, old_m = from_m.chunk(4, dim=1)
        i_x, g_x, f_x = from_x[:, 4 * n :].chunk(3, dim=1)
        kept = torch.sigmoid(f_x + f_m + FORGET_BIAS) * torch.tanh(old_m)
        memory = kept + torch.sigmoid(i_x + i_m) * torch.tanh(g_x + g_m)

        # The output gate and H.
        both = torch.cat([as_channels(cell), self._spread(memory)], dim=1)
        output = o_bchw + convolve(both, kernels.o, circular=circular)
        # The published port applies both activations, one after the other.
        output = torch.sigmoid(torch.tanh(output)).unsqueeze(2)
        both = torch.cat([cell, over_window(memory, WINDOW)], dim=1)
        # For a 1 x 1 kernel the frames of the window can be stacked as more rows.
        mixed = convolve(both.flatten(2, 3), kernels.last).unflatten(2, (WINDOW, -1))
        hidden = output * torch.tanh(mixed)
        return CellOutput(hidden, output, EideticState(hidden, cell, history, earlier), memory)

    def _recall(self, query_bchw: Tensor, history_bsc: Tensor) -> Tensor:
        """Attend to the history: (B, hidden, h, w), (B, S, hidden) -> (B, hidden, 1 or 2, h, w)."""
        once = self.fused and not self.published_recall
        query = over_window(query_bchw, 1 if once else WINDOW)
        keys_bcs = history_bsc.transpose(1, 2)
        found_bcs = attend(self._positions(query).transpose(1, 2), keys_bcs, keys_bcs)
        if self.published_recall:
            return found_bcs.transpose(1, 2).reshape(query.shape)
        return found_bcs.reshape(query.shape)

    def _positions(self, x_bcdhw: Tensor) -> Tensor:
        """Return the vectors that attend or are attended to, (B, S, hidden)."""
        x_bcdhw = for_this_precision(x_bcdhw)
        if self.published_recall:
            return x_bcdhw.reshape(len(x_bcdhw), -1, self.hidden)
        return x_bcdhw.flatten(2).transpose(1, 2).contiguous()


def own_name(name: str) -> str:
    """Return the name here of a tensor in a published E3D-LSTM checkpoint.

    >>> own_name("cell_list.0.conv_x.0.conv3d.weight"), own_name("cell_list.1._norm_c_t.bias")
    ('cell_list.0.conv_x.0.weight', 'cell_list.1.norm.bias')
    """
    return name.replace(".conv3d.", ".").replace("._norm_c_t.", ".norm.")
