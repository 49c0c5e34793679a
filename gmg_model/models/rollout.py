"""The rollout that every recurrent model shares: observed frames in, then its own outputs.

A model defines one time step, `(patch frame, state) -> (patch output, state)`, in two parts:
`read` may run for all observed frames at once, `step` runs one after the other. This module turns
steps into forecasts of any horizon, and into the one-step outputs that training scores.

Axes: b sample, t frame, c channel, s static field, h row, w column; p is the patch size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gmg_model.errors import ConfigurationError
from gmg_model.layers.cell import Reading
from gmg_model.layers.patches import GridPadding, patchify, unpatchify
from gmg_model.models.ensembles import EnsembleForecaster
from gmg_model.models.static_inputs import StaticInputs, beside_frames

RECOMPILE_LIMIT = 64
"""Largest number of graphs of the time step in one process; PyTorch then raises an error."""


class Steps(NamedTuple):
    """The two forms of a time step, plain or compiled."""

    step: Callable[..., tuple[Tensor, Any]]
    """`(model, reading, state)`, for a frame that was known, and read, before the rollout."""
    read_and_step: Callable[..., tuple[Tensor, Any]]
    """`(model, patch frame with static fields and noise, state)`, for any other frame."""


class RecurrentForecaster(EnsembleForecaster, ABC):
    """A model that forecasts by feeding itself.

    Parameters
    ----------
    patch_size:
        Side of the square patches that are folded into channels, in pixels.
    padding:
        How frames are padded to whole patches; outputs are cropped back.
    residual:
        Whether the network's output is the change from the frame that it was fed.
    noise:
        Number of channels of noise that a step reads beside its patch frame.
    static_channels:
        Number of static fields that a step reads as well, see `gmg_model.models.static_inputs`.
    checkpoint_steps:
        Whether training recomputes each time step in the backward pass and does not store its
        activations. This takes about a third more time, and the memory of one step.
    """

    takes_hidden_frames = True
    """Whether training may hide input frames (`shown`), in whose place the model's own output is
    fed."""

    def __init__(
        self,
        *,
        channels: int,
        patch_size: int,
        padding: GridPadding,
        residual: bool = False,
        noise: int = 0,
        static_channels: int = 0,
        checkpoint_steps: bool = False,
    ):
        super().__init__(noise=noise)
        self._static = StaticInputs(static_channels)
        self.channels, self.patch_size, self.padding = channels, patch_size, padding
        self.residual, self.checkpoint_steps = residual, checkpoint_steps
        self._steps = Steps(*STEPS)

    @abstractmethod
    def initial_state(self, patches_bchw: Tensor, generator: torch.Generator | None = None) -> Any:
        """Return the state before the first frame, for a batch like `patches_bchw`."""

    def begin(
        self, observed_btchw: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Any, int]:
        """Return the state that the rollout starts from, and the number of its first frame.

        A stack starts before frame 0. A model with an encoder reads the observed patch frames
        (B, T, p*p*(C+S), h, w) here and continues from the last of them.
        """
        return self.initial_state(observed_btchw[:, 0], generator), 0

    @abstractmethod
    def read(self, patches_bchw: Tensor, state: Any) -> Reading:
        """Return what a step takes from its input alone, (B, p*p*(C+S) + noise, h, w).

        Only the parts of `state` that are constant during a rollout may be used, because frames
        that are known before the rollout are read together, as one larger batch.
        """

    @abstractmethod
    def step(self, reading: Reading, state: Any) -> tuple[Tensor, Any]:
        """Run one time step: from a reading and a state to the patch output and the next state."""

    def bind_static(self, fields_shw: Tensor) -> None:
        """Set the normalised static fields (S, H, W) for all calls without `static`.

        They are not weights: a state dict does not hold them.
        """
        self._static.bind(fields_shw)

    def compile_steps(self, **options: Any) -> None:
        """Compile the time step; the loop over time stays in Python.

        For any horizon there are two graphs: one for a step whose frame was read before the rollout
        and one for a step that reads its own input. Training adds a third for the first step, whose
        state has no gradient. Another batch shape or precision, and evaluation beside training,
        compile graphs of their own. Outputs are equal to rounding.

        Parameters
        ----------
        options:
            Options of `torch.compile`. `mode="reduce-overhead"` replays the steps as CUDA graphs.
        """
        import torch._dynamo.config as dynamo  # takes a second, which only this call needs

        # PyTorch allows 8 graphs; the shapes, precisions and modes of one run can need more.
        dynamo.recompile_limit = max(dynamo.recompile_limit, RECOMPILE_LIMIT)
        options = {"fullgraph": True, "dynamic": False} | options
        self._steps = Steps(*(torch.compile(function, **options) for function in STEPS))

    def forward(
        self,
        frames: Tensor,
        horizon: int | None = None,
        *,
        input_frames: int | None = None,
        forced: Tensor | None = None,
        shown: Tensor | None = None,
        static: Tensor | None = None,
        noise_keys: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Forecast `horizon` frames after `frames`; or, with `input_frames`, train.

        Both are in `forward` because DistributedDataParallel synchronises gradients for it alone.

        * `model(frames, horizon)`: frames (B, T, C, H, W) -> (B, horizon, C, H, W). After the T
          observed frames the model runs on its own outputs.
        * `model(frames, input_frames=n, forced=f, shown=s)` returns `scored_outputs`.

        Parameters
        ----------
        static:
            Normalised static fields (S, H, W) or (B, S, H, W); None: those of `bind_static`.
        noise_keys:
            (B, K) whole numbers, the seed of each sample's noise (see `draw_noise`). None: zeros in
            place of noise, which is an error in training.
        generator:
            Source of random initial states, if the model has them.

        Raises
        ------
        ConfigurationError
            If neither or both of horizon and input_frames are given, or a size does not fit.
        """
        if (horizon is None) == (input_frames is None):
            raise ConfigurationError(
                "give either a horizon (forecast) or input_frames (one-step outputs), not "
                f"horizon={horizon} and input_frames={input_frames}"
            )
        if input_frames is not None:
            return self.scored_outputs(
                frames,
                input_frames,
                forced,
                shown=shown,
                static=static,
                noise_keys=noise_keys,
                generator=generator,
            )
        if forced is not None or shown is not None:
            raise ConfigurationError(
                "forced and shown frames belong to training: give input_frames in place of horizon"
            )
        assert horizon is not None
        return self._forecast(frames, horizon, static, noise_keys, generator)

    def _forecast(
        self,
        frames: Tensor,
        horizon: int,
        static: Tensor | None,
        noise_keys: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Forecast `horizon` frames after `frames`; arguments as for `forward`."""
        if horizon < 1:
            raise ConfigurationError(f"horizon={horizon} frames: give 1 or more")
        observed = frames.shape[1]
        steps = observed + horizon - 1
        return self._roll(
            frames, observed, steps, None, observed - 1, static, noise_keys, generator
        )

    def one_step_outputs(
        self,
        frames: Tensor,
        input_frames: int,
        forced: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        """Return the output after each frame of a window: (B, T, C, H, W) -> (B, T - 1, C, H, W).

        Output t is the model's estimate of frame t + 1. A model with an encoder does not estimate
        the observed frames; their places hold persistence (the frame before), without a gradient.
        Parameters are those of `scored_outputs`.
        """
        outputs = self.scored_outputs(frames, input_frames, forced, **options)
        observed = frames.shape[1] - 1 - outputs.shape[1]
        return torch.cat([frames[:, :observed].to(outputs), outputs], 1) if observed else outputs

    def scored_outputs(
        self,
        frames: Tensor,
        input_frames: int,
        forced: Tensor | None = None,
        *,
        shown: Tensor | None = None,
        static: Tensor | None = None,
        noise_keys: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return the estimates that training scores: (B, T - k, C, H, W).

        They are those of the last T - k frames of the window. k is 1, or `input_frames` for a
        model with an encoder. The model is fed the first `input_frames` frames, except where
        `shown` is 0, and then its own outputs, except where `forced` is 1.

        Parameters
        ----------
        frames:
            A whole window (B, T, C, H, W): input frames and horizon.
        input_frames:
            Number of observed frames of the window, from 1 to T - 1.
        forced:
            Teacher forcing (B, T - input_frames - 1): 1 where the true frame is fed in place of the
            output, else 0. Column j belongs to frame `input_frames + j`. None: all 0. If all are
            1, and on the CPU (where checking makes no GPU wait), all frames are read together.
        shown:
            Reverse scheduled sampling (B, input_frames - 1): 1 where the true input frame is fed, 0
            where the model's own output is fed in its place. Column j belongs to frame 1 + j. None:
            all 1. Only for models with `takes_hidden_frames`.
        static, noise_keys, generator:
            As for `forward`.
        """
        self._check_frames(frames)
        batch, total = frames.shape[:2]
        if not 1 <= input_frames < total:
            raise ConfigurationError(
                f"input_frames={input_frames} of a window of {total} frames: give 1 to {total - 1}"
            )
        wanted = (batch, total - input_frames - 1)
        if forced is not None and forced.shape != wanted:
            raise ConfigurationError(
                f"forced has shape {tuple(forced.shape)}; {batch} windows with "
                f"{total - input_frames} frames to forecast need {wanted}"
            )
        if shown is not None:
            self._check_shown(shown, batch, input_frames)
            if forced is None:
                forced = shown.new_zeros(wanted)
            # From here on as if only the first frame were observed.
            forced, input_frames = torch.cat([shown.to(forced), forced], dim=1), 1
        return self._roll(frames, input_frames, total - 1, forced, 0, static, noise_keys, generator)

    def _roll(
        self,
        frames: Tensor,
        observed: int,
        steps: int,
        forced: Tensor | None,
        first_kept: int,
        static: Tensor | None,
        noise_keys: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Run the time steps before `steps` and return the outputs from `first_kept` on.

        Step t is fed frame t, the first `observed` frames as they are, and outputs frame t + 1.
        """
        self._check_frames(frames)
        if frames.is_cuda and self._steps.step is not _step:
            # CUDA graphs may reuse the memory of outputs from one iteration to the next: a whole
            # rollout is one iteration, so that its outputs stay valid.
            torch.compiler.cudagraph_mark_step_begin()
        height, width = frames.shape[-2:]
        fed_length = observed if forced is None else min(frames.shape[1], steps)
        patches = patchify(self.padding.pad(frames[:, :fed_length]), self.patch_size)
        fields = self._static.patches(frames, static, self.padding, self.patch_size)
        beside = beside_frames(fields, self._noise(noise_keys, steps, patches))
        static_channels = 0 if fields is None else fields.shape[1]
        seen = _with(patches[:, :observed], beside[:, :observed, :static_channels])
        state, first = self.begin(seen, generator)
        if forced is not None and forced.device.type == "cpu" and bool(forced.all()):
            observed = steps  # full teacher forcing: all frames are known beforehand
        if forced is not None:
            forced = forced.to(patches)
        known = slice(first, min(observed, steps))
        readings = self._read_ahead(_with(patches[:, known], beside[:, known]), state)
        outputs: list[Tensor] = []
        output = patches[:, 0]
        for t in range(first, steps):
            if t < observed:
                fed = patches[:, t]
            elif forced is None:
                fed = output
            else:
                true = forced[:, t - observed].view(-1, 1, 1, 1)
                fed = true * patches[:, t] + (1 - true) * output
            reading = readings[t - first] if t - first < len(readings) else None
            output, state = self._one_step(fed, beside[:, t], reading, state)
            if t >= first_kept:
                outputs.append(output)
        frames_out = unpatchify(torch.stack(outputs, dim=1), self.patch_size)
        return frames_out[..., :height, :width]

    def _read_ahead(self, patches_btchw: Tensor, state: Any) -> list[Reading]:
        """Read the frames that are known before the rollout, all in one call."""
        if self._recomputes_steps():
            return []  # the backward pass would need them stored, which recomputing avoids
        batch, known = patches_btchw.shape[:2]
        # Frames before samples, so that the slice of one frame is contiguous.
        parts = self.read(patches_btchw.transpose(0, 1).flatten(0, 1), state)
        frames = [part.unflatten(0, (known, batch)) for part in parts]
        return [tuple(part[t] for part in frames) for t in range(known)]

    def _one_step(
        self, fed: Tensor, beside: Tensor, reading: Reading | None, state: Any
    ) -> tuple[Tensor, Any]:
        """Run one step, compiled or recomputed as configured, on what is fed or its reading."""
        if reading is not None:
            change, state = self._steps.step(self, reading, state)
        elif self._recomputes_steps():
            run = self._steps.read_and_step
            change, state = checkpoint(run, self, _with(fed, beside), state, use_reentrant=False)
        else:
            change, state = self._steps.read_and_step(self, _with(fed, beside), state)
        # Outputs are fed back and scored: they keep the precision of the frames under autocast.
        change = change.to(fed.dtype)
        return (fed + change if self.residual else change), state

    def _recomputes_steps(self) -> bool:
        return self.checkpoint_steps and self.training and torch.is_grad_enabled()

    def _check_shown(self, shown: Tensor, batch: int, input_frames: int) -> None:
        if not self.takes_hidden_frames:
            raise ConfigurationError(
                f"{type(self).__name__} needs every input frame: leave out shown, and train with "
                "scheduled sampling of the horizon"
            )
        wanted = (batch, input_frames - 1)
        if shown.shape != wanted:
            raise ConfigurationError(
                f"shown has shape {tuple(shown.shape)}; {batch} windows with {input_frames} input "
                f"frames need {wanted}"
            )

    def _check_frames(self, frames: Tensor) -> None:
        if frames.ndim != 5 or frames.shape[1] < 1:
            raise ConfigurationError(
                f"frames have shape {tuple(frames.shape)}; give (batch, frames, channels, height, "
                "width)"
            )
        if frames.shape[2] != self.channels:
            raise ConfigurationError(
                f"frames have {frames.shape[2]} channels (shape {tuple(frames.shape)}) and the "
                f"model was made with {self.channels}: in_shape=(channels, height, width)"
            )


def _with(patches: Tensor, beside: Tensor) -> Tensor:
    """Append static fields and noise to the channels (third axis from the end) of patch frames."""
    return torch.cat([patches, beside], dim=-3) if beside.shape[-3] else patches


# Functions, not methods: a compiled bound method would keep its model, and a copy of the model
# would step with the weights of the original.


def _step(model: RecurrentForecaster, reading: Reading, state: Any) -> tuple[Tensor, Any]:
    return model.step(reading, state)


def _read_and_step(model: RecurrentForecaster, given: Tensor, state: Any) -> tuple[Tensor, Any]:
    return model.step(model.read(given, state), state)


STEPS = (_step, _read_and_step)
