"""GMG: global focus and motion guided video prediction (the paper's Section III).

A unit at layer l and time t (Eq. 22-25), each line with the module that computes it::

    H, C, M = ST-ConvLSTM(X[l-1], H[t-1], C[t-1], M[l-1])   Eq. 26-35  layers/st_lstm.py
    Hg      = GFM(X[l-1], H)                                Eq. 1-6    layers/global_focus.py
    H^g, M^ = SAM(Hg, M)                                    Eq. 24     layers/attention_memory.py
    X, F, D = MGM(H^g, F[t-1], D[t-1])                      Eq. 7-19   layers/motion.py, warp.py

This module joins the first three in one cell; `CellStack` (stack.py) puts the fourth between the
cells. The three published sizes and every row of the ablation (Table VI) are configurations of one
class. Axes: b sample, c channel, h row, w column of the patch grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from gmg_model.errors import ConfigurationError, require_one_of
from gmg_model.layers.attention_memory import AttentionKernels, AttentionMemory
from gmg_model.layers.cell import CellOutput, Reading
from gmg_model.layers.convolution import convolve, for_this_precision
from gmg_model.layers.global_focus import (
    FOCUS_SIZE,
    GateKernels,
    GlobalFeatures,
    MultiScaleFocus,
    SimplifiedFocus,
    fuse_global,
    gate_kernels,
)
from gmg_model.layers.lstm import LSTMState
from gmg_model.layers.motion import DECAYS, OFFSETS, GrowthAndDecay, MotionFilter
from gmg_model.layers.st_lstm import LSTMKernels, SpatioTemporalLSTM
from gmg_model.models.configuration import OFFICIAL, configure
from gmg_model.models.stack import CellStack, StackConfig

GLOBAL_FOCUS = ("full", "simplified", "none")
FOCUS = ("full", "pooled")
MOTIONS = ("mgm", "motiongru", "none")


@dataclass(frozen=True)
class GMGConfig(StackConfig):
    """GMG's options. `compat="official"` sets those of the published code."""

    global_focus: str = "full"
    """GFM: `"full"`, Eq. 1-6; `"simplified"`, Eq. 20-21 (GMG-s); `"none"`."""
    attention: bool = True
    """SAM: whether cells have the self-attention memory of Eq. 24 (GMG-L, GMG-s)."""
    motion: str = "mgm"
    """MGM: `"mgm"`, Eq. 7-19; `"motiongru"`, the same without growth and decay (Eq. 11-16),
    which is MotionRNN's module; `"none"`, without motion module and highway (PredRNN)."""
    attention_hidden: int = 32
    """Channels of queries and keys of the self-attention memory (ignored without it). The
    configurations in jobs/configs give 64 for TaxiBJ and WeatherBench and 32 for the others."""
    focus: str = "full"
    """Eq. 5: the feature focus at `"full"` resolution, or `"pooled"` to one number per
    channel."""
    decay: str = "unit"
    """Eq. 15: `"unit"`, `"elapsed"`, `"none"`, or the published code's `"batch_index"`."""
    offsets: str = "bounded"
    """Eq. 16 and 18: `"bounded"`, or `"additive"` as published, which can diverge."""
    offset_scale: float = 1.0
    """Number of cells of the stride-2 patch grid (2 * patch_size pixels each) that an offset of 1
    means. Bounded offsets reach about this far per step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("global_focus", self.global_focus, GLOBAL_FOCUS)
        require_one_of("focus", self.focus, FOCUS)
        require_one_of("motion", self.motion, MOTIONS)
        require_one_of("decay", self.decay, DECAYS)
        require_one_of("offsets", self.offsets, OFFSETS)
        if not self.offset_scale > 0:
            raise ConfigurationError(f"offset_scale={self.offset_scale} cells: give more than 0")
        if self.attention and self.attention_hidden < 1:
            raise ConfigurationError(
                f"attention_hidden={self.attention_hidden}: give 1 or more, or use gmg-m"
            )


class CellKernels(NamedTuple):
    """One GMG cell's weights for one rollout."""

    lstm: LSTMKernels
    """Those of the ST-LSTM; if fused, `x` has the outputs of the focus (Eq. 5) as well."""
    x_bias: Tensor | None
    """The bias of `x`: zeros for the gates, then that of the focus."""
    gate: GateKernels | None
    attention: AttentionKernels | None


