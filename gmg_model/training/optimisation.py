"""One optimisation step in plain PyTorch: schedule, precision, clipping, moving average, state.

Everything that changes from step to step is a function of the step number, or lies in the state
that :meth:`Optimisation.state_tensors` returns, so a run can stop after any step and go on exactly.

Legend: b windows of this process, T frames, C channels, H W grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gmg_model.errors import ConfigurationError
from gmg_model.models.ensembles import member_keys
from gmg_model.training.losses import create_loss
from gmg_model.training.member_losses import create_member_loss, list_member_losses

_OPTIMISERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": partial(torch.optim.RMSprop, momentum=0.9),
}


@dataclass(frozen=True)
class OptimisationConfig:
    """How the weights are fitted."""

    total_steps: int
    """steps of the whole training; the schedule's horizon"""
    learning_rate: float = 3e-4
    """peak learning rate"""
    optimiser: str = "adam"
    """adam, adamw or rmsprop (momentum 0.9, as SRVP was trained)"""
    weight_decay: float = 0.0
    """decay of the weights: decoupled from the gradient (adamw), or part of it (rmsprop)"""
    schedule: str = "onecycle"
    """onecycle, cosine or constant"""
    warmup: float = 0.05
    """fraction of the steps until the peak (cosine); onecycle rises over 0.3 of them"""
    gradient_clip: float = 1.0
    """largest norm of the whole gradient; 0: off"""
    loss: str = "l1+l2"
    """name for gmg_model.training.losses.create_loss, or with members for create_member_loss"""
    loss_options: Mapping[str, Any] = field(default_factory=dict)
    """its options"""
    members: int = 1
    """forecasts of each window, each from its own noise; 2 or more for a loss over members"""
    precision: str = "fp32"
    """fp32, bf16 (autocast) or fp64"""
    ema: float = 0.0
    """decay of the exponential moving average of the weights; 0: none is kept"""

    def __post_init__(self) -> None:
        for name, known in (
            ("optimiser", tuple(_OPTIMISERS)),
            ("schedule", ("onecycle", "cosine", "constant")),
            ("precision", ("fp32", "bf16", "fp64")),
        ):
            if getattr(self, name) not in known:
                raise ConfigurationError(
                    f"{name} is '{getattr(self, name)}'; known: {', '.join(known)}"
                )
        for name, allowed in (
            ("total_steps", self.total_steps >= 1),
            ("learning_rate", self.learning_rate > 0),
            ("weight_decay", self.weight_decay >= 0),
            ("warmup", 0 <= self.warmup < 1),
            ("gradient_clip", self.gradient_clip >= 0),
            ("ema", 0 <= self.ema < 1),
            ("members", self.members >= 1),
        ):
            if not allowed:
                raise ConfigurationError(f"{name} cannot be {getattr(self, name)}")
        if self.weight_decay and self.optimiser == "adam":
            raise ConfigurationError("weight_decay needs optimiser 'adamw' or 'rmsprop'")
        if (self.members > 1) != (self.loss in list_member_losses()):
            raise ConfigurationError(
                f"members={self.members} with loss '{self.loss}': a loss over members "
                f"({', '.join(list_member_losses())}) needs members=2 or more, and any other "
                "loss, which would teach the members to be the same, members=1"
            )


def learning_rate(step: int, config: OptimisationConfig) -> float:
    """The learning rate of ``step`` (0-based): a pure function, so a resume has nothing to restore.

    ``onecycle`` (Smith & Topin 2018): cosine from 1/25 of the peak up over 0.3 of the steps, then
    down to 1e-4 of the start. ``cosine``: linear warm-up, then cosine to zero.
    """
    fraction = min(step / config.total_steps, 1.0)

    def cosine(start: float, end: float, part: float) -> float:
        return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * part))

    peak = config.learning_rate
    if config.schedule == "constant":
        return peak
    if config.schedule == "onecycle":
        rise = 0.3
        if fraction < rise:
            return cosine(peak / 25, peak, fraction / rise)
        return cosine(peak, peak / 25e4, (fraction - rise) / (1 - rise))
    if fraction < config.warmup:
        return peak * (step + 1) / (config.warmup * config.total_steps + 1)
    return cosine(peak, 0.0, (fraction - config.warmup) / (1 - config.warmup))


