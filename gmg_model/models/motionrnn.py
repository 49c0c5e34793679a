"""MotionRNN (Wu et al., 2021) around a recurrent backbone, and the backbones by themselves.

Between each pair of cells a MotionGRU (Eq. 1-4 of the paper, layers/motion.py) moves the hidden
state by learned offsets, and the motion highway `H += (1 - o_t) * highway` (stack.py) passes on
what does not move.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gmg_model.errors import ConfigurationError, require_one_of
from gmg_model.layers import e3d_lstm
from gmg_model.layers import mim as mim_cells
from gmg_model.layers.cell import Cell
from gmg_model.layers.conv_lstm import ConvLSTM
from gmg_model.layers.motion import OFFSETS, MotionFilter
from gmg_model.layers.st_lstm import SpatioTemporalLSTM
from gmg_model.models.configuration import OFFICIAL, configure
from gmg_model.models.stack import RECURRENT, CellStack, StackConfig

BACKBONES = ("predrnn", "convlstm", "mim", "e3dlstm")


@dataclass(frozen=True)
class BackboneConfig(StackConfig):
    """A stack of plain cells."""

    backbone: str = "predrnn"
    """The cells: `"predrnn"` (ST-LSTM), `"convlstm"`, `"mim"` or `"e3dlstm"`."""
    memory_length: int | None = None
    """E3D-LSTM: number of the latest states of C that the recall sees; None: all since the first
    frame. Each state costs time, and memory of 2 * hidden * h * w numbers per sample and cell."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("backbone", self.backbone, BACKBONES)
        if self.memory_length is not None and self.memory_length < 1:
            raise ConfigurationError(f"memory_length={self.memory_length} states: give 1 or more")


@dataclass(frozen=True)
class MotionRNNConfig(BackboneConfig):
    """MotionRNN's options; `compat="official"` is the published code."""

    recurrent: str = "post"
    """The H that a cell reads at its next step: `"post"`, the state after its MotionGRU
    (published code), or `"pre"`, before it (the paper's text: the backbone's transitions are
    unchanged)."""
    offsets: str = "bounded"
    """`"bounded"`: F = (F' + D) / 2; `"additive"`: F' + D as published, which can diverge."""
    offset_scale: float = 1.0
    """Number of cells of the stride-2 patch grid (2 * patch_size pixels each) that an offset of 1
    means."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("recurrent", self.recurrent, RECURRENT)
        require_one_of("offsets", self.offsets, OFFSETS)
        if not self.offset_scale > 0:
            raise ConfigurationError(f"offset_scale={self.offset_scale} cells: give more than 0")


class Backbone(CellStack):
    """A stack of cells without motion modules."""

    def __init__(self, config: BackboneConfig):
        make_cell = cell_maker(
            config, config.backbone, motion=False, memory_length=config.memory_length
        )
        super().__init__(config, make_cell)
        self.backbone = config.backbone

    def own_name(self, name: str) -> str:
        """Return the name here of a tensor in a published checkpoint."""
        own_names = {"mim": mim_cells.own_name, "e3dlstm": e3d_lstm.own_name}
        return own_names.get(self.backbone, str)(name)


class MotionRNN(CellStack):
    """`MotionRNN(config)(frames (B, T, C, H, W), horizon) -> (B, horizon, C, H, W)`."""

    def __init__(self, config: MotionRNNConfig):
        def motion(channels: int) -> MotionFilter:
            return MotionFilter(
                channels,
                offsets=config.offsets,
                offset_scale=config.offset_scale,
                circular=config.circular,
            )

        make_cell = cell_maker(
            config, config.backbone, motion=True, memory_length=config.memory_length
        )
        super().__init__(config, make_cell, motion, recurrent=config.recurrent)


def cell_maker(
    config: StackConfig, backbone: str, *, motion: bool, memory_length: int | None = None
) -> Callable[[int, int], Cell]:
    """Return a function `make_cell(in_channels, layer)` for one of `BACKBONES`."""
    width, size, circular = config.width, config.filter_size, config.circular

    def make(in_channels: int, layer: int) -> Cell:
        if backbone == "predrnn":
            return SpatioTemporalLSTM(in_channels, width, size, circular=circular)
        if backbone == "convlstm":
            # The published ConvLSTM has no forget bias.
            bias = 0.0 if config.compat == "official" else 1.0
            return ConvLSTM(in_channels, width, size, forget_bias=bias, circular=circular)
        grid = config.grid(motion=motion)
        if backbone == "e3dlstm":
            return e3d_lstm.EideticLSTM(
                in_channels,
                width,
                size,
                grid,
                of_frames=layer == 0,
                memory_length=memory_length,
                published_recall=config.compat == "official",
                fused=config.fused,
                circular=circular,
            )
        if layer == 0:
            return mim_cells.MIMEntry(in_channels, width, size, circular=circular)
        return mim_cells.MIMBlock(width, size, grid, circular=circular)

    return make


MOTIONRNN_OFFICIAL = {
    **OFFICIAL,
    "offsets": "additive",
    "offset_scale": 1.0,
    "recurrent": "post",
}


def _motionrnn(backbone: str, overrides: Mapping[str, Any]) -> MotionRNN:
    name, variant = f"motionrnn-{backbone}", _variant(backbone)
    return MotionRNN(configure(name, MotionRNNConfig, variant, MOTIONRNN_OFFICIAL, overrides))


def _backbone(name: str, overrides: Mapping[str, Any]) -> Backbone:
    return Backbone(configure(name, BackboneConfig, _variant(name), OFFICIAL, overrides))


def _variant(backbone: str) -> dict[str, Any]:
    """Return the options that a model's name fixes; only E3D-LSTM has a memory length."""
    fixed: dict[str, Any] = {} if backbone == "e3dlstm" else {"memory_length": None}
    return {"backbone": backbone, **fixed}


