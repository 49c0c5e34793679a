"""MotionRNN (Wu et al., 2021) around a recurrent backbone, and the backbones by themselves.

Between each pair of cells a MotionGRU moves the hidden state by learned offsets, and the motion
highway ``H += (1 - o_t) * highway`` passes what does not move.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gmg_model.errors import ConfigurationError, require_one_of
from gmg_model.layers.cell import Cell
from gmg_model.layers.conv_lstm import ConvLSTM
from gmg_model.layers.mim import MIMBlock, MIMEntry
from gmg_model.layers.mim import own_name as own_name_in_mim
from gmg_model.layers.motion import OFFSETS, MotionFilter
from gmg_model.layers.st_lstm import SpatioTemporalLSTM
from gmg_model.options import OFFICIAL, configure
from gmg_model.stack import RECURRENT, CellStack, StackConfig

BACKBONES = ("predrnn", "convlstm", "mim")


@dataclass(frozen=True)
class BackboneConfig(StackConfig):
    """A stack of plain cells."""

    backbone: str = "predrnn"
    """Kind of the cells: ``"predrnn"`` (ST-LSTM), ``"convlstm"`` or ``"mim"``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("backbone", self.backbone, BACKBONES)


@dataclass(frozen=True)
class MotionRNNConfig(BackboneConfig):
    """MotionRNN's options; ``compat="official"`` is the published code."""

    recurrent: str = "post"
    """Recurrent H of a cell: ``"post"``, the state after its MotionGRU (published code), or
    ``"pre"``, before it (the paper: the backbone's transitions are unchanged)."""
    offsets: str = "bounded"
    """``"bounded"``: F = (F' + D) / 2; ``"additive"``: F' + D as published, which can diverge."""
    offset_scale: float = 1.0
    """Cells of the stride-2 patch grid (2 * patch_size pixels) that an offset of 1 stands for."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("recurrent", self.recurrent, RECURRENT)
        require_one_of("offsets", self.offsets, OFFSETS)
        if not self.offset_scale > 0:
            raise ConfigurationError(f"offset_scale={self.offset_scale} cells: give more than 0")


class Backbone(CellStack):
    """Cells one above the other, without motion."""

    def __init__(self, config: BackboneConfig):
        super().__init__(config, cell_maker(config, config.backbone, motion=False))
        self.backbone = config.backbone

    def own_name(self, name: str) -> str:
        """Where a tensor of a published checkpoint belongs in this model."""
        return own_name_in_mim(name) if self.backbone == "mim" else name


class MotionRNN(CellStack):
    """``MotionRNN(config)(frames (B, T, C, H, W), horizon) -> (B, horizon, C, H, W)``."""

    def __init__(self, config: MotionRNNConfig):
        def motion(channels: int) -> MotionFilter:
            return MotionFilter(
                channels,
                offsets=config.offsets,
                offset_scale=config.offset_scale,
                circular=config.circular,
            )

        make_cell = cell_maker(config, config.backbone, motion=True)
        super().__init__(config, make_cell, motion, recurrent=config.recurrent)


def cell_maker(config: StackConfig, backbone: str, *, motion: bool) -> Callable[[int, int], Cell]:
    """``make_cell(in_channels, layer)`` for one of `BACKBONES` in the sizes of ``config``."""
    width, size, circular = config.width, config.filter_size, config.circular

    def make(in_channels: int, layer: int) -> Cell:
        if backbone == "predrnn":
            return SpatioTemporalLSTM(in_channels, width, size, circular=circular)
        if backbone == "convlstm":
            bias = 0.0 if config.compat == "official" else 1.0
            return ConvLSTM(in_channels, width, size, forget_bias=bias, circular=circular)
        if layer == 0:
            return MIMEntry(in_channels, width, size, circular=circular)
        return MIMBlock(width, size, config.grid(motion=motion), circular=circular)

    return make


MOTIONRNN_OFFICIAL = {
    **OFFICIAL,
    "offsets": "additive",
    "offset_scale": 1.0,
    "recurrent": "post",
}


def _motionrnn(backbone: str, overrides: Mapping[str, Any]) -> MotionRNN:
    name, variant = f"motionrnn-{backbone}", {"backbone": backbone}
    return MotionRNN(configure(name, MotionRNNConfig, variant, MOTIONRNN_OFFICIAL, overrides))


def _backbone(name: str, overrides: Mapping[str, Any]) -> Backbone:
    return Backbone(configure(name, BackboneConfig, {"backbone": name}, OFFICIAL, overrides))


def motionrnn_predrnn(**overrides: Any) -> MotionRNN:
    """MotionRNN around PredRNN (26.912 M)."""
    return _motionrnn("predrnn", overrides)


def motionrnn_convlstm(**overrides: Any) -> MotionRNN:
    """MotionRNN around ConvLSTM."""
    return _motionrnn("convlstm", overrides)


def motionrnn_mim(**overrides: Any) -> MotionRNN:
    """MotionRNN around MIM; its MIM-N follow the differences of the moved states."""
    return _motionrnn("mim", overrides)


def predrnn(**overrides: Any) -> Backbone:
    """PredRNN (23.839 M)."""
    return _backbone("predrnn", overrides)


def convlstm(**overrides: Any) -> Backbone:
    """ConvLSTM (11.676 M: the published 15.08 M less 3.41 M that no output depends on)."""
    return _backbone("convlstm", overrides)


def mim(**overrides: Any) -> Backbone:
    """MIM (37.945 M: the published 38.04 M less 0.1 M that no output depends on)."""
    return _backbone("mim", overrides)


MODELS: Mapping[str, Callable[..., CellStack]] = {
    "convlstm": convlstm,
    "mim": mim,
    "motionrnn-convlstm": motionrnn_convlstm,
    "motionrnn-mim": motionrnn_mim,
    "motionrnn-predrnn": motionrnn_predrnn,
    "predrnn": predrnn,
}
