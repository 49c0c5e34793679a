"""The Global Focus Module (Eq. 1-6) and its simplified form (Eq. 20-21).

Symbols as in the paper: X input, H hidden state, X_g global features, g_t feature focus.
Axes: b sample, c channel, h row, w column.
"""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gmg_model.layers.convolution import at_least_float32, convolve, for_this_precision

SCALES = (1, 3, 5)
"""Sides of the kernels of Eq. 5."""
FOCUS_SIZE = 5
"""Side of the one kernel that those of Eq. 5 merge into, and of the kernel of Eq. 20."""


class GlobalFeatures(nn.Module):
    """Eq. 1-2: X (B, in, h, w) -> X_g (B, hidden): convolution, global average pool, linear."""

    def __init__(self, in_channels: int, hidden: int, *, circular: bool = False):
        super().__init__()
        self.circular = circular
        self.conv = nn.Conv2d(in_channels, hidden, 3, padding=1)
        self.fc = nn.Linear(hidden, hidden)

    def forward(self, x_bchw: Tensor) -> Tensor:
        features = convolve(x_bchw, self.conv.weight, self.conv.bias, circular=self.circular)
        pooled = at_least_float32(torch.relu(features)).mean((2, 3))
        return torch.relu(self.fc(pooled))


class MultiScaleFocus(nn.Module):
    """Eq. 5: the sum of biased 1x1, 3x3 and 5x5 convolutions of X, (B, hidden, h, w)."""

    def __init__(self, in_channels: int, hidden: int, *, circular: bool = False):
        super().__init__()
        self.circular = circular
        self.convs = nn.ModuleList(
            nn.Conv2d(in_channels, hidden, size, padding=size // 2) for size in SCALES
        )

    def forward(self, x_bchw: Tensor) -> Tensor:
        parts = [
            convolve(x_bchw, conv.weight, conv.bias, circular=self.circular)
            for conv in self._scales()
        ]
        return reduce(torch.add, parts)

    def merged(self) -> tuple[Tensor, Tensor]:
        """Return the one 5x5 kernel and bias whose convolution equals the sum of the three."""
        scales = self._scales()
        rims = [(FOCUS_SIZE - size) // 2 for size in SCALES]
        weights = [F.pad(conv.weight, [rim] * 4) for conv, rim in zip(scales, rims, strict=True)]
        biases = [conv.bias for conv in scales if conv.bias is not None]
        # Not torch.stack(...).sum(0): the gradients of its summands would be views of one tensor,
        # and gradient clipping, which works in place, would scale that tensor three times.
        return reduce(torch.add, weights), reduce(torch.add, biases)

    def _scales(self) -> list[nn.Conv2d]:
        return [cast(nn.Conv2d, conv) for conv in self.convs]


class SimplifiedFocus(nn.Module):
    """Eq. 20: one bias-free convolution of X (GMG-s), (B, hidden, h, w)."""

    def __init__(self, in_channels: int, hidden: int, *, circular: bool = False):
        super().__init__()
        self.circular = circular
        self.conv = nn.Conv2d(in_channels, hidden, FOCUS_SIZE, padding=FOCUS_SIZE // 2, bias=False)

    def forward(self, x_bchw: Tensor) -> Tensor:
        return convolve(x_bchw, self.conv.weight, circular=self.circular)

    def merged(self) -> tuple[Tensor, None]:
        """Return the kernel, and None for the bias."""
        return self.conv.weight, None


class GateKernels(NamedTuple):
    """The kernel of the gate of Eq. 3 for one rollout, split by what it reads."""

    of_hidden: Tensor
    """The half that reads H."""
    of_global: Tensor
    """The half that reads X_g."""


def gate_kernels(gate: nn.Conv2d) -> GateKernels:
    """Split the gate's kernel (hidden, 2 * hidden, 3, 3) into its two halves."""
    halves = gate.weight.chunk(2, dim=1)
    return GateKernels(*(for_this_precision(half) for half in halves))


def fuse_global(
    h_bchw: Tensor,
    x_global_bc: Tensor,
    gate: nn.Conv2d,
    kernels: GateKernels | None = None,
    *,
    circular: bool = False,
) -> Tensor:
    """Compute Eq. 3-4: mix H with the global features by a gate that reads both, (B, hidden, h, w).

    X_g is one number per channel, spread over the grid as a constant field. With `kernels` only H
    is convolved on the full grid: the convolution of a constant field differs from its interior
    value only at the border, so a grid of 3 x 3 cells already yields all nine different values.
    """
    constant = x_global_bc[:, :, None, None]
    if kernels is None:
        field = constant.expand_as(h_bchw)
        both = torch.cat([h_bchw, field], dim=1)
        sums = convolve(both, gate.weight, gate.bias, circular=circular)
    else:
        sums = convolve(h_bchw, kernels.of_hidden, gate.bias, circular=circular)
        small = convolve(constant.expand(-1, -1, 3, 3), kernels.of_global, circular=circular)
        sums = sums + _spread(small, *h_bchw.shape[-2:])
    share = torch.sigmoid(sums)
    return h_bchw * share + constant * (1 - share)


def _spread(small_bc33: Tensor, height: int, width: int) -> Tensor:
    """Copy corners, edges and interior of a 3 x 3 grid to their places in a larger grid."""
    device = small_bc33.device
    rows = torch.ones(height, dtype=torch.long, device=device)
    rows[0], rows[-1] = 0, 2
    columns = torch.ones(width, dtype=torch.long, device=device)
    columns[0], columns[-1] = 0, 2
    return small_bc33.index_select(2, rows).index_select(3, columns)
