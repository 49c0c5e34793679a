"""What a stack asks of a recurrent cell: one interface for every model's time step.

A step is in two parts, because the first can run for many frames at once: `Cell.read` is what the
cell takes from its input X alone, `Cell.advance` the recurrence. Axes: b sample, c channel, h row,
w column of the patch grid.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

Start = Callable[..., Tensor]
"""``start(channels, scale=1, depth=None)``: a first state (B, channels, h / scale, w / scale), or
with a depth (B, channels, depth, h / scale, w / scale); zeros or a random draw."""

Reading = tuple[Tensor, ...]
"""Tensors (B, ...) that depend on the input of a step alone."""


class CellOutput(NamedTuple):
    """What one cell hands on."""

    hidden: Tensor
    """H_t (B, hidden, h, w), before the highway and the motion module."""
    output_gate: Tensor
    """o_t, same shape, which the highway reuses."""
    state: Any
    """What the cell wants back at its next step: a named tuple with H_t as ``hidden``."""
    memory: Any
    """M_t, which goes on to the next cell, and from the last cell to the first of the next step."""


class Cell(nn.Module, ABC):
    """One recurrent cell of a stack.

    Parameters
    ----------
    in_channels:
        Channels of X: the patch frame's at cell 1, ``hidden`` above.
    hidden:
        Channels of H and of the memories.
    circular:
        Whether columns wrap around the globe.
    """

    grid: tuple[int, int] | None = None
    """Rows and columns of the only patch grid that the weights fit; None: any."""
    grows: bool = False
    """Whether the state takes up more at each step, so that no two steps have the same shapes."""
    depth: int = 1
    """Frames of the window that H spans: at 1, H is (B, hidden, h, w), above that it is
    (B, hidden, depth, h, w), and so is X of the cell above."""

    def __init__(self, in_channels: int, hidden: int, *, circular: bool = False):
        super().__init__()
        self.in_channels, self.hidden, self.circular = in_channels, hidden, circular

    @abstractmethod
    def kernels(self) -> Any:
        """The cell's weights as every step of one rollout reads them: made once a rollout."""

    @abstractmethod
    def initial_state(self, start: Start) -> Any:
        """The state before the first step: a named tuple whose field ``hidden`` is H."""

    def initial_memory(self, start: Start) -> Any:
        """M before the first step, where this is the first cell of a stack."""
        return start(self.hidden)

    @abstractmethod
    def read(self, x_bchw: Tensor, kernels: Any) -> Reading:
        """What the step takes from X (B, in_channels, h, w), whatever the state."""

    @abstractmethod
    def advance(self, reading: Reading, state: Any, memory: Any, kernels: Any) -> CellOutput:
        """One time step."""
