"""Scheduled sampling: how often training feeds the true frame in place of the model's own.

A schedule says how probable it is at each step that a true frame is fed; its state is the step
number alone. The draws are a pure function of (seed, step, lane): a run resumed, or spread over
another number of workers, feeds the same frames.

Reverse scheduled sampling (PredRNN-V2, Wang et al. 2022) also hides frames of the input part, half
of them at first and none at last, so that a model learns to carry what it has seen across them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gmg_model.errors import ConfigurationError, require_one_of

FORWARD_KINDS = ("none", "linear", "exponential", "sigmoid")
REVERSE_KINDS = ("reverse-linear", "reverse-exponential", "reverse-sigmoid")
KINDS = FORWARD_KINDS + REVERSE_KINDS
UNITS = ("fraction", "steps")

REVERSE_BEGIN = 0.5
"""Share of true frames, of the input part and of the horizon, that reverse kinds begin with."""
TIME_CONSTANTS = 5.0
"""Time constants of the reverse kinds' curves between start and end: published are 5,000 steps in
25,000."""


@dataclass(frozen=True)
class ScheduledSampling:
    """When the true frame is fed, over training.

    >>> ScheduledSampling("linear", start=0.0, end=0.5).probability(25, total_steps=100)
    0.5
    >>> published = ScheduledSampling("reverse-exponential", 25_000, 50_000, unit="steps")
    >>> published.observed_probability(0, 80_000), published.observed_probability(50_000, 80_000)
    (0.5, 1.0)
    """

    kind: str = "linear"
    """Shape of the way from 1 to 0: ``"linear"``, ``"exponential"``, ``"sigmoid"``, or ``"none"``:
    free-running throughout. ``"reverse-linear"``, ``"reverse-exponential"`` and
    ``"reverse-sigmoid"`` hide frames of the input part as well; the name is the shape of the way
    from half of them to all, while those of the horizon fall from half to none in a line."""
    start: float = 0.0
    """Until when nothing changes: a fraction of training, 0 to 1, or a step."""
    end: float = 0.5
    """From when the model runs free, with all of its input: a fraction from ``start`` to 1, or a
    step, which may lie beyond the training's last."""
    unit: str = "fraction"
    """What ``start`` and ``end`` are: ``"fraction"`` of training, so that a schedule means the same
    for a short and a long run, or ``"steps"``, as published ones are given."""

    def __post_init__(self) -> None:
        if self.kind == "reverse":
            raise ConfigurationError(
                "reverse scheduled sampling comes in three shapes: choose one of "
                f"{', '.join(REVERSE_KINDS)} (published: reverse-exponential)"
            )
        require_one_of("kind", self.kind, KINDS)
        require_one_of("unit", self.unit, UNITS)
        last = 1 if self.unit == "fraction" else math.inf
        if not 0 <= self.start <= self.end <= last:
            what = "fractions of training" if self.unit == "fraction" else "steps"
            order = "0 <= start <= end" + (" <= 1" if self.unit == "fraction" else "")
            raise ConfigurationError(
                f"start={self.start} and end={self.end} are {what}: give {order}"
            )

    @property
    def hides_input(self) -> bool:
        """Whether frames of the input part are hidden, which not every model can do without."""
        return self.kind in REVERSE_KINDS

    def probability(self, step: int, total_steps: int) -> float:
        """Probability of feeding a true frame of the horizon at a step of so many: falls to 0."""
        done = self._done(step, total_steps)
        if self.kind == "none" or done >= 1:
            return 0.0
        if self.hides_input:
            return REVERSE_BEGIN * (1 - done)
        if done <= 0:
            return 1.0
        if self.kind == "linear":
            return 1.0 - done
        if self.kind == "exponential":
            # From 1 to 0 exactly, a hundredfold steeper at the start than at the end.
            return (math.exp(-done * math.log(100)) - 0.01) / 0.99
        edge = 1 / (1 + math.exp(-6))
        value = 1 / (1 + math.exp(12 * (done - 0.5)))
        return (value - (1 - edge)) / (2 * edge - 1)

    def observed_probability(self, step: int, total_steps: int) -> float:
        """Probability of feeding a true frame of the input part: 1, or for reverse kinds 1/2 to 1.

        Between start and end as published: exponential ``1 - exp(-t / a) / 2`` and sigmoid
        ``1/2 + 1/2 / (1 + exp((b - t) / a))`` of the time t since the start, a being a fifth and b
        half of the way. The last two meet 1 in a small jump at the end.
        """
        done = self._done(step, total_steps)
        if not self.hides_input or done >= 1:
            return 1.0
        if done <= 0:
            return REVERSE_BEGIN
        rest = 1 - REVERSE_BEGIN
        if self.kind == "reverse-linear":
            return REVERSE_BEGIN + rest * done
        if self.kind == "reverse-exponential":
            return 1.0 - rest * math.exp(-TIME_CONSTANTS * done)
        return REVERSE_BEGIN + rest / (1 + math.exp(TIME_CONSTANTS * (0.5 - done)))

    def _done(self, step: int, total_steps: int) -> float:
        """How far the way from start to end is: 0 or less before it, 1 or more behind it."""
        now = step / total_steps if self.unit == "fraction" else step
        if now >= self.end:
            return 1.0
        if now <= self.start:
            return 0.0
        return (now - self.start) / (self.end - self.start)


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
    if horizon < 1:
        raise ConfigurationError(f"horizon={horizon} frames: give 1 or more")
    return _drawn(probability, horizon - 1, [(seed, step, int(lane)) for lane in lanes])


def observed_frames(
    probability: float, input_frames: int, seed: int, step: int, lanes: Sequence[int] | np.ndarray
) -> Tensor:
    """Which frames of the input part are fed as truth: float32 (b, input_frames - 1) of 0 and 1.

    Column j belongs to frame 1 + j: the first frame is always fed. As `forced_frames`, and
    independent of its draws.
    """
    if input_frames < 1:
        raise ConfigurationError(f"input_frames={input_frames}: give 1 or more")
    return _drawn(
        probability, input_frames - 1, [(seed, step, int(lane), _INPUT_PART) for lane in lanes]
    )


_INPUT_PART = 1
"""Sets the draws for the input part apart from those for the horizon."""


def _drawn(probability: float, columns: int, keys: Sequence[tuple[int, ...]]) -> Tensor:
    """1 with this probability, else 0: (rows, columns), each row from its own key."""
    if not 0 <= probability <= 1:
        raise ConfigurationError(f"probability={probability}: give a number from 0 to 1")
    draws = np.empty((len(keys), columns))
    for row, key in enumerate(keys):
        draws[row] = np.random.default_rng(key).random(columns)
    return torch.from_numpy((draws < probability).astype(np.float32))
