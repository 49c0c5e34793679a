"""SRVP: strong recollection by attention to the observed frames (Kim and Park, 2025).

SRVP is an encoder-forecaster of convolutional GRUs (Eq. 1). Before the output, a standard-attention
branch (Eq. 2-5) and a reinforced-feature branch (Eq. 6-10) look back at what the encoder saw; the
output convolution reads the states and both branches (Eq. 11). The baselines of the paper are the
same encoder-forecaster without the branches, with one kind of cell each.

Axes: b sample, t observed frame, l recurrent layer, c channel, h row, w column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gmg_model.errors import ConfigurationError, require_one_of
from gmg_model.layers.causal_lstm import CausalLSTM, GradientHighway
from gmg_model.layers.cell import Cell
from gmg_model.layers.conv_gru import ConvGRU
from gmg_model.layers.recollection import ReinforcedFeatureAttention, StandardAttention
from gmg_model.layers.self_correlation import NORMALISE, TemporalSelfCorrelation
from gmg_model.models.configuration import OFFICIAL, configure
from gmg_model.models.encoder_forecaster import EncoderForecaster, EncoderForecasterConfig
from gmg_model.models.motionrnn import cell_maker


@dataclass(frozen=True)
class GRUForecasterConfig(EncoderForecasterConfig):
    """An encoder-forecaster of ConvGRUs."""

    dropout: float = 0.5
    """Probability that training drops an element of the input to a ConvGRU's gates; 0.5 as
    published. Each worker draws its own masks, so a run with dropout is repeatable only with the
    same number of workers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_probability("dropout", self.dropout)


