"""An encoder reads the observed frames; a forecaster continues from its states.

This is the architecture of SRVP's Section 3.1, for any cell of `gmg_model.layers`. Encoder and
forecaster have the same recurrent layers. Each layer of the forecaster starts from the last state
of that layer of the encoder, and the forecaster's M from the encoder's. The forecaster's first
input is the last observed frame, which the encoder has read as well.

Axes: b sample, t frame, l layer, c channel, h row, w column of the patch grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gmg_model.errors import ConfigurationError, require_one_of
from gmg_model.layers.cell import Cell, Reading, Start
from gmg_model.layers.convolution import GridConvolution, at_least_float32
from gmg_model.models.rollout import RecurrentForecaster
from gmg_model.models.stack import StackConfig, check_grid, first_states

OUTPUTS = ("linear", "sigmoid")


@dataclass(frozen=True)
class EncoderForecasterConfig(StackConfig):
    """The options of an encoder-forecaster. Only the forecaster reads noise."""

    patch_size: int = 1
    """Side of the patches that are folded into channels, in pixels. The published models use 1; 2
    needs about a quarter of the arithmetic, 4 a sixteenth."""
    hidden: tuple[int, ...] = (128, 128, 128, 128)
    """Channels of each recurrent layer of the encoder, and of the forecaster: all equal, and a
    multiple of 4."""
    output: str = "linear"
    """`"linear"` for standardised fields with any value; `"sigmoid"`, as published, for frames
    in [0, 1] (minmax): outputs cannot leave that range, and a cross-entropy loss is possible."""
    input_frames: int = 10
    """Number of observed frames. SRVP has weights for each frame and takes exactly this number; the
    other models take any number."""
    horizon: int = 10
    """Number of frames that `model(frames)` forecasts; a call may ask for any other number."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("output", self.output, OUTPUTS)
        for option in ("input_frames", "horizon"):
            value = getattr(self, option)
            if not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"{option}={value!r} frames: give a whole number from 1")
        if self.residual and self.output == "sigmoid":
            raise ConfigurationError(
                "residual=True needs output='linear': a sigmoid cannot predict a decrease"
            )


class LayersState(NamedTuple):
    """The recurrent state of a column of layers."""

    cells: tuple[Any, ...]
    """The state of each layer, with its H as `hidden`."""
    memory: Any
    """M, from the last layer of one step to the first layer of the next."""
    kernels: tuple[Any, ...]
    """The weights as each layer's step reads them; constant during a rollout."""


class RecurrentLayers(nn.Module):
    """A column of cells: `cell0` reads patch frames, each other cell the H of the cell below."""

    def __init__(self, cells: Sequence[Cell]):
        super().__init__()
        for i, cell in enumerate(cells):
            self.add_module(f"cell{i}", cell)

    def initial_state(self, start: Start) -> LayersState:
        """Return the state before the first frame."""
        cells = self.cells()
        states = tuple(cell.initial_state(start) for cell in cells)
        return LayersState(states, cells[0].initial_memory(start), self.kernels())

    def kernels(self) -> tuple[Any, ...]:
        """Return the weights as the steps of one rollout read them."""
        return tuple(cell.kernels() for cell in self.cells())

    def read(self, patches_bchw: Tensor, state: LayersState) -> Reading:
        """Return what the first layer takes from patch frames."""
        return self.cells()[0].read(patches_bchw, state.kernels[0])

    def advance(self, reading: Reading, state: LayersState) -> LayersState:
        """Run one time step of all layers."""
        cells, memory = self.cells(), state.memory
        states: list[Any] = []
        for i, cell in enumerate(cells):
            out = cell.advance(reading, state.cells[i], memory, state.kernels[i])
            memory = out.memory
            states.append(out.state)
            if i + 1 < len(cells):
                reading = cells[i + 1].read(out.hidden, state.kernels[i + 1])
        return LayersState(tuple(states), memory, state.kernels)

    def cells(self) -> list[Cell]:
        """Return the layers, the lowest first."""
        return [cast(Cell, cell) for cell in self.children()]


class ForecastState(NamedTuple):
    """The state of a forecast."""

    layers: LayersState
    """The state of the forecaster's layers."""
    reference: tuple[Tensor, ...]
    """What `EncoderForecaster.remember` kept of the encoder; constant during a forecast."""


