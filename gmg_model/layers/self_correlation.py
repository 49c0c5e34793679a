"""SRVP's self-correlation maps (Eq. 6-10), which raise the contrast of what attention reads.

Axes: b sample, n frame or channel that is correlated, s all elements of one of them, t frame,
c channel, l recurrent layer, h row, w column.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gmg_model.layers.convolution import GridConvolution, at_least_float32

NORMALISE = ("reduce", "unit")
FLOOR = 1e-6
"""Added under the root of a length, so that a vector of zeros stays 0 and has a finite gradient."""


def unit(x: Tensor, dim: int) -> Tensor:
    """Scale the vectors along `dim` to length 1.

    >>> unit(torch.tensor([[3.0, 4.0]]), dim=1)
    tensor([[0.6000, 0.8000]])
    """
    x = at_least_float32(x)
    return x * torch.rsqrt(x.square().sum(dim, keepdim=True) + FLOOR)


def length(x: Tensor, dim: int) -> Tensor:
    """Return the L2 norms along `dim`; the axis is removed."""
    return torch.linalg.vector_norm(at_least_float32(x), dim=dim)


def self_correlation(x_bns: Tensor, normalise: str) -> Tensor:
    """Compute Eq. 7 and 9: (B, N, S) -> (B, N, S).

    The map is `Norm(P)^T Norm(X)` with `P = X softmax(X)^T / S`. With `normalise="unit"`, the
    paper's text, Norm scales every column to length 1. With `"reduce"`, as published, Norm is the
    length itself, so the map is the outer product of one number per n and one number per s.
    """
    product = torch.bmm(x_bns, x_bns.softmax(1).transpose(1, 2).to(x_bns.dtype)) / x_bns.shape[-1]
    if normalise == "reduce":
        return length(product, 1)[:, :, None] * length(x_bns, 1)[:, None, :]
    return torch.bmm(unit(product, 1).transpose(1, 2), unit(x_bns, 1))


class AddAndNorm(nn.Module):
    """Eq. 8 and 10: add a map to features, then bring each of N parts to mean 0, variance 1.

    The paper writes LayerNorm; the published code uses group norm with one group per part.
    """

    def __init__(self, parts: int, dropout: float):
        super().__init__()
        self.dropout = dropout
        self.norm = nn.GroupNorm(parts, parts)

    def forward(self, correlation: Tensor, features: Tensor) -> Tensor:
        """Add and normalise, (B, N, ...) each; training applies dropout to the features."""
        return self.norm(correlation + F.dropout(features, self.dropout, self.training))


class FrameProjection(nn.Module):
    """Eq. 6: one small network with batch norm, applied to every frame: C -> hidden channels.

    In training the batch norm uses the statistics of one frame over the samples of this process,
    and updates its running averages once per frame.
    """

    REPEATED_IN_CHECKPOINTS: Mapping[str, str]
    """Prefixes under which published checkpoints repeat the shared network, each with the prefix
    under which it is kept here."""

    def __init__(self, channels: int, hidden: int, frames: int, *, circular: bool):
        super().__init__()
        self.REPEATED_IN_CHECKPOINTS = {f"layers.{t}.": "layers.0." for t in range(1, frames)}
        network = nn.Sequential(
            GridConvolution(channels, hidden // 2, 3, circular=circular),
            nn.BatchNorm2d(hidden // 2),
            nn.ReLU(),
            GridConvolution(hidden // 2, hidden, 3, circular=circular),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
        )
        self.layers = nn.ModuleList([network])

    def forward(self, frames_btchw: Tensor) -> Tensor:
        """Project every frame: (B, T, C, h, w) -> (B, T, hidden, h, w)."""
        network = self.layers[0]
        return torch.stack([network(frame) for frame in frames_btchw.unbind(1)], dim=1)


class TemporalSelfCorrelation(nn.Module):
    """Eq. 6-8: reinforced features, from observed frames and the encoder's features of them.

    Parameters
    ----------
    channels, hidden:
        Channels of a patch frame, and of a feature map.
    frames:
        Number of observed frames; the norm has a scale and a shift for each.
    normalise:
        See `self_correlation`.
    dropout:
        Probability that training drops an element of the features.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        frames: int,
        *,
        normalise: str,
        dropout: float,
        circular: bool,
    ):
        super().__init__()
        self.normalise = normalise
        self.lpconv = FrameProjection(channels, hidden, frames, circular=circular)
        self.norm = AddAndNorm(frames, dropout)

    def forward(self, frames_btchw: Tensor, features_btchw: Tensor) -> Tensor:
        """Return (B, T, hidden, h, w) from frames (B, T, C, h, w) and features of that shape."""
        projected = self.lpconv(frames_btchw)
        correlation = self_correlation(projected.flatten(2), self.normalise)
        return self.norm(correlation.view_as(features_btchw), features_btchw)


class SpatialSelfCorrelation(nn.Module):
    """Eq. 9-10: reinforced features (B, hidden, h, w) from H of all layers (B, L*hidden, h, w)."""

    def __init__(
        self, in_channels: int, hidden: int, *, normalise: str, dropout: float, circular: bool
    ):
        super().__init__()
        self.normalise = normalise
        self.norm = AddAndNorm(in_channels, dropout)
        self.conv2d = nn.Sequential(
            GridConvolution(in_channels, hidden, 3, circular=circular), nn.Tanh()
        )

    def forward(self, h_bchw: Tensor) -> Tensor:
        correlation = self_correlation(h_bchw.flatten(2), self.normalise)
        return self.conv2d(self.norm(correlation.view_as(h_bchw), h_bchw))
