"""The deformable warp of Eq. 19: nine bilinear taps, a mask and one convolution over the taps.

Axes: b sample, c channel, n tap of the 3x3 window (row-major) or offset channel, h row, w column.
The 18 offset channels are nine row displacements, then nine column displacements, in cells of this
grid.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gmg_model.layers.convolution import at_least_float32, convolve

TAPS = 9


def tap_positions(offsets_bnhw: Tensor, *, circular: bool) -> tuple[Tensor, Tensor]:
    """Return the rows and columns at which each tap reads: two tensors (B, 9, H, W), in cells.

    Positions are clamped to at most one cell outside the grid, where samples are already 0. Samples
    and their derivatives are therefore those of the unclamped positions, and no offset, however
    large, can overflow. Circular columns are reduced into `[0, W)` instead.
    """
    height, width = offsets_bnhw.shape[-2:]
    device, dtype = offsets_bnhw.device, offsets_bnhw.dtype
    window = torch.arange(-1, 2, device=device, dtype=dtype)
    row = torch.arange(height, device=device, dtype=dtype).view(1, 1, -1, 1)
    column = torch.arange(width, device=device, dtype=dtype).view(1, 1, 1, -1)
    tap_row = window.repeat_interleave(3).view(1, TAPS, 1, 1)
    tap_column = window.repeat(3).view(1, TAPS, 1, 1)
    rows = (offsets_bnhw[:, :TAPS] + (row + tap_row)).clamp(-1, height)
    columns = offsets_bnhw[:, TAPS:] + (column + tap_column)
    columns = columns % width if circular else columns.clamp(-1, width)
    return rows, columns


def sample_taps(x_bchw: Tensor, offsets_bnhw: Tensor, *, circular: bool = False) -> Tensor:
    """Sample x bilinearly at the displaced taps, zero outside: (B, C, 9, H, W)."""
    batch, channels, height, width = x_bchw.shape
    rows, columns = tap_positions(offsets_bnhw, circular=circular)
    if circular:
        x_bchw = torch.cat([x_bchw, x_bchw[..., :1]], dim=-1)
    grid_width = x_bchw.shape[-1]
    # align_corners=False, because the other convention divides by size - 1: by 0 for one cell.
    grid = torch.stack(
        [(2 * columns + 1) / grid_width - 1, (2 * rows + 1) / height - 1], dim=-1
    ).view(batch, TAPS * height, width, 2)
    samples = F.grid_sample(
        x_bchw, grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return samples.view(batch, channels, TAPS, height, width)


def gather_taps(x_bchw: Tensor, offsets_bnhw: Tensor, *, circular: bool = False) -> Tensor:
    """Compute what `sample_taps` computes, by index, with a deterministic gradient.

    On a GPU the gradient of `sample_taps` adds with atomics, in the order in which threads happen
    to run. That of a gather is deterministic under `torch.use_deterministic_algorithms(True)`.
    """
    batch, channels, height, width = x_bchw.shape
    rows, columns = tap_positions(offsets_bnhw, circular=circular)
    top, left = rows.detach().floor(), columns.detach().floor()
    flat = x_bchw.flatten(2)
    result = None
    for down in (0, 1):
        for right in (0, 1):
            row, column = top + down, left + right
            weight = (1 - (rows - row).abs()) * (1 - (columns - column).abs())
            column = column % width if circular else column
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            index = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
            index = index.view(batch, 1, -1).expand(-1, channels, -1)
            value = flat.gather(2, index).view(batch, channels, TAPS, height, width)
            part = value * (weight * inside).unsqueeze(1)
            result = part if result is None else result + part
    assert result is not None
    return result


class Warp(nn.Module):
    """The deformable convolution of Eq. 19: x (B, C, H, W), offsets (B, 18, H, W) -> (B, C, H, W).

    Each of the nine taps is weighted by a mask that is computed from x. Samples and positions stay
    in float32 under autocast: between 8 and 16 cells, bfloat16 only resolves sixteenths of a cell.
    """

    def __init__(self, channels: int, *, circular: bool = False):
        super().__init__()
        self.circular = circular
        self.conv = nn.Conv2d(channels, channels, 3, stride=3, bias=False)
        self.warp_gate = nn.Conv2d(channels, TAPS, 3, padding=1)
        nn.init.zeros_(self.warp_gate.weight)

    def forward(self, x_bchw: Tensor, offsets_bnhw: Tensor) -> Tensor:
        batch, channels, height, width = x_bchw.shape
        mask = torch.sigmoid(
            convolve(x_bchw, self.warp_gate.weight, self.warp_gate.bias, circular=self.circular)
        )
        deterministic = torch.are_deterministic_algorithms_enabled() and x_bchw.is_cuda
        taps = gather_taps if deterministic else sample_taps
        x_full = at_least_float32(x_bchw)
        samples = taps(x_full, offsets_bnhw.to(x_full.dtype), circular=self.circular)
        masked = (samples * mask.unsqueeze(1)).view(batch, channels * TAPS, height * width)
        # The published code lays the taps out as a mosaic of 3x3 blocks and convolves it with
        # stride 3. That is one matrix product per cell of the grid.
        mixed = torch.matmul(self.conv.weight.flatten(1), masked)
        return mixed.view(batch, -1, height, width)
