"""Scheduled sampling: how often training feeds the true frame in place of the model's own.

The probability depends on the fraction of training done, not on a step number, so a schedule
means the same for a short and a long run. The draws are a pure function of (seed, step, lane):
a run resumed, or spread over another number of workers, feeds the same frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gmg_model.errors import ConfigurationError, require_one_of

KINDS = ("none", "linear", "exponential", "sigmoid")


@dataclass(frozen=True)
class ScheduledSampling:
    """When the true frame is fed, over training.

    >>> ScheduledSampling("linear", start=0.0, end=0.5).probability(0.25)
    0.5
    """

    kind: str = "linear"
    """Shape of the way from 1 to 0: ``"linear"``, ``"exponential"``, ``"sigmoid"``, or ``"none"``:
    free-running throughout."""
    start: float = 0.0
    """Fraction of training until which every frame fed is true, in [0, 1]."""
    end: float = 0.5
    """Fraction of training from which the model runs free, from ``start`` to 1."""

    def __post_init__(self) -> None:
        if self.kind == "reverse":
            raise ConfigurationError(
                "reverse scheduled sampling hides frames of the input part, which GMG's recurrence "
                f"has no use for: choose one of {', '.join(KINDS)}"
            )
        require_one_of("kind", self.kind, KINDS)
        if not 0 <= self.start <= self.end <= 1:
            raise ConfigurationError(
                f"start={self.start} and end={self.end} are fractions of training: give "
                "0 <= start <= end <= 1"
            )

    def probability(self, fraction: float) -> float:
        """Probability of feeding truth when ``fraction`` (0 to 1) of training is done: 1 to 0."""
        if self.kind == "none" or fraction >= self.end:
            return 0.0
        if fraction <= self.start:
            return 1.0
        done = (fraction - self.start) / (self.end - self.start)
        if self.kind == "linear":
            return 1.0 - done
        if self.kind == "exponential":
            # From 1 to 0 exactly, a hundredfold steeper at the start than at the end.
            return (math.exp(-done * math.log(100)) - 0.01) / 0.99
        edge = 1 / (1 + math.exp(-6))
        value = 1 / (1 + math.exp(12 * (done - 0.5)))
        return (value - (1 - edge)) / (2 * edge - 1)


def forced_frames(
    probability: float, horizon: int, seed: int, step: int, lanes: Sequence[int] | np.ndarray
) -> Tensor:
    """Which frames of the horizon are fed as truth: float32 (b, horizon - 1) of 0 and 1.

    Row i depends only on (seed, step, lanes[i]), so it is the same whichever worker holds the
    lane. Raising the probability only ever adds ones.

    Parameters
    ----------
    probability:
        Of each one, in [0, 1].
    horizon:
        Frames to forecast; the last one is never fed.
    seed, step:
        Of the run and the optimisation step, 0 or more.
    lanes:
        Place of each sample in the global batch, 0 or more.
    """
    if not 0 <= probability <= 1:
        raise ConfigurationError(f"probability={probability}: give a number from 0 to 1")
    if horizon < 1:
        raise ConfigurationError(f"horizon={horizon} frames: give 1 or more")
    draws = np.empty((len(lanes), horizon - 1))
    for row, lane in enumerate(lanes):
        draws[row] = np.random.default_rng((seed, step, int(lane))).random(horizon - 1)
    return torch.from_numpy((draws < probability).astype(np.float32))
