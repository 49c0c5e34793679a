"""The motion-guided module of GMG, Eq. 7-19 of its paper, and MotionRNN's MotionGRU (its Eq. 2-4).

Both are a GRU whose state F is a field of offsets, a trend D (momentum) of F, and a warp by F. GMG
adds a factor on D that grows and decays (Eq. 11-16).

Axes: b sample, c channel, n offset channel (nine rows, then nine columns), h row and w column of
the grid of stride 2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gmg_model.errors import require_one_of
from gmg_model.layers.convolution import at_least_float32, convolve
from gmg_model.layers.warp import TAPS, Warp

DECAYS = ("unit", "elapsed", "none", "batch_index")
OFFSETS = ("bounded", "additive")


class GrowthAndDecay(nn.Module):
    """Eq. 11-16: the factor that multiplies the momentum D, one number per sample.

    Parameters
    ----------
    channels:
        Channels of the encoded hidden state.
    decay:
        Eq. 15. `"unit"`: exp(-beta) at each step, geometric forgetting. `"elapsed"`:
        exp(-beta t), t the index of the step from 0. `"none"`: 1. `"batch_index"`:
        exp(-beta b), b the sample's position in the batch, as the published code computes it.
    bounded:
        Whether the factor is clamped to [-1, 1]. Without the clamp D can grow without limit,
        because alpha is learned.
    own_growth:
        Whether Eq. 16 multiplies alpha by a third, bias-free linear output (as the published code
        does) in place of alpha_d.
    """

    def __init__(self, channels: int, *, decay: str, bounded: bool, own_growth: bool):
        super().__init__()
        require_one_of("decay", decay, DECAYS)
        self.decay, self.bounded = decay, bounded
        self.alpha_default = nn.Parameter(torch.tensor(0.5))
        self.alpha_fc = nn.Linear(channels, 1)
        if decay != "none":
            self.beta_default = nn.Parameter(torch.tensor(0.9))
            self.beta_fc = nn.Linear(channels, 1)
        self.fc_global = nn.Linear(channels, 1, bias=False) if own_growth else None

    def forward(self, encoded_bchw: Tensor, step: Tensor) -> Tensor:
        """Return the factor De + alpha * alpha_d of Eq. 16: (B, C, h, w) -> (B, 1, 1, 1)."""
        with torch.autocast(encoded_bchw.device.type, enabled=False):
            # Eq. 11, then Eq. 12-13.
            pooled = at_least_float32(encoded_bchw).mean((2, 3)).to(self.alpha_fc.weight.dtype)
            alpha_d = torch.sigmoid(self.alpha_fc(pooled))
            alpha = (alpha_d + self.alpha_default) / 2
            growth = alpha_d if self.fc_global is None else torch.sigmoid(self.fc_global(pooled))
            factor = self._remaining(pooled, step) + alpha * growth
            if self.bounded:
                factor = factor.clamp(-1, 1)
        return factor[:, :, None, None]

    def _remaining(self, pooled: Tensor, step: Tensor) -> Tensor | float:
        """Compute De, the decay of Eq. 15, from the beta of Eq. 12 and 14: (B, 1) or 1."""
        if self.decay == "none":
            return 1.0
        beta_default = self.beta_default
        if self.decay != "batch_index":
            # The learned default beta' must not be negative, or D would grow; the absolute value
            # has a gradient on both sides of 0, unlike a clamp.
            beta_default = beta_default.abs()
        beta = (torch.sigmoid(self.beta_fc(pooled)) + beta_default) / 2
        if self.decay == "unit":
            return torch.exp(-beta)
        if self.decay == "elapsed":
            return torch.exp(-beta * step)
        position = torch.arange(len(pooled), device=pooled.device, dtype=pooled.dtype)
        return torch.exp(-beta * position[:, None])


class MotionFilter(nn.Module):
    """Eq. 7-10 and 17-19: new offsets F and trend D from the encoded state, then the warp.

    Parameters
    ----------
    channels:
        Channels of the encoded hidden state.
    offsets:
        Eq. 18. `"bounded"`: F = (F' + D) / 2, which stays within [-1, 1] if the factor on D is
        bounded too. `"additive"`: F = F' + D, the published recurrence, which can diverge.
    offset_scale:
        Number of cells of the stride-2 grid that an offset of 1 means in the warp.
    growth:
        The factor on D (GMG); None: 1, which makes this MotionRNN's MotionGRU with step size
        alpha = 0.5.
    """

    def __init__(
        self,
        channels: int,
        *,
        offsets: str = "bounded",
        offset_scale: float = 1.0,
        growth: GrowthAndDecay | None = None,
        circular: bool = False,
    ):
        super().__init__()
        require_one_of("offsets", offsets, OFFSETS)
        self.bounded, self.offset_scale, self.circular = (
            offsets == "bounded",
            offset_scale,
            circular,
        )
        both = channels + 2 * TAPS
        self.update = nn.Conv2d(both, 2 * TAPS, 3, padding=1)
        self.reset = nn.Conv2d(both, 2 * TAPS, 3, padding=1)
        self.output = nn.Conv2d(both, 2 * TAPS, 3, padding=1)
        for layer in (self.update, self.reset, self.output):
            nn.init.zeros_(layer.weight)
        self.warp = Warp(channels, circular=circular)
        self.global_growth_module = growth

    def forward(
        self, encoded_bchw: Tensor, filter_bnhw: Tensor, momentum_bnhw: Tensor, step: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the warped state (B, C, h, w), and the new F and D (B, 18, h, w) each.

        Parameters
        ----------
        encoded_bchw:
            The encoded hidden state on the grid of stride 2.
        filter_bnhw, momentum_bnhw:
            F and D of the step before.
        step:
            Index of the step from 0, a scalar tensor.
        """
        both = torch.cat([encoded_bchw, filter_bnhw], dim=1)
        assert self.update.bias is not None
        assert self.reset.bias is not None
        # Eq. 7-8: update and reset gate, in one convolution.
        gates = torch.sigmoid(
            convolve(
                both,
                torch.cat([self.update.weight, self.reset.weight]),
                torch.cat([self.update.bias, self.reset.bias]),
                circular=self.circular,
            )
        )
        update, reset = gates.chunk(2, dim=1)
        # Eq. 9-10: the candidate z and F', the transient variation.
        candidate = torch.tanh(
            convolve(
                torch.cat([encoded_bchw, filter_bnhw * reset], dim=1),
                self.output.weight,
                self.output.bias,
                circular=self.circular,
            )
        )
        transient = filter_bnhw * (1 - update) + candidate * update
        # Eq. 16-18: the trend D and the new F.
        if self.global_growth_module is not None:
            momentum_bnhw = self.global_growth_module(encoded_bchw, step) * momentum_bnhw
        momentum_bnhw = 0.5 * momentum_bnhw + 0.5 * filter_bnhw
        filter_bnhw = transient + momentum_bnhw
        if self.bounded:
            filter_bnhw = 0.5 * filter_bnhw
        warped = self.warp(encoded_bchw, filter_bnhw * self.offset_scale)
        return warped, filter_bnhw, momentum_bnhw
