"""The interface of a recurrent cell, which every model's time step is made of.

A step has two parts: `Cell.read` computes what depends on the input X alone, and `Cell.advance`
runs the recurrence. They are separate because the first part can run for many frames at once.

Symbols: X input, H hidden state, M the memory that goes from cell to cell. Axes: b sample,
c channel, d frame of the window, h row, w column of the patch grid.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

Start = Callable[..., Tensor]
"""`start(channels, scale=1, depth=None)` returns a first state, zeros or a random draw, of shape
(B, channels, h / scale, w / scale), or with a depth (B, channels, depth, h / scale, w / scale)."""

Reading = tuple[Tensor, ...]
"""What `Cell.read` returns: tensors (B, ...) that depend on the input of a step alone."""


class CellOutput(NamedTuple):
    """The results of one step of one cell."""

    hidden: Tensor
    """H_t (B, hidden, h, w), before the highway and the motion module."""
    output_gate: Tensor
    """o_t, same shape; the motion highway uses it as well."""
    state: Any
    """The state for the next step of this cell: a named tuple with H_t as `hidden`."""
    memory: Any
    """M_t, for the next cell, and from the last cell for the first cell of the next step."""


class Cell(nn.Module, ABC):
    """One recurrent cell of a stack.

    Parameters
    ----------
    in_channels:
        Channels of X: those of the patch frame in cell 1, `hidden` in the cells above.
    hidden:
        Channels of H and of the memories.
    circular:
        Whether columns wrap around (longitude).
    """

    grid: tuple[int, int] | None = None
    """Rows and columns of the only patch grid that the weights fit; None: any grid."""
    grows: bool = False
    """Whether the state grows at each step, so that no two steps have the same shapes."""
    depth: int = 1
    """Number of frames in the window that H spans. With 1, H is (B, hidden, h, w); with more, H and
    the X of the cell above are (B, hidden, depth, h, w)."""

    def __init__(self, in_channels: int, hidden: int, *, circular: bool = False):
        super().__init__()
        self.in_channels, self.hidden, self.circular = in_channels, hidden, circular

    @abstractmethod
    def kernels(self) -> Any:
        """Return the weights as every step of one rollout reads them; called once per rollout."""

    @abstractmethod
    def initial_state(self, start: Start) -> Any:
        """Return the state before the first step: a named tuple with H as `hidden`."""

    def initial_memory(self, start: Start) -> Any:
        """Return M before the first step, if this is the first cell of a stack."""
        return start(self.hidden)

    @abstractmethod
    def read(self, x_bchw: Tensor, kernels: Any) -> Reading:
        """Return what the step takes from X (B, in_channels, h, w), independent of the state."""

    @abstractmethod
    def advance(self, reading: Reading, state: Any, memory: Any, kernels: Any) -> CellOutput:
        """Run one time step, given what `read`, the step before and the cell below returned."""
