"""SRVP's two branches, which look back at the observed frames (Eq. 2-5 and Fig. 3 and 4).

Standard attention works on the states of the recurrent layers. Reinforced feature attention works
on states whose contrast has been raised by self-correlation (`self_correlation.py`).

Axes: b sample, t observed frame, l recurrent layer, n and k what attends and what is attended to,
c channel, s position, h row, w column.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gmg_model.layers.convolution import GridConvolution, at_least_float32
from gmg_model.layers.self_correlation import SpatialSelfCorrelation, length, unit


def scaled_products(query_bns: Tensor, key_bks: Tensor) -> Tensor:
    """Return `query key^T / sqrt(S)` in float32 or better: (B, N, S), (B, K, S) -> (B, N, K).

    One entry sums up to half a million products (channels times positions). Half precision would
    round it by so much that the softmax that follows would give other weights.
    """
    with torch.autocast(query_bns.device.type, enabled=False):
        query_bns, key_bks = at_least_float32(query_bns), at_least_float32(key_bks)
        return torch.bmm(query_bns, key_bks.transpose(1, 2)) / math.sqrt(query_bns.shape[-1])


def attend_to_frames(query_blchw: Tensor, reference_btchw: Tensor, normalise: str) -> Tensor:
    """Compute Eq. 2, temporal attention: (B, L, c, h, w) and (B, T, c, h, w) -> (B, c, h, w).

    The layers share one softmax over the frames. With `normalise="reduce"`, as published, its
    logits are the lengths of the scaled products over the layers. With `"unit"`, the paper's
    text, the products are scaled to length 1 over the layers and then divided by sqrt(c * h * w);
    the weights are averaged over the layers, which the text leaves open. With a single layer
    nothing is normalised.
    """
    similar = scaled_products(query_blchw.flatten(2), reference_btchw.flatten(2))
    if similar.shape[1] == 1:
        attention = similar.softmax(-1)
    elif normalise == "reduce":
        attention = length(similar, 1)[:, None].softmax(-1)
    else:
        scale = math.sqrt(query_blchw[0, 0].numel())
        attention = (unit(similar, 1) / scale).softmax(-1).mean(1, keepdim=True)
    values = reference_btchw.flatten(2)
    return torch.bmm(attention.to(values.dtype), values).view_as(reference_btchw[:, 0])


def summarise_layers(hidden_blchw: Tensor, normalise: str) -> Tensor:
    """Normalise H "along the layers" for Eq. 3: (B, L, c, h, w) -> (B, c, h, w).

    `"reduce"`, as published: the length over the layers. `"unit"`: the mean over the layers
    after the vectors over the layers were scaled to length 1.
    """
    if normalise == "reduce":
        return length(hidden_blchw, 1)
    return unit(hidden_blchw, 1).mean(1)


class ChannelAttention(nn.Module):
    """Eq. 3-5: every channel of one map attends to all channels of another.

    The paper calls it spatial attention, but its weights are channel x channel: a product sums over
    all positions and is divided by the root of h * w.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.Wq = nn.Conv2d(channels, channels, 1)
        self.Wk = nn.Conv2d(channels, channels, 1)
        self.Wv = nn.Conv2d(channels, channels, 1)

    def forward(self, query_bchw: Tensor, other_bchw: Tensor) -> Tensor:
        """Let one map attend to another, both (B, c, h, w): -> (B, c, h, w)."""
        query, key = self.Wq(query_bchw).flatten(2), self.Wk(other_bchw).flatten(2)
        value = self.Wv(other_bchw).flatten(2)
        attention = scaled_products(query, key).softmax(-1)
        return torch.bmm(attention.to(value.dtype), value).view_as(query_bchw)


class StandardAttention(nn.Module):
    """Fig. 3: temporal attention (context) and spatial attention (refined), crossed (Eq. 5)."""

    def __init__(self, hidden: int, *, normalise: str):
        super().__init__()
        self.normalise = normalise
        self.sa = ChannelAttention(hidden)
        self.ta_to_sa = ChannelAttention(hidden)
        self.sa_to_ta = ChannelAttention(hidden)

    def forward(self, reference_btchw: Tensor, hidden_blchw: Tensor) -> tuple[Tensor, Tensor]:
        """Return two maps (B, hidden, h, w) from the encoder's features and the layers' H."""
        context = attend_to_frames(hidden_blchw, reference_btchw, self.normalise)
        target = summarise_layers(hidden_blchw, self.normalise)
        refined = self.sa(target, target)
        return self.ta_to_sa(context, refined), self.sa_to_ta(refined, context)


class ReinforcedFeatureAttention(nn.Module):
    """Fig. 4: standard attention on reinforced features, in `embedding` channels.

    Parameters
    ----------
    layers, hidden:
        Recurrent layers, and channels of each.
    embedding:
        Channels of the crossed maps; the results have half as many.
    normalise:
        See `gmg_model.layers.self_correlation`.
    dropout:
        Probability that training drops an element of the states before their norm.
    """

    def __init__(
        self,
        layers: int,
        hidden: int,
        embedding: int,
        *,
        normalise: str,
        dropout: float,
        circular: bool,
    ):
        super().__init__()
        self.normalise = normalise

        def narrowed(in_channels: int, out_channels: int) -> nn.Sequential:
            convolution = GridConvolution(in_channels, out_channels, 3, circular=circular)
            return nn.Sequential(convolution, nn.Tanh())

        self.dec_sc = SpatialSelfCorrelation(
            layers * hidden, hidden, normalise=normalise, dropout=dropout, circular=circular
        )
        self.sa = ChannelAttention(hidden)
        self.c_conv = narrowed(hidden, embedding)
        self.r_conv = narrowed(hidden, embedding)
        self.ta_to_sa = ChannelAttention(embedding)
        self.sa_to_ta = ChannelAttention(embedding)
        self.sf_conv = narrowed(embedding, embedding // 2)
        self.tf_conv = narrowed(embedding, embedding // 2)

    def forward(self, reinforced_btchw: Tensor, h_bchw: Tensor) -> tuple[Tensor, Tensor]:
        """Return two maps (B, embedding / 2, h, w).

        Parameters
        ----------
        reinforced_btchw:
            The encoder's features after `TemporalSelfCorrelation` (Eq. 8).
        h_bchw:
            H of all layers, (B, L * hidden, h, w).
        """
        target = self.dec_sc(h_bchw)
        context = self.c_conv(attend_to_frames(target[:, None], reinforced_btchw, self.normalise))
        refined = self.r_conv(self.sa(target, target))
        return (
            self.sf_conv(self.ta_to_sa(context, refined)),
            self.tf_conv(self.sa_to_ta(refined, context)),
        )