class Optimisation:
    """The optimiser of one model, with its precision and its moving average.

    Parameters
    ----------
    model:
        The bare model, on its device.
    config:
        How the weights are fitted.
    """

    def __init__(self, model: nn.Module, config: OptimisationConfig):
        self.model, self.config = model, config
        noise = getattr(model, "noise", 0)
        if bool(noise) != (config.members > 1):
            raise ConfigurationError(
                f"members={config.members} of a model with noise={noise}: noise is learnt from a "
                "loss over members alone, so that loss 'crps' and members=2 or more go with a "
                "model made with noise=4 (channels), and members=1 with noise=0"
            )
        create = create_loss if config.members == 1 else create_member_loss
        self._loss = create(config.loss, **config.loss_options)
        self._optimiser = _OPTIMISERS[config.optimiser](
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self._average: dict[str, Tensor] = {}
        if config.ema:
            self._average = {
                name: value.detach().clone() for name, value in model.named_parameters()
            }

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of the forward pass."""
        if self.config.precision != "bf16":
            return nullcontext()
        device = next(self.model.parameters()).device.type
        return torch.autocast(device, dtype=torch.bfloat16)

    def backward(
        self,
        forward: nn.Module,
        frames_btchw: Tensor,
        input_frames: int,
        forced: Tensor | None,
        weight: float,
        shown: Tensor | None = None,
        noise_keys: Tensor | None = None,
        static: Tensor | None = None,
    ) -> Tensor:
        """Add the gradient of ``weight * sum of the windows' losses``.

        Parameters
        ----------
        forward:
            The model, or its DistributedDataParallel wrapper.
        frames_btchw:
            Normalised frames (b, T, C, H, W), inputs and targets.
        input_frames:
            How many of the T are given.
        forced:
            (b, horizon - 1) in {0, 1}: 1 feeds the true frame (scheduled sampling).
        weight:
            1 / windows of the global batch, times the number of processes where gradients are
            averaged over processes.
        shown:
            (b, input_frames - 1) in {0, 1}: 0 hides a frame of the input part (reverse scheduled
            sampling), for models that take it. None: all are shown.
        noise_keys:
            (b, K) whole numbers from 0 that name each window's noise, for a model that has noise;
            its members draw from (key, member).
        static:
            (b, S, H, W) static fields of each window, where an augmentation moved them with its
            frames; None: those that are bound to the model, if any.

        Returns
        -------
        Tensor
            (b,) loss of each window over all its outputs, detached, float64: T - 1 frames, of a
            model with an encoder those of the horizon.
        """
        asked = {"forced": forced, "shown": shown, "static": static}
        fed = {name: self._for_members(mask) for name, mask in asked.items() if mask is not None}
        if noise_keys is not None:
            fed["noise_keys"] = member_keys(noise_keys, self.config.members)
        with self.autocast():
            outputs = forward(self._for_members(frames_btchw), input_frames=input_frames, **fed)
        losses_b = self._losses(outputs, frames_btchw[:, -outputs.shape[1] :])
        (losses_b.sum() * weight).backward()
        return losses_b.detach().double()

    @torch.no_grad()
    def forecast_losses(
        self,
        weights: Mapping[str, Tensor],
        frames_btchw: Tensor,
        input_frames: int,
        noise_keys: Tensor | None = None,
    ) -> Tensor:
        """Losses of free-running forecasts, for validation: (b,), float64.

        Parameters
        ----------
        weights:
            Those of :meth:`evaluated_weights`; the model's own stay as they are. Its mode is the
            caller's to set.
        frames_btchw, input_frames, noise_keys:
            As for :meth:`backward`.
        """
        given, true_btchw = frames_btchw.split(
            [input_frames, frames_btchw.shape[1] - input_frames], dim=1
        )
        fed = {}
        if noise_keys is not None:
            fed["noise_keys"] = member_keys(noise_keys, self.config.members)
        call = (self._for_members(given), true_btchw.shape[1])
        with self.autocast():
            outputs = torch.func.functional_call(self.model, dict(weights), call, fed)
        return self._losses(outputs, true_btchw).double()

    def _for_members(self, values: Tensor) -> Tensor:
        """Each row once for each member, members of a window side by side: (b * M, ...)."""
        members = self.config.members
        return values if members == 1 else values.repeat_interleave(members, dim=0)

    def _losses(self, outputs: Tensor, true_btchw: Tensor) -> Tensor:
        outputs = outputs.to(true_btchw.dtype)
        if self.config.members > 1:
            outputs = outputs.unflatten(0, (len(true_btchw), self.config.members))
        return self._loss(outputs, true_btchw)

    def update(self, step: int, loss: Tensor | None = None) -> Tensor:
        """Clip, step the optimiser and the average, clear the gradients.

        Parameters
        ----------
        step:
            0-based, of the learning rate.
        loss:
            The step's loss, the same on every process. Where it is given, a step whose loss or
            gradient is not finite is left out: weights, moments and average stay as they were. The
            host then waits for the device at every step.

        Returns
        -------
        Tensor
            The norm of the whole gradient before clipping, a scalar: reading it makes the host
            wait for the device.
        """
        limit = self.config.gradient_clip or math.inf
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        if loss is not None and not bool(torch.isfinite(norm + loss)):
            self._optimiser.zero_grad(set_to_none=True)
            return norm.detach()
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate(step, self.config)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        if self._average:
            # The usual ramp: early averages would else keep the random start for 1/(1-decay) steps.
            decay = min(self.config.ema, (1 + step) / (10 + step))
            with torch.no_grad():
                for name, value in self.model.named_parameters():
                    self._average[name].lerp_(value, 1 - decay)
        return norm.detach()

    def evaluated_weights(self) -> dict[str, Tensor]:
        """The state dict to validate and to forecast with: the average where one is kept."""
        weights = {name: value.detach() for name, value in self.model.state_dict().items()}
        return {**weights, **self._average}

    def state_tensors(self) -> dict[str, Tensor]:
        """Optimiser and average by name: ``optimiser/<parameter>/<moment>``, ``ema/...``."""
        tensors = {f"ema/{name}": value for name, value in self._average.items()}
        for name, parameter in self.model.named_parameters():
            for key, value in self._optimiser.state.get(parameter, {}).items():
                tensors[f"optimiser/{name}/{key}"] = torch.as_tensor(value)
        return tensors

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of :meth:`state_tensors`."""
        with torch.no_grad():
            for name, value in self._average.items():
                value.copy_(tensors[f"ema/{name}"])
        state: dict[int, dict[str, Tensor]] = {}
        for index, (name, _) in enumerate(self.model.named_parameters()):
            prefix = f"optimiser/{name}/"
            moments = {
                key.removeprefix(prefix): value
                for key, value in tensors.items()
                if key.startswith(prefix)
            }
            if moments:
                state[index] = moments
        groups = self._optimiser.state_dict()["param_groups"]
        self._optimiser.load_state_dict({"state": state, "param_groups": groups})
