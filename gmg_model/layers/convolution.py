"""Convolutions that keep the size of the grid, with columns that may wrap around (longitude).

Axes: b sample, c channel, h row, w column; I input channels, O output channels, k kernel side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CPU_BLOCK = 256
"""Largest number of output channels of one convolution on a CPU. Wider convolutions run in blocks,
because the gradient of a kernel that does not fit into the cache runs at half the speed
(docs/models.md)."""


def convolve(
    x_bchw: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    circular: bool = False,
) -> Tensor:
    """Convolve with an odd kernel, padding the grid with zeros on all sides.

    With `circular` the columns continue on the other side (longitude) in place of the zeros.
    Shapes: x (B, I, H, W), weight (O, I, k, k), result (B, O, H / stride, W / stride).
    """
    rows, columns = weight.shape[-2] // 2, weight.shape[-1] // 2
    if circular and columns:
        x_bchw = F.pad(x_bchw, (columns, columns, 0, 0), mode="circular")
        columns = 0
    if weight.is_cuda or len(weight) <= CPU_BLOCK:
        return F.conv2d(x_bchw, weight, bias, stride=stride, padding=(rows, columns))
    weights = weight.split(CPU_BLOCK)
    biases = [None] * len(weights) if bias is None else bias.split(CPU_BLOCK)
    blocks = [
        F.conv2d(x_bchw, block, shift, stride=stride, padding=(rows, columns))
        for block, shift in zip(weights, biases, strict=True)
    ]
    return torch.cat(blocks, dim=1)


class GridConvolution(nn.Conv2d):
    """A layer with weight and bias that runs `convolve`: odd kernel, same grid."""

    def __init__(self, in_channels: int, out_channels: int, size: int, *, circular: bool = False):
        super().__init__(in_channels, out_channels, size, padding=size // 2)
        self.circular = circular

    def forward(self, input: Tensor) -> Tensor:
        return convolve(input, self.weight, self.bias, circular=self.circular)


def upsample_twice(
    x_bchw: Tensor, weight: Tensor, bias: Tensor | None, *, circular: bool
) -> Tensor:
    """Run a 4x4 transposed convolution of stride 2: (B, I, h, w) -> (B, O, 2h, 2w)."""
    if not circular:
        return F.conv_transpose2d(x_bchw, weight, bias, stride=2, padding=1)
    wrapped = F.pad(x_bchw, (1, 1, 0, 0), mode="circular")
    # One column more on each side makes two more columns of output on each side, which a padding
    # of 3 (1 + 2) crops.
    return F.conv_transpose2d(wrapped, weight, bias, stride=2, padding=(1, 3))


def for_this_precision(weight: Tensor) -> Tensor:
    """Cast a weight to the precision of this rollout, once for all its steps.

    Autocast caches the cast of a parameter, but not that of a weight that is itself a result (such
    as merged weights). It would cast such a weight again at every time step.
    """
    kind = weight.device.type
    if torch.is_autocast_enabled(kind) and weight.dtype == torch.float32:
        return weight.to(torch.get_autocast_dtype(kind))
    return weight


def at_least_float32(x: Tensor) -> Tensor:
    """Return half-precision values as float32; float32 and float64 as they are."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
