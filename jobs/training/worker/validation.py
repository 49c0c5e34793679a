"""Free-running forecasts of the validation windows on all workers, and the best score so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from gmg_model.models.ensembles import window_keys
from gmg_model.training.optimisation import Optimisation
from jobs.training.plan import TrainingPlan
from jobs.training.worker.retrying import iterate_with_retry
from pipelines.storage.retry import Retry
from pipelines.stream.window_stream import read_batches


@dataclass(frozen=True)
class Selection:
    """The best validation so far. Early stopping decides by it; every checkpoint keeps it."""

    best: float | None = None
    """lowest validation loss; None before the first"""
    best_step: int = 0
    """steps done when it was measured"""
    since: int = 0
    """validations after it"""

    def after(self, loss: float, step: int) -> Selection:
        """Return the selection after another validation.

        Examples
        --------
        >>> Selection(best=0.5, best_step=10).after(0.6, 20)
        Selection(best=0.5, best_step=10, since=1)
        """
        if self.best is None or loss < self.best:
            return Selection(loss, step) if math.isfinite(loss) else replace(self, since=1)
        return replace(self, since=self.since + 1)

    def exhausted(self, patience: int) -> bool:
        """Return whether `patience` validations passed without a better one; 0: never."""
        return 0 < patience <= self.since

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for a checkpoint's record."""
        return asdict(self)


def losses_by_batch(
    plan: TrainingPlan,
    model: nn.Module,
    optimisation: Optimisation,
    rank: int,
    world: int,
    to_device: Callable[[np.ndarray], Tensor],
    retry: Retry,
) -> Iterator[Tensor]:
    """Yield sums of the losses of this worker's share of the validation windows, float64 scalars.

    Every worker yields the same number of sums, so that all may run a collective after each. A
    worker that has no window left adds zero. The model is in training mode before and after, and no
    random number is drawn from a global generator.
    """
    weights = optimisation.evaluated_weights()
    spec, mine = plan.window, plan.validation_starts[rank::world]
    size = max(1, plan.options.training.global_batch // world)
    most = -(-len(plan.validation_starts) // world)
    noisy = plan.options.training.members > 1

    def begin(done: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return read_batches(plan.store, plan.variables, spec, mine[done * size :], size)

    batches = iterate_with_retry(begin, "validating", retry)
    for _ in range(0, most, size):
        total = to_device(np.zeros((), np.float64)).double()
        starts, physical_btchw = next(batches, (mine[:0], None))
        if physical_btchw is not None:
            times = plan.store.times[spec.frames_of(starts)]
            frames_btchw = to_device(plan.normalisation.inputs(physical_btchw, times))
            keys = window_keys(plan.options.training.seed, starts) if noisy else None
            model.eval()
            try:
                total += optimisation.forecast_losses(
                    weights, frames_btchw, spec.input_frames, keys
                ).sum()
            finally:
                model.train()
        yield total
