"""The gradient of a step: of one worker's lanes, and averaged over the workers."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gmg_model.models.ensembles import window_keys
from gmg_model.training.optimisation import Optimisation
from gmg_model.training.sampling import ScheduledSampling, forced_frames, observed_frames
from jobs.training.plan import TrainingPlan
from pipelines.stream.window_stream import Batch

Compression = Literal["none", "bf16"]


class LaneGradients:
    """Adds up the gradients of one worker's lanes of a global batch.

    Parameters
    ----------
    forward:
        The model, or its DistributedDataParallel wrapper.
    dtype, device:
        What frames are converted to.
    """

    def __init__(
        self,
        plan: TrainingPlan,
        optimisation: Optimisation,
        forward: nn.Module,
        dtype: torch.dtype,
        device: torch.device,
    ):
        self._plan, self._optimisation, self._forward = plan, optimisation, forward
        self._dtype, self._device = dtype, device
        self._sampling = ScheduledSampling(plan.options.training)

    def add(self, batch: Batch, step: int, weight: float) -> Tensor:
        """Add the gradient of `weight * sum of the windows' losses` and return the losses (b,).

        The batch is cut into micro-batches if `--training.micro_batch` says so.
        """
        if not len(batch.lanes):
            # A worker without a lane: a window of zeros of no weight, so that no collective hangs.
            c, h, w = self._plan.model_overrides["in_shape"]
            frames_btchw = torch.zeros(
                1, self._plan.window.frames, c, h, w, dtype=self._dtype, device=self._device
            )
            return self._add_part(frames_btchw, np.zeros(1, int), step, 0.0) * 0
        frames = torch.from_numpy(batch.frames_btchw)
        size = self._plan.options.training.micro_batch or len(frames)
        losses = []
        for first in range(0, len(frames), size):
            part = slice(first, first + size)
            frames_btchw = frames[part].to(self._device, self._dtype)
            static = None
            if batch.static is not None and batch.static.ndim == 4:  # moved with each window
                static = torch.from_numpy(batch.static[part]).to(self._device, self._dtype)
            with self._collectives(at_end=first + size >= len(frames)):
                losses.append(self._add_part(frames_btchw, batch.lanes[part], step, weight, static))
        return torch.cat(losses)

    def _collectives(self, at_end: bool) -> AbstractContextManager[Any]:
        """Let gradients travel once per step, with the last micro-batch."""
        if at_end or not isinstance(self._forward, DistributedDataParallel):
            return nullcontext()
        return self._forward.no_sync()

    def _add_part(
        self,
        frames_btchw: Tensor,
        lanes: np.ndarray,
        step: int,
        weight: float,
        static: Tensor | None = None,
    ) -> Tensor:
        """Add the gradients of some lanes; what each is fed is a function of (seed, step, lane)."""
        training, window = self._plan.options.training, self._plan.window
        draw, when = (training.seed, step, lanes), (step, self._plan.total_steps)
        forced = forced_frames(self._sampling.probability(*when), window.horizon, *draw)
        shown = None
        if (observed := self._sampling.observed_probability(*when)) < 1:
            shown = observed_frames(observed, window.input_frames, *draw)
        keys = window_keys(training.seed, lanes, step) if training.members > 1 else None
        return self._optimisation.backward(
            self._forward, frames_btchw, window.input_frames, forced, weight, shown, keys, static
        )


def distributed(model: nn.Module, compression: Compression) -> DistributedDataParallel:
    """Return the model whose gradients are averaged over the workers while they are computed.

    Parameters
    ----------
    model:
        On this worker's device.
    compression:
        `"bf16"`: gradients are rounded to bfloat16, summed and sent as such, in half the bytes. The
        optimiser, its moments and the weights stay as they are.
    """
    wrapped = DistributedDataParallel(model, gradient_as_bucket_view=True)
    if compression == "bf16":
        wrapped.register_comm_hook(None, average_in_bf16)
    return wrapped


# PyTorch compares these annotations with its types, so they must not become strings: this module
# has no `from __future__ import annotations`.
def average_in_bf16(
    _state: None,
    bucket: dist.GradBucket,  # pyright: ignore[reportPrivateImportUsage]
) -> torch.futures.Future[Tensor]:
    """Return the mean over the workers of a bucket's gradients, which travel as bfloat16.

    PyTorch has a hook that does this, but it does not run without CUDA.
    """
    gradients = bucket.buffer()
    # Divided first: bfloat16 would lose more digits of large sums.
    share = gradients.to(torch.bfloat16).div_(dist.get_world_size())
    summed: Any = dist.all_reduce(share, async_op=True)

    def copy_back(future: torch.futures.Future[list[Tensor]]) -> Tensor:
        return gradients.copy_(future.value()[0])

    return summed.get_future().then(copy_back)
