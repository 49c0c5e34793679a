"""States that span a short window of frames, (B, C, d, h, w), and the convolutions over them.

A 3-D kernel that is as deep as the window and is not padded in depth has one position in depth. It
is therefore a 2-D convolution over d * C channels, which every back end runs well.

Axes: b sample, c channel, d frame of the window, h row, w column; I and O are the numbers of input
and output channels.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from gmg_model.layers.convolution import convolve


class WindowConvolution(nn.Sequential):
    """A bias-free convolution with a kernel as deep as the window: (B, I, d, h, w) to (B, O, h, w).

    Published checkpoints name its container, hence `Sequential`. It holds the weight in its
    published shape; cells convolve with `as_channels` of it.
    """

    def __init__(self, in_channels: int, out_channels: int, depth: int, filter_size: int):
        half = filter_size // 2
        size = (depth, filter_size, filter_size)
        super().__init__(
            nn.Conv3d(in_channels, out_channels, size, padding=(0, half, half), bias=False)
        )

    @property
    def weight(self) -> Tensor:
        """The kernel (O, I, d, k, k)."""
        return cast(nn.Conv3d, self[0]).weight


def as_channels(x: Tensor) -> Tensor:
    """Merge the window into the channels of states (B, C, d, h, w) or weights (O, I, d, k, k).

    Tensors without a window (4 axes) are returned unchanged.

    >>> import torch
    >>> as_channels(torch.zeros(1, 8, 2, 4, 6)).shape
    torch.Size([1, 16, 4, 6])
    """
    return x if x.ndim == 4 else x.flatten(1, 2)


def convolve_each(x: Tensor, weight: Tensor, bias: Tensor | None, *, circular: bool) -> Tensor:
    """Convolve each frame of the window: (B, I, d, h, w) -> (B, O, d, h, w), or without d."""
    if x.ndim == 4:
        return convolve(x, weight, bias, circular=circular)
    frames = convolve(x.transpose(1, 2).flatten(0, 1), weight, bias, circular=circular)
    return frames.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)


def over_window(x_bchw: Tensor, depth: int) -> Tensor:
    """Repeat x in every frame of the window, as a view: (B, C, h, w) -> (B, C, depth, h, w)."""
    return x_bchw.unsqueeze(2).expand(-1, -1, depth, -1, -1)