class GMGCell(SpatioTemporalLSTM):
    """ST-LSTM, then the global focus, then the self-attention memory (Eq. 22-24)."""

    def __init__(self, in_channels: int, config: GMGConfig):
        hidden, circular = config.width, config.circular
        super().__init__(in_channels, hidden, config.filter_size, circular=circular)
        self.fused, self.pooled = config.fused, config.focus == "pooled"
        self.conv_g, self.gate, self.global_feature_extractor = None, None, None
        if config.global_focus == "full":
            self.conv_g = nn.Sequential(MultiScaleFocus(in_channels, hidden, circular=circular))
            self.gate = nn.Sequential(nn.Conv2d(2 * hidden, hidden, 3, padding=1))
            self.global_feature_extractor = GlobalFeatures(in_channels, hidden, circular=circular)
        elif config.global_focus == "simplified":
            self.conv_g = nn.Sequential(SimplifiedFocus(in_channels, hidden, circular=circular))
        # The focus kernels join conv_x if both have the same size.
        self.one_convolution = (
            self.fused and self.conv_g is not None and config.filter_size == FOCUS_SIZE
        )
        self.attention_layer = (
            AttentionMemory(hidden, config.attention_hidden) if config.attention else None
        )

    def kernels(self) -> CellKernels:
        """Return the weights of one rollout, merged where that saves work."""
        lstm, bias = self.lstm_kernels(), None
        if self.one_convolution and self.conv_g is not None:
            focus = cast(MultiScaleFocus | SimplifiedFocus, self.conv_g[0])
            focus_weight, focus_bias = focus.merged()
            both = torch.cat([self.conv_x.weight, focus_weight])
            lstm = lstm._replace(x=for_this_precision(both))
            if focus_bias is not None:
                gates = focus_bias.new_zeros(7 * self.hidden)
                bias = for_this_precision(torch.cat([gates, focus_bias]))
        gate, attention = None, None
        if self.fused and self.gate is not None:
            gate = gate_kernels(cast(nn.Conv2d, self.gate[0]))
        if self.fused and self.attention_layer is not None:
            attention = self.attention_layer.kernels()
        return CellKernels(lstm, bias, gate, attention)

    def read(self, x_bchw: Tensor, kernels: CellKernels) -> Reading:
        """Return what the gates take from X (Eq. 26-34), g_t (Eq. 5 or 20) and X_g (Eq. 1-2)."""
        from_x = convolve(x_bchw, kernels.lstm.x, kernels.x_bias, circular=self.circular)
        if self.conv_g is None:
            return (from_x,)
        if self.one_convolution:
            from_x, focus = from_x.split([7 * self.hidden, self.hidden], dim=1)
        else:
            focus = self.conv_g(x_bchw)
        if self.pooled:
            focus = focus.mean((2, 3), keepdim=True)
        if self.global_feature_extractor is None:
            return from_x, focus
        return from_x, focus, self.global_feature_extractor(x_bchw)

    def advance(
        self, reading: Reading, state: LSTMState, memory: Tensor, kernels: CellKernels
    ) -> CellOutput:
        from_x, *of_x = reading
        # Eq. 26-35.
        hidden, output_gate, state, memory = self.gates(from_x, state, memory, kernels.lstm)
        if self.gate is not None:  # Eq. 3-4
            gate = cast(nn.Conv2d, self.gate[0])
            hidden = fuse_global(hidden, of_x[1], gate, kernels.gate, circular=self.circular)
        if self.conv_g is not None:  # Eq. 6 or 21
            hidden = hidden * of_x[0]
        if self.attention_layer is not None:  # Eq. 24
            hidden, memory = self.attention_layer(hidden, memory, kernels.attention)
        return CellOutput(hidden, output_gate, LSTMState(hidden, state.cell), memory)


class GMG(CellStack):
    """`GMG(config)(frames (B, T, C, H, W), horizon) -> (B, horizon, C, H, W)`."""

    config: GMGConfig
    takes_hidden_frames = False

    def __init__(self, config: GMGConfig):
        def motion(channels: int) -> MotionFilter:
            growth = None
            if config.motion == "mgm":
                growth = GrowthAndDecay(
                    channels,
                    decay=config.decay,
                    bounded=config.offsets == "bounded",
                    own_growth=config.compat == "official",
                )
            return MotionFilter(
                channels,
                offsets=config.offsets,
                offset_scale=config.offset_scale,
                growth=growth,
                circular=config.circular,
            )

        super().__init__(
            config,
            make_cell=lambda in_channels, _: GMGCell(in_channels, config),
            make_motion=None if config.motion == "none" else motion,
        )


# What compat="official" means for GMG, besides `own_growth` (Eq. 16) above.
GMG_OFFICIAL = {
    **OFFICIAL,
    "decay": "batch_index",
    "offsets": "additive",
    "focus": "full",
    "offset_scale": 1.0,
}


def gmg_l(**overrides: Any) -> GMG:
    """GMG-L: the whole model (31.449 M parameters at patch 4, one channel).

    Its options `global_focus`, `attention` and `motion` take modules out: the ablation of
    Table VI.
    """
    return GMG(configure("gmg-l", GMGConfig, {}, GMG_OFFICIAL, overrides))


def gmg_m(**overrides: Any) -> GMG:
    """GMG-m: GMG-L without the self-attention memory (30.413 M); ignores attention_hidden."""
    variant = {"global_focus": "full", "attention": False, "motion": "mgm"}
    return GMG(configure("gmg-m", GMGConfig, variant, GMG_OFFICIAL, overrides))


def gmg_s(**overrides: Any) -> GMG:
    """GMG-s: one convolution in place of the Global Focus Module, Eq. 20-21 (29.228 M)."""
    variant = {"global_focus": "simplified", "attention": True, "motion": "mgm"}
    return GMG(configure("gmg-s", GMGConfig, variant, GMG_OFFICIAL, overrides))


MODELS: Mapping[str, Callable[..., GMG]] = {"gmg-l": gmg_l, "gmg-m": gmg_m, "gmg-s": gmg_s}