def motionrnn_predrnn(**overrides: Any) -> MotionRNN:
    """MotionRNN around PredRNN (26.912 M)."""
    return _motionrnn("predrnn", overrides)


def motionrnn_convlstm(**overrides: Any) -> MotionRNN:
    """MotionRNN around ConvLSTM."""
    return _motionrnn("convlstm", overrides)


def motionrnn_mim(**overrides: Any) -> MotionRNN:
    """MotionRNN around MIM; its MIM-N read the differences of the moved states."""
    return _motionrnn("mim", overrides)


def motionrnn_e3dlstm(**overrides: Any) -> MotionRNN:
    """MotionRNN around E3D-LSTM, with 3-D encoders and decoders around the motion modules.

    The frames of a window share their offsets, as in the paper, whose encoder turns 3-D states into
    2-D ones. The output gate of the motion module works on each frame of the window.
    """
    return _motionrnn("e3dlstm", overrides)


def predrnn(**overrides: Any) -> Backbone:
    """PredRNN (23.839 M)."""
    return _backbone("predrnn", overrides)


def convlstm(**overrides: Any) -> Backbone:
    """ConvLSTM (11.676 M: the published 15.08 M less 3.41 M that no output depends on)."""
    return _backbone("convlstm", overrides)


def mim(**overrides: Any) -> Backbone:
    """MIM (37.945 M: the published 38.04 M less 0.1 M that no output depends on)."""
    return _backbone("mim", overrides)


def e3dlstm(**overrides: Any) -> Backbone:
    """E3D-LSTM (51.347 M; published 51.35 M)."""
    return _backbone("e3dlstm", overrides)


MODELS: Mapping[str, Callable[..., CellStack]] = {
    "convlstm": convlstm,
    "e3dlstm": e3dlstm,
    "mim": mim,
    "motionrnn-convlstm": motionrnn_convlstm,
    "motionrnn-e3dlstm": motionrnn_e3dlstm,
    "motionrnn-mim": motionrnn_mim,
    "motionrnn-predrnn": motionrnn_predrnn,
    "predrnn": predrnn,
}
