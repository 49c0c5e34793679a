"""States that span a short window of frames, (B, C, d, h, w), and the convolutions over them.

A 3-D kernel as deep as the window, without padding in depth, has one place to stand: it is a 2-D
convolution of d * C channels, which every back end does well. Axes: b sample, c channel, d frame of
the window, h row, w column.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from gmg_model.layers.convolution import convolve


class WindowConvolution(nn.Sequential):
    """A bias-free convolution with a kernel as deep as the window: (B, I, d, h, w) to (B, O, h, w).

    The container is part of its name in published checkpoints. It holds the weight in its published
    shape; cells run it by `as_channels`.
    """

    def __init__(self, in_channels: int, out_channels: int, depth: int, filter_size: int):
        half = filter_size // 2
        size = (depth, filter_size, filter_size)
        super().__init__(
            nn.Conv3d(in_channels, out_channels, size, padding=(0, half, half), bias=False)
        )

    @property
    def weight(self) -> Tensor:
        """(O, I, d, k, k)."""
        return cast(nn.Conv3d, self[0]).weight


def as_channels(x: Tensor) -> Tensor:
    """States (B, C, d, h, w) or weights (O, I, d, k, k) with the window among the channels.

    Tensors without a window stay as they are.

    >>> import torch
    >>> as_channels(torch.zeros(1, 8, 2, 4, 6)).shape
    torch.Size([1, 16, 4, 6])
    """
    return x if x.ndim == 4 else x.flatten(1, 2)


def convolve_each(x: Tensor, weight: Tensor, bias: Tensor | None, *, circular: bool) -> Tensor:
    """The same 2-D convolution of each frame: (B, I, d, h, w) to (B, O, d, h, w), or without d."""
    if x.ndim == 4:
        return convolve(x, weight, bias, circular=circular)
    frames = convolve(x.transpose(1, 2).flatten(0, 1), weight, bias, circular=circular)
    return frames.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)


def over_window(x_bchw: Tensor, depth: int) -> Tensor:
    """The same in every frame of the window: (B, C, h, w) to (B, C, depth, h, w); a view."""
    return x_bchw.unsqueeze(2).expand(-1, -1, depth, -1, -1)