@dataclass(frozen=True)
class SRVPConfig(GRUForecasterConfig):
    """SRVP's options; `compat="official"` is the published code."""

    embedding: int = 64
    """Channels of the two crossed maps of the reinforced-feature branch, even. Half as many of each
    go to the output."""
    normalise: str = "reduce"
    """What the paper calls L2 normalisation. `"reduce"`: the length itself, as in the published
    code, which made the published scores. `"unit"`: vectors of length 1, as in the text. With
    `"unit"` the logits of the temporal attention lie within 1 / sqrt(hidden * h * w) of 0 (0.0014
    at 64 x 64), which makes it nearly a plain mean over the frames; hence the default."""
    feature_dropout: float = 0.2
    """Probability that training drops an element of the features to which self-correlation is
    added (Eq. 8 and 10)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("normalise", self.normalise, NORMALISE)
        _check_probability("feature_dropout", self.feature_dropout)
        if self.embedding < 2 or self.embedding % 2:
            raise ConfigurationError(f"embedding={self.embedding}: give an even number from 2")


class SRVP(EncoderForecaster):
    """`SRVP(config)(frames (B, T, C, H, W), horizon) -> (B, horizon, C, H, W)`.

    T must be `config.input_frames`. In training, the batch norm of the frame projection (Eq. 6)
    uses the statistics of the samples of one process. So the samples of a batch depend on each
    other, and under DistributedDataParallel a run depends on the number of workers (the running
    averages of worker 0 are kept). In evaluation every sample is forecast independently.
    """

    config: SRVPConfig

    def __init__(self, config: SRVPConfig):
        super().__init__(
            config,
            _gru_maker(config),
            features=2 * config.width + 2 * (config.embedding // 2),
        )
        self.enc_sc = TemporalSelfCorrelation(
            config.patch_channels,
            config.width,
            config.input_frames,
            normalise=config.normalise,
            dropout=config.feature_dropout,
            circular=config.circular,
        )
        self.step1 = StandardAttention(config.width, normalise=config.normalise)
        self.step2 = ReinforcedFeatureAttention(
            config.layers,
            config.width,
            config.embedding,
            normalise=config.normalise,
            dropout=config.feature_dropout,
            circular=config.circular,
        )

    def check_observed(self, frames: int) -> None:
        if frames != self.config.input_frames:
            raise ConfigurationError(
                f"{frames} observed frames for a model with weights for "
                f"{self.config.input_frames}: make it with input_frames={frames}, or give "
                f"{self.config.input_frames} frames"
            )

    def remember(self, observed_btchw: Tensor, tops: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the encoder's features of each frame, and the reinforced features (Eq. 8)."""
        features_btchw = torch.stack(list(tops), dim=1)
        # Without static fields: self-correlation looks for what the frames have in common, and
        # fields that never change would dominate it.
        frames_btchw = observed_btchw[:, :, : self.config.patch_channels]
        return features_btchw, self.enc_sc(frames_btchw, features_btchw)

    def recollect(
        self, hidden: Sequence[Tensor], reference: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """Return F1 and F2 of Eq. 11: two maps of each branch."""
        features_btchw, reinforced_btchw = reference
        standard = self.step1(features_btchw, torch.stack(list(hidden), dim=1))
        return *standard, *self.step2(reinforced_btchw, torch.cat(list(hidden), dim=1))


def _check_probability(option: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ConfigurationError(f"{option}={value}: give a probability from 0, below 1")


def _gru_maker(config: GRUForecasterConfig) -> Callable[[int, int], Cell]:
    def make(in_channels: int, layer: int) -> Cell:
        return ConvGRU(
            in_channels,
            config.width,
            config.filter_size,
            dropout=config.dropout,
            fused=config.fused,
            circular=config.circular,
        )

    return make


BASELINE_OFFICIAL = {**OFFICIAL, "output": "sigmoid"}
SRVP_OFFICIAL = {**BASELINE_OFFICIAL, "normalise": "reduce"}


def _baseline(name: str, backbone: str, overrides: Mapping[str, Any]) -> EncoderForecaster:
    config = configure(name, EncoderForecasterConfig, {}, BASELINE_OFFICIAL, overrides)
    return EncoderForecaster(config, cell_maker(config, backbone, motion=False))


def srvp(**overrides: Any) -> SRVP:
    """SRVP (18.31 M at patch 1, one channel)."""
    return SRVP(configure("srvp", SRVPConfig, {}, SRVP_OFFICIAL, overrides))


def srvp_convgru(**overrides: Any) -> EncoderForecaster:
    """SRVP without its two branches."""
    config = configure("srvp-convgru", GRUForecasterConfig, {}, BASELINE_OFFICIAL, overrides)
    return EncoderForecaster(config, _gru_maker(config))


def srvp_convlstm(**overrides: Any) -> EncoderForecaster:
    """An encoder-forecaster of ConvLSTM cells."""
    return _baseline("srvp-convlstm", "convlstm", overrides)


def srvp_stlstm(**overrides: Any) -> EncoderForecaster:
    """An encoder-forecaster of ST-LSTM cells; the forecaster continues from the encoder's M."""
    return _baseline("srvp-stlstm", "predrnn", overrides)


def srvp_mim(**overrides: Any) -> EncoderForecaster:
    """An encoder-forecaster of MIM blocks, whose weights fit only frames of `in_shape`."""
    return _baseline("srvp-mim", "mim", overrides)


def srvp_causallstm(**overrides: Any) -> EncoderForecaster:
    """An encoder-forecaster of Causal LSTM cells with a gradient highway after the first.

    The highway is one layer more than `hidden` lists: five in all by default. Each has its own
    state, and its H is an input of the output convolution.
    """
    name = "srvp-causallstm"
    config = configure(name, EncoderForecasterConfig, {}, BASELINE_OFFICIAL, overrides)

    def make(in_channels: int, layer: int) -> Cell:
        kind = GradientHighway if layer == 1 else CausalLSTM
        return kind(in_channels, config.width, config.filter_size, circular=config.circular)

    return EncoderForecaster(config, make, extra_layers=1)


MODELS: Mapping[str, Callable[..., EncoderForecaster]] = {
    "srvp": srvp,
    "srvp-causallstm": srvp_causallstm,
    "srvp-convgru": srvp_convgru,
    "srvp-convlstm": srvp_convlstm,
    "srvp-mim": srvp_mim,
    "srvp-stlstm": srvp_stlstm,
}
