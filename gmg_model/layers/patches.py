"""Frames to patch frames and back, and the padding of grids that patches do not divide evenly.

Axes: b sample, t frame, c channel, h row, w column; p is the patch size in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gmg_model.errors import ConfigurationError


def patchify(frames_bchw: Tensor, patch_size: int) -> Tensor:
    """Fold each `p x p` patch into channels: (..., C, H, W) -> (..., p*p*C, H/p, W/p).

    The new channels are ordered (row in the patch, column in the patch, C).

    >>> patchify(torch.arange(4.0).reshape(1, 2, 2), 2).flatten().tolist()
    [0.0, 1.0, 2.0, 3.0]
    """
    *lead, c, h, w = frames_bchw.shape
    p = patch_size
    blocks = frames_bchw.reshape(*lead, c, h // p, p, w // p, p)
    n = len(lead)
    order = (*range(n), n + 2, n + 4, n, n + 1, n + 3)
    return blocks.permute(order).reshape(*lead, p * p * c, h // p, w // p)


def unpatchify(patches_bchw: Tensor, patch_size: int) -> Tensor:
    """Undo `patchify`: (..., p*p*C, h, w) -> (..., C, h*p, w*p)."""
    *lead, channels, h, w = patches_bchw.shape
    p = patch_size
    c = channels // (p * p)
    blocks = patches_bchw.reshape(*lead, p, p, c, h, w)
    n = len(lead)
    order = (*range(n), n + 2, n + 3, n, n + 4, n + 1)
    return blocks.permute(order).reshape(*lead, c, h * p, w * p)


@dataclass(frozen=True)
class GridPadding:
    """How frames are padded at the bottom and the right to whole patches.

    The motion module halves the patch grid, so its models need a multiple of two patches.
    """

    multiple: int
    """The padded height and width are multiples of this number of pixels."""
    circular: bool = False
    """Whether padded columns continue on the other side (longitude) in place of repeating the edge.
    Padded rows always repeat the edge."""
    refuse: bool = False
    """Whether frames that need padding raise an error."""

    def __post_init__(self) -> None:
        if self.multiple < 1:
            raise ConfigurationError(f"multiple={self.multiple} pixels: give 1 or more")

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """Return the padded height and width.

        >>> GridPadding(8).padded(101, 64)
        (104, 64)
        """
        m = self.multiple
        return -(-height // m) * m, -(-width // m) * m

    def pad(self, frames_bchw: Tensor) -> Tensor:
        """Pad frames to the padded size: (..., H, W) -> (..., H', W').

        Raises
        ------
        ConfigurationError
            If the frames need padding and `refuse` is set.
        """
        height, width = frames_bchw.shape[-2:]
        new_height, new_width = self.padded(height, width)
        if (new_height, new_width) == (height, width):
            return frames_bchw
        if self.refuse:
            raise ConfigurationError(
                f"frames of {height} x {width} do not divide into the patches of this model: "
                f"height and width must be multiples of {self.multiple}; pad them to "
                f"{new_height} x {new_width}, or leave out compat='official', which pads by itself"
            )
        device = frames_bchw.device
        if new_height != height:
            rows = torch.arange(new_height, device=device).clamp(max=height - 1)
            frames_bchw = frames_bchw.index_select(-2, rows)
        if new_width != width:
            columns = torch.arange(new_width, device=device)
            columns = columns % width if self.circular else columns.clamp(max=width - 1)
            frames_bchw = frames_bchw.index_select(-1, columns)
        return frames_bchw
