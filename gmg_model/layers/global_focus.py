"""The Global Focus Module (Eq. 1-6) and its simplified form (Eq. 20-21).

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
FOCUS_SIZE = 5
"""Side of the kernel that a feature focus merges into."""


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
        """The one 5x5 kernel and bias that equal the three."""
        scales = self._scales()
        rims = [(FOCUS_SIZE - size) // 2 for size in SCALES]
        weights = [F.pad(conv.weight, [rim] * 4) for conv, rim in zip(scales, rims, strict=True)]
        biases = [conv.bias for conv in scales if conv.bias is not None]
        # One addition after the other: the gradients of a stack's sum would be views of one memory,
        # which clipping and accumulation would then change once for each of them.
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
        """The kernel, and no bias."""
        return self.conv.weight, None


class GateKernels(NamedTuple):
    """The gate of Eq. 3 for one rollout: the parts of its kernel that see H and X_g."""

    of_hidden: Tensor
    of_global: Tensor


def gate_kernels(gate: nn.Conv2d) -> GateKernels:
    """The two halves of the kernel (hidden, 2 * hidden, 3, 3)."""
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
    """Eq. 3-4: mix H with the global features by a gate that sees both, (B, hidden, h, w).

    With ``kernels`` only H is convolved on the full grid: the part of a constant field has the same
    value everywhere but at the rim, so convolving a grid of 3 x 3 cells yields all its values.
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
    """Corners, edges and interior of a 3 x 3 grid at their places in a larger one."""
    device = small_bc33.device
    rows = torch.ones(height, dtype=torch.long, device=device)
    rows[0], rows[-1] = 0, 2
    columns = torch.ones(width, dtype=torch.long, device=device)
    columns[0], columns[-1] = 0, 2
    return small_bc33.index_select(2, rows).index_select(3, columns)
