"""One optimisation step in plain PyTorch: schedule, precision, clipping, moving average, state.

Everything that changes from step to step is a function of the step number, or is part of
`Optimisation.state_tensors`. So a run can stop after any step and go on exactly.

Legend: b windows of this process, T frames, C channels, H W grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, get_args

import torch
from torch import Tensor, nn

from gmg_model.errors import ConfigurationError
from gmg_model.models.ensembles import member_keys
from gmg_model.training.losses import Loss, create_loss
from gmg_model.training.member_losses import create_member_loss, list_member_losses
from gmg_model.training.options import OptimisationOptions, Precision, Schedule

_OPTIMISERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": partial(torch.optim.RMSprop, momentum=0.9),
}


def check_options(options: OptimisationOptions, total_steps: int) -> None:
    """Raise ConfigurationError unless the options of an optimisation can work together."""
    for name, known in (
        ("optimiser", tuple(_OPTIMISERS)),
        ("schedule", get_args(Schedule)),
        ("precision", get_args(Precision)),
    ):
        if getattr(options, name) not in known:
            raise ConfigurationError(
                f"{name} is '{getattr(options, name)}'; known: {', '.join(known)}"
            )
    for name, value, allowed in (
        ("total_steps", total_steps, total_steps >= 1),
        ("learning_rate", options.learning_rate, options.learning_rate > 0),
        ("weight_decay", options.weight_decay, options.weight_decay >= 0),
        ("warmup", options.warmup, 0 <= options.warmup < 1),
        ("gradient_clip", options.gradient_clip, options.gradient_clip >= 0),
        ("ema", options.ema, 0 <= options.ema < 1),
        ("members", options.members, options.members >= 1),
    ):
        if not allowed:
            raise ConfigurationError(f"{name} cannot be {value}")
    if options.weight_decay and options.optimiser == "adam":
        raise ConfigurationError("weight_decay needs optimiser 'adamw' or 'rmsprop'")
    if (options.members > 1) != (options.loss in list_member_losses()):
        raise ConfigurationError(
            f"members={options.members} with loss '{options.loss}': a loss over members "
            f"({', '.join(list_member_losses())}) needs members=2 or more; any other loss would "
            "teach the members to be the same, and needs members=1"
        )


def learning_rate(step: int, options: OptimisationOptions, total_steps: int) -> float:
    """Return the learning rate of a step (0-based) of `total_steps`.

    It is a pure function of the step, so a resumed run has nothing to restore. `"onecycle"` (Smith
    & Topin 2018) rises along a cosine from 1/25 of the peak over 0.3 of the steps, then falls to
    1e-4 of the start. `"cosine"` is a linear warm-up, then a cosine to zero.

    Examples
    --------
    >>> options = OptimisationOptions(learning_rate=1e-3, schedule="onecycle")
    >>> [f"{learning_rate(step, options, total_steps=100):.1e}" for step in (0, 30, 99)]
    ['4.0e-05', '1.0e-03', '5.1e-07']
    """
    fraction = min(step / total_steps, 1.0)

    def cosine(start: float, end: float, part: float) -> float:
        return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * part))

    peak = options.learning_rate
    if options.schedule == "constant":
        return peak
    if options.schedule == "onecycle":
        rise = 0.3
        if fraction < rise:
            return cosine(peak / 25, peak, fraction / rise)
        return cosine(peak, peak / 25e4, (fraction - rise) / (1 - rise))
    if fraction < options.warmup:
        return peak * (step + 1) / (options.warmup * total_steps + 1)
    return cosine(peak, 0.0, (fraction - options.warmup) / (1 - options.warmup))


def _create_loss(options: OptimisationOptions) -> Loss:
    if options.members > 1:
        return create_member_loss(options.loss, fairness=options.crps_fairness)
    given: dict[str, Any] = {}
    if options.loss_weights:
        given["weights"] = options.loss_weights
    if options.loss_thresholds:
        given["thresholds"] = options.loss_thresholds
    return create_loss(options.loss, **given)


class Optimisation:
    """The optimiser of one model, with its precision and its moving average.

    Parameters
    ----------
    model:
        The bare model, on its device.
    options:
        How the weights are fitted. `loss_thresholds` are in the units of the frames that the model
        is given: a job normalises them first.
    total_steps:
        Steps of the whole training, the horizon of the learning rate's schedule.

    Raises
    ------
    ConfigurationError
        An option cannot work, or does not fit the model.
    """

    def __init__(self, model: nn.Module, options: OptimisationOptions, total_steps: int):
        check_options(options, total_steps)
        self.model, self.options, self.total_steps = model, options, total_steps
        noise = getattr(model, "noise", 0)
        if bool(noise) != (options.members > 1):
            raise ConfigurationError(
                f"members={options.members} of a model with noise={noise}: a model learns to use "
                "its noise from a loss over members alone. Give loss 'crps' and members=2 or more "
                "to a model made with noise=4 (channels), and members=1 to one with noise=0"
            )
        self._loss = _create_loss(options)
        self._optimiser = _OPTIMISERS[options.optimiser](
            model.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
        )
        self._average: dict[str, Tensor] = {}
        if options.ema:
            self._average = {
                name: value.detach().clone() for name, value in model.named_parameters()
            }

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context that sets the precision of the forward pass."""
        if self.options.precision != "bf16":
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
        """Add the gradient of `weight * sum of the windows' losses`.

        Parameters
        ----------
        forward:
            The model, or its DistributedDataParallel wrapper.
        frames_btchw:
            Normalised frames (b, T, C, H, W), inputs and targets.
        input_frames:
            Number of the T frames that are inputs.
        forced:
            (b, horizon - 1) in {0, 1}: 1 feeds the true frame (scheduled sampling).
        weight:
            1 / windows of the global batch. Times the number of processes if gradients are averaged
            over processes.
        shown:
            (b, input_frames - 1) in {0, 1}: 0 hides a frame of the input part (reverse scheduled
            sampling), for models that can go without it. None shows all.
        noise_keys:
            (b, K) whole numbers from 0 that seed each window's noise, for a model that has noise.
            Its members draw from (key, member).
        static:
            (b, S, H, W) static fields of each window, if an augmentation moved them with its
            frames. None: those that are bound to the model, if any.

        Returns
        -------
        Tensor
            (b,) loss of each window over all its outputs, detached, float64. The outputs are T - 1
            frames; those of a model with an encoder are the frames of the horizon.
        """
        asked = {"forced": forced, "shown": shown, "static": static}
        fed = {name: self._for_members(mask) for name, mask in asked.items() if mask is not None}
        if noise_keys is not None:
            fed["noise_keys"] = member_keys(noise_keys, self.options.members)
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
        """Return the losses of free-running forecasts, for validation: (b,), float64.

        Parameters
        ----------
        weights:
            Those of `evaluated_weights`. The model's own stay as they are. The caller sets the
            model's mode (training or evaluation).
        frames_btchw, input_frames, noise_keys:
            As for `backward`.
        """
        given, true_btchw = frames_btchw.split(
            [input_frames, frames_btchw.shape[1] - input_frames], dim=1
        )
        fed = {}
        if noise_keys is not None:
            fed["noise_keys"] = member_keys(noise_keys, self.options.members)
        call = (self._for_members(given), true_btchw.shape[1])
        with self.autocast():
            outputs = torch.func.functional_call(self.model, dict(weights), call, fed)
        return self._losses(outputs, true_btchw).double()

    def _for_members(self, values: Tensor) -> Tensor:
        """Repeat each row for each member, members of a window side by side: (b * M, ...)."""
        members = self.options.members
        return values if members == 1 else values.repeat_interleave(members, dim=0)

    def _losses(self, outputs: Tensor, true_btchw: Tensor) -> Tensor:
        outputs = outputs.to(true_btchw.dtype)
        if self.options.members > 1:
            outputs = outputs.unflatten(0, (len(true_btchw), self.options.members))
        return self._loss(outputs, true_btchw)

    def update(self, step: int, loss: Tensor | None = None) -> Tensor:
        """Clip, step the optimiser and the average, clear the gradients.

        Parameters
        ----------
        step:
            0-based; it sets the learning rate.
        loss:
            The step's loss, the same on every process. If it is given, a step whose loss or
            gradient is not finite is left out: weights, moments and average stay as they were. The
            host then waits for the device at every step.

        Returns
        -------
        Tensor
            The norm of the whole gradient before clipping, a scalar. Reading it makes the host
            wait for the device.
        """
        limit = self.options.gradient_clip or math.inf
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        if loss is not None and not bool(torch.isfinite(norm + loss)):
            self._optimiser.zero_grad(set_to_none=True)
            return norm.detach()
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate(step, self.options, self.total_steps)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        if self._average:
            # The usual ramp. Without it, the random start would dominate for 1/(1-decay) steps.
            decay = min(self.options.ema, (1 + step) / (10 + step))
            with torch.no_grad():
                for name, value in self.model.named_parameters():
                    self._average[name].lerp_(value, 1 - decay)
        return norm.detach()

    def evaluated_weights(self) -> dict[str, Tensor]:
        """Return the state dict to validate and to forecast with: the average if one is kept."""
        weights = {name: value.detach() for name, value in self.model.state_dict().items()}
        return {**weights, **self._average}

    def state_tensors(self) -> dict[str, Tensor]:
        """Return optimiser and average by name: `optimiser/<parameter>/<moment>`, `ema/...`."""
        tensors = {f"ema/{name}": value for name, value in self._average.items()}
        for name, parameter in self.model.named_parameters():
            for key, value in self._optimiser.state.get(parameter, {}).items():
                tensors[f"optimiser/{name}/{key}"] = torch.as_tensor(value)
        return tensors

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `state_tensors` returned."""
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