class EncoderForecaster(RecurrentForecaster):
    """`model(frames (B, T, C, H, W), horizon) -> (B, horizon, C, H, W)`.

    `model(window, input_frames=n)` returns the outputs of the horizon alone, (B, T - n, C, H, W):
    the encoder has no outputs, so training scores only the forecast frames. `one_step_outputs` puts
    persistence in place of the outputs before the horizon. Column j of `forced` belongs to frame
    n + j, as in every recurrent model.

    Parameters
    ----------
    config:
        The options.
    make_cell:
        `make_cell(in_channels, i) -> Cell` makes the cell of layer i, counted from 0 at the
        frame. It is called for the encoder and again for the forecaster.
    extra_layers:
        Number of layers beyond those that `config.hidden` lists.
    features:
        Channels that `recollect` adds to the layers' H before the output convolution.
    """

    takes_hidden_frames = False

    def __init__(
        self,
        config: EncoderForecasterConfig,
        make_cell: Callable[[int, int], Cell],
        *,
        extra_layers: int = 0,
        features: int = 0,
    ):
        super().__init__(
            channels=config.channels,
            patch_size=config.patch_size,
            padding=config.padding(motion=False),
            residual=config.residual,
            noise=config.noise,
            static_channels=config.static_channels,
            checkpoint_steps=config.checkpoint_steps,
        )
        self.config = config
        layers = config.layers + extra_layers

        def make_layers(in_channels: int) -> RecurrentLayers:
            inputs = [in_channels] + [config.width] * (layers - 1)
            return RecurrentLayers([make_cell(channels, i) for i, channels in enumerate(inputs)])

        self.encoder = make_layers(config.seen_channels)
        self.forecast = make_layers(config.seen_channels + config.noise)
        width = config.width * layers + features
        # In a container, because published checkpoints name it output_layer.0.
        head = GridConvolution(width, config.patch_channels, 3, circular=config.circular)
        if config.residual:
            nn.init.zeros_(head.weight)  # training starts at persistence
            nn.init.zeros_(cast(nn.Parameter, head.bias))
        self.output_layer = nn.Sequential(head)

    def forward(self, frames: Tensor, horizon: int | None = None, **options: Any) -> Tensor:
        """Forecast or train as every recurrent model; the default horizon is `config.horizon`."""
        if horizon is None and options.get("input_frames") is None:
            horizon = self.config.horizon
        return super().forward(frames, horizon, **options)

    def initial_state(
        self, patches_bchw: Tensor, generator: torch.Generator | None = None
    ) -> LayersState:
        """Return the encoder's state before the first frame."""
        return self.encoder.initial_state(first_states(self.config, patches_bchw, generator))

    def begin(
        self, observed_btchw: Tensor, generator: torch.Generator | None = None
    ) -> tuple[ForecastState, int]:
        """Read the observed patch frames; the forecast continues from the last of them."""
        self.check_observed(observed_btchw.shape[1])
        state = self.initial_state(observed_btchw[:, 0], generator)
        tops: list[Tensor] = []
        for patches_bchw in observed_btchw.unbind(1):
            if self._recomputes_steps():
                state = checkpoint(self._encode_frame, patches_bchw, state, use_reentrant=False)
            else:
                state = self._encode_frame(patches_bchw, state)
            tops.append(state.cells[-1].hidden)
        layers = state._replace(kernels=self.forecast.kernels())
        return ForecastState(layers, self.remember(observed_btchw, tops)), len(tops) - 1

    def read(self, patches_bchw: Tensor, state: ForecastState) -> Reading:
        """Return what the forecaster's first layer takes from patch frames."""
        return self.forecast.read(patches_bchw, state.layers)

    def step(self, reading: Reading, state: ForecastState) -> tuple[Tensor, ForecastState]:
        """Forecast one patch frame."""
        layers = self.forecast.advance(reading, state.layers)
        hidden = [cell.hidden for cell in layers.cells]
        features = torch.cat([*hidden, *self.recollect(hidden, state.reference)], dim=1)
        output = at_least_float32(self.output_layer(features))
        if self.config.output == "sigmoid":
            output = torch.sigmoid(output)
        return output, state._replace(layers=layers)

    def check_observed(self, frames: int) -> None:
        """Raise ConfigurationError if the weights do not fit this number of observed frames.

        Here they fit any number; a subclass may need an exact one.
        """

    def remember(self, observed_btchw: Tensor, tops: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return what every step of the forecast reads besides the states; here nothing.

        Parameters
        ----------
        observed_btchw:
            The observed patch frames (B, T, p*p*(C+S), h, w), static fields after the channels.
        tops:
            H of the encoder's last layer after each frame: T tensors (B, hidden, h, w).
        """
        return ()

    def recollect(
        self, hidden: Sequence[Tensor], reference: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """Return further features for the output, (B, c, h, w) each; here none.

        Parameters
        ----------
        hidden:
            H of each layer of the forecaster, (B, hidden, h, w).
        reference:
            What `remember` returned.
        """
        return ()

    def _check_frames(self, frames: Tensor) -> None:
        super()._check_frames(frames)
        check_grid(self.config, self.padding, self.forecast.cells(), frames)

    def _encode_frame(self, patches_bchw: Tensor, state: LayersState) -> LayersState:
        return self.encoder.advance(self.encoder.read(patches_bchw, state), state)
