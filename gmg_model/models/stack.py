"""A stack of recurrent cells, with or without motion modules between them and a motion highway.

GMG and MotionRNN are this stack with different cells and motion modules. PredRNN, ConvLSTM, MIM and
E3D-LSTM are this stack without motion modules.

Symbols: X input of a cell, H hidden state, M the memory that goes from cell to cell, F offsets, D
their trend (momentum). Axes: b sample, c channel, d frame of the window, h row, w column of the
patch grid, n offset channel on the grid of stride 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from gmg_model.errors import ConfigurationError, require_one_of
from gmg_model.layers.cell import Cell, Reading, Start
from gmg_model.layers.convolution import convolve, upsample_twice
from gmg_model.layers.motion import MotionFilter
from gmg_model.layers.patches import GridPadding
from gmg_model.layers.warp import TAPS
from gmg_model.layers.window import as_channels, convolve_each, over_window
from gmg_model.models.rollout import RecurrentForecaster

INITIAL_STATES = ("zeros", "xavier")
RECURRENT = ("post", "pre")
COMPATS = ("default", "official")


@dataclass(frozen=True)
class StackConfig:
    """The options of a stack of cells."""

    in_shape: tuple[int, int, int] = (1, 64, 64)
    """(C, H, W) of a frame: variables, rows, columns. The weights of most models depend on C alone,
    and such a model takes frames of other sizes too. MIM and E3D-LSTM have weights for each cell of
    the patch grid and raise an error for frames that are padded to another grid."""
    patch_size: int = 4
    """Side of the patches that are folded into channels, in pixels."""
    hidden: tuple[int, ...] = (128, 128, 128, 128)
    """Channels of H, C and M in each cell: all equal, because M goes from cell to cell, and a
    multiple of 4. A motion module follows each cell except the last."""
    filter_size: int = 5
    """Side of the cells' kernels in cells of the patch grid, odd."""
    initial_states: str = "zeros"
    """`"zeros"`, or `"xavier"`: drawn anew for each rollout, from an explicit generator."""
    initial_seed: int = 0
    """Seed of the Xavier states of a call without a generator."""
    residual: bool = False
    """Whether the network predicts the change from the frame that it was last fed. An untrained
    residual model is persistence."""
    circular: bool = False
    """Whether columns wrap around (longitude): in every convolution, in the warp and in padding."""
    noise: int = 0
    """Channels of noise that cell 1 and the highway read beside each patch frame, for ensembles
    (`predict`); 0: the model is deterministic."""
    static_channels: int = 0
    """Number of static fields (land and sea, orography), which are read beside every frame and not
    forecast."""
    checkpoint_steps: bool = False
    """Whether training recomputes each time step in the backward pass to save memory."""
    fused: bool = True
    """Whether convolutions that read the same tensor run as one, and E3D-LSTM computes once what
    the frames of its window share. The results are equal to rounding."""
    compat: str = "default"
    """`"official"`: the arithmetic of the published code, for published checkpoints."""

    def __post_init__(self) -> None:
        for option in ("patch_size", "filter_size"):
            if not _is_positive(value := getattr(self, option)):
                raise ConfigurationError(f"{option}={value!r}: give a whole number from 1")
        if not _are_positive(self.in_shape) or len(self.in_shape) != 3:
            raise ConfigurationError(
                f"in_shape={self.in_shape!r}: give (channels, height, width) of a frame"
            )
        if not _are_positive(self.hidden) or len(set(self.hidden)) != 1 or self.hidden[0] % 4:
            raise ConfigurationError(
                f"hidden={self.hidden!r}: give one number of channels for each cell, all the same "
                "and a multiple of 4, such as (64, 64, 64, 64)"
            )
        if self.patch_size > min(self.in_shape[1:]):
            raise ConfigurationError(
                f"patch_size={self.patch_size} is larger than a frame of {self.in_shape[1]} x "
                f"{self.in_shape[2]}: give {min(self.in_shape[1:])} or less"
            )
        # Configuration files give lists; tuples keep the frozen dataclass hashable.
        object.__setattr__(self, "in_shape", tuple(self.in_shape))
        object.__setattr__(self, "hidden", tuple(self.hidden))
        if self.filter_size % 2 == 0:
            raise ConfigurationError(f"filter_size={self.filter_size}: give an odd number of cells")
        for option in ("noise", "static_channels"):
            if (count := getattr(self, option)) < 0:
                raise ConfigurationError(f"{option}={count} channels: give 0 or more")
        require_one_of("initial_states", self.initial_states, INITIAL_STATES)
        require_one_of("compat", self.compat, COMPATS)

    @property
    def channels(self) -> int:
        """C, the number of variables in a frame."""
        return self.in_shape[0]

    @property
    def patch_channels(self) -> int:
        """Channels of a patch frame: p * p * C."""
        return self.patch_size**2 * self.channels

    @property
    def seen_channels(self) -> int:
        """Channels of a patch frame and the static fields beside it: p * p * (C + S)."""
        return self.patch_channels + self.patch_size**2 * self.static_channels

    @property
    def width(self) -> int:
        """Channels of H, C and M."""
        return self.hidden[0]

    @property
    def layers(self) -> int:
        """Number of cells in the stack."""
        return len(self.hidden)

    def padding(self, *, motion: bool) -> GridPadding:
        """Return how frames are padded: to whole patches, for motion modules to pairs of them."""
        return GridPadding(
            multiple=(2 if motion else 1) * self.patch_size,
            circular=self.circular,
            refuse=self.compat == "official",
        )

    def grid(self, *, motion: bool) -> tuple[int, int]:
        """Return rows and columns of the padded patch grid of frames of `in_shape`."""
        height, width = self.padding(motion=motion).padded(*self.in_shape[1:])
        return height // self.patch_size, width // self.patch_size


def _is_positive(value: object) -> bool:
    return isinstance(value, int) and value > 0


def _are_positive(values: object) -> bool:
    return isinstance(values, (tuple, list)) and bool(values) and all(map(_is_positive, values))


def first_states(
    config: StackConfig, patches_bchw: Tensor, generator: torch.Generator | None
) -> Start:
    """Return the function with which cells make their first states: zeros, or Xavier-normal draws.

    Without a generator the draws come from `config.initial_seed`.
    """
    batch, _, height, width = patches_bchw.shape
    if config.initial_states == "xavier" and generator is None:
        generator = torch.Generator(patches_bchw.device).manual_seed(config.initial_seed)

    def start(channels: int, scale: int = 1, depth: int | None = None) -> Tensor:
        window = () if depth is None else (depth,)
        state = patches_bchw.new_zeros(batch, channels, *window, height // scale, width // scale)
        if config.initial_states == "xavier":
            nn.init.xavier_normal_(state, generator=generator)
        return state

    return start


def check_grid(
    config: StackConfig, padding: GridPadding, cells: Sequence[Cell], frames: Tensor
) -> None:
    """Raise ConfigurationError if cells have weights for another patch grid than the frames'."""
    grids = {cell.grid for cell in cells if cell.grid is not None}
    height, width = frames.shape[-2:]
    rows, columns = (size // config.patch_size for size in padding.padded(height, width))
    for grid in grids - {(rows, columns)}:
        raise ConfigurationError(
            f"frames of {height} x {width} make a grid of {rows} x {columns} patches, and this "
            f"model, made for in_shape={config.in_shape}, has weights for each cell of a "
            f"grid of {grid[0]} x {grid[1]}: give frames of {config.in_shape[1]} x "
            f"{config.in_shape[2]}, or make a model for {height} x {width}"
        )


class StackState(NamedTuple):
    """The recurrent state of a stack; each tuple has one entry per cell or motion module."""

    cells: tuple[Any, ...]
    """The state of each cell, with the H that it reads at the next step as `hidden`."""
    memory: Any
    """M, from the last cell of one step to the first cell of the next."""
    filters: tuple[Tensor, ...]
    """F, offsets (B, 18, h/2, w/2) in cells of that grid, before `offset_scale`."""
    momenta: tuple[Tensor, ...]
    """D, the trend of F, same shape."""
    step: Tensor
    """Number of frames fed so far, a scalar tensor. As a Python number it would trigger another
    compilation of a compiled step at each step."""
    kernels: tuple[Any, ...]
    """The weights as each cell's step reads them; constant during a rollout."""


class CellStack(RecurrentForecaster):
    """Cells in a column, joined by motion modules (Eq. 19, 22, 25) and the motion highway.

    Parameters
    ----------
    config:
        The options.
    make_cell:
        `make_cell(in_channels, i) -> Cell` makes the cell of layer i, counted from 0 at the
        frame.
    make_motion:
        `make_motion(channels) -> MotionFilter` makes the motion module after each cell except the
        last. None: each cell feeds the next directly, without a highway.
    recurrent:
        `"post"`: the H that a cell reads at its next step is the state after its motion module
        (Eq. 22 and the published code); `"pre"`: before it (the text of the MotionRNN paper).
    """

    def __init__(
        self,
        config: StackConfig,
        make_cell: Callable[[int, int], Cell],
        make_motion: Callable[[int], MotionFilter] | None = None,
        *,
        recurrent: str = "post",
    ):
        require_one_of("recurrent", recurrent, RECURRENT)
        super().__init__(
            channels=config.channels,
            patch_size=config.patch_size,
            padding=config.padding(motion=make_motion is not None),
            residual=config.residual,
            noise=config.noise,
            static_channels=config.static_channels,
            checkpoint_steps=config.checkpoint_steps,
        )
        self.config, self.recurrent = config, recurrent
        hidden, quarter, layers = config.width, config.width // 4, config.layers
        fed_channels = config.seen_channels + config.noise
        self.cell_list = nn.ModuleList(
            make_cell(fed_channels if i == 0 else hidden, i) for i in range(layers)
        )
        between = range(0 if make_motion is None else layers - 1)
        depth = self.depth = self._cells()[0].depth
        self.enc_list = nn.ModuleList(_encoder(hidden, quarter, depth) for _ in between)
        self.motion_list = nn.ModuleList(
            make_motion(quarter) for _ in between if make_motion is not None
        )
        self.dec_list = nn.ModuleList(_decoder(quarter, hidden, depth) for _ in between)
        self.gate_list = nn.ModuleList(nn.Conv2d(2 * hidden, hidden, 5, padding=2) for _ in between)
        self.conv_last = _projection(hidden, config.patch_channels, depth)
        if config.residual:
            # Training starts from persistence. Random changes would add up along a rollout and
            # could diverge, because the global focus multiplies H by values that grow with the
            # frame.
            nn.init.zeros_(self.conv_last.weight)
        self.conv_first_v = (
            nn.Conv2d(fed_channels, hidden, 1, bias=False) if make_motion is not None else None
        )

    def initial_state(
        self, patches_bchw: Tensor, generator: torch.Generator | None = None
    ) -> StackState:
        """Return zeros, or Xavier-normal draws (cell by cell, then M, F, D) from `generator`."""
        start = first_states(self.config, patches_bchw, generator)
        cells, between = self._cells(), range(len(self.motion_list))
        return StackState(
            cells=tuple(cell.initial_state(start) for cell in cells),
            memory=cells[0].initial_memory(start),
            filters=tuple(start(2 * TAPS, scale=2) for _ in between),
            momenta=tuple(start(2 * TAPS, scale=2) for _ in between),
            step=torch.zeros((), device=patches_bchw.device),
            kernels=tuple(cell.kernels() for cell in cells),
        )

    def compile_steps(self, **options: Any) -> None:
        """Compile the time step, as described in the base class.

        Raises
        ------
        ConfigurationError
            For E3D-LSTM, whose steps have different shapes: each step would compile anew.
        """
        if any(cell.grows for cell in self._cells()):
            raise ConfigurationError(
                "the steps of E3D-LSTM cannot be compiled: each recalls from a longer history than "
                "the one before, so each would compile anew; run the model as it is"
            )
        super().compile_steps(**options)

    def read(self, patches_bchw: Tensor, state: StackState) -> Reading:
        """Return what cell 1 and the highway take from patch frames."""
        reading = self._cells()[0].read(patches_bchw, state.kernels[0])
        return reading if self.conv_first_v is None else (*reading, self.conv_first_v(patches_bchw))

    def step(self, reading: Reading, state: StackState) -> tuple[Tensor, StackState]:
        """Run one time step of all cells, the lowest first."""
        cells, filters, momenta = list(state.cells), list(state.filters), list(state.momenta)
        memory, highway = state.memory, None
        if self.conv_first_v is not None:
            *first, highway = reading
            reading = tuple(first)
            if self.depth > 1:
                highway = over_window(highway, self.depth)
        for i, cell in enumerate(self._cells()):
            out = cell.advance(reading, cells[i], memory, state.kernels[i])
            memory, x = out.memory, out.hidden
            if highway is not None:  # the motion highway: in the published code, not in the paper
                x = highway = x + (1 - out.output_gate) * highway
            before = x
            if i < len(self.motion_list):
                x, filters[i], momenta[i] = self._move(i, x, filters[i], momenta[i], state.step)
            cells[i] = out.state._replace(hidden=x if self.recurrent == "post" else before)
            if i + 1 < len(cells):
                reading = self._cells()[i + 1].read(x, state.kernels[i + 1])
        after = StackState(
            tuple(cells),
            memory,
            tuple(filters),
            tuple(momenta),
            state.step + 1,
            state.kernels,
        )
        return convolve(as_channels(cells[-1].hidden), as_channels(self.conv_last.weight)), after

    def _move(
        self, i: int, h: Tensor, filter_bnhw: Tensor, momentum_bnhw: Tensor, step: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the motion module after cell i (Eq. 7-19 and 25): return X, F and D.

        All frames of a window (E3D-LSTM) share the offsets.
        """
        circular = self.config.circular
        encode: Any = self.enc_list[i]
        decode: Any = self.dec_list[i]
        gate: Any = self.gate_list[i]
        kernel = as_channels(encode.weight)
        encoded = convolve(as_channels(h), kernel, encode.bias, stride=2, circular=circular)
        warped, filter_bnhw, momentum_bnhw = self.motion_list[i](
            encoded, filter_bnhw, momentum_bnhw, step
        )
        bias = decode.bias.repeat_interleave(self.depth) if self.depth > 1 else decode.bias
        decoded = upsample_twice(warped, as_channels(decode.weight), bias, circular=circular)
        decoded = decoded.reshape(h.shape)
        both = torch.cat([decoded, h], dim=1)
        share = torch.sigmoid(convolve_each(both, gate.weight, gate.bias, circular=circular))
        return share * decoded + (1 - share) * h, filter_bnhw, momentum_bnhw

    def _check_frames(self, frames: Tensor) -> None:
        super()._check_frames(frames)
        check_grid(self.config, self.padding, self._cells(), frames)

    def _cells(self) -> Sequence[Cell]:
        return [cast(Cell, cell) for cell in self.cell_list]


def _encoder(hidden: int, quarter: int, depth: int) -> nn.Module:
    """Make the convolution to the grid of stride 2; a window of frames becomes one frame."""
    if depth == 1:
        return nn.Conv2d(hidden, quarter, 5, 2, 2)
    return nn.Conv3d(hidden, quarter, (depth, 5, 5), (1, 2, 2), (0, 2, 2))


def _decoder(quarter: int, hidden: int, depth: int) -> nn.Module:
    """Make the convolution back from the grid of stride 2, to every frame of the window."""
    if depth == 1:
        return nn.ConvTranspose2d(quarter, hidden, 4, 2, 1)
    return nn.ConvTranspose3d(quarter, hidden, (depth, 4, 4), (1, 2, 2), (0, 1, 1))


def _projection(hidden: int, patch_channels: int, depth: int) -> nn.Conv2d | nn.Conv3d:
    """Make the convolution from H, all frames of its window together, to the patch frame."""
    if depth == 1:
        return nn.Conv2d(hidden, patch_channels, 1, bias=False)
    return nn.Conv3d(hidden, patch_channels, (depth, 1, 1), bias=False)
