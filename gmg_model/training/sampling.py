"""Scheduled sampling: how often training feeds the true frame instead of the model's own forecast.

A schedule gives the probability that a true frame is fed at a step. It is a function of the step
number alone. The draws are a pure function of (seed, step, lane): a run that is resumed, or spread
over another number of workers, feeds the same frames.

Reverse scheduled sampling (PredRNN-V2, Wang et al. 2022) also hides frames of the input part. It
hides half of them at first and none at last, so that a model learns to carry what it has seen
across the hidden frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from gmg_model.errors import ConfigurationError, require_one_of
from gmg_model.training.options import (
    FORWARD_KINDS,
    REVERSE_KINDS,
    SamplingOptions,
    SamplingUnit,
)

REVERSE_BEGIN = 0.5
"""Share of true frames, of the input part and of the horizon, at the start of reverse schedules."""
TIME_CONSTANTS = 5.0
"""Time constants of the reverse schedules' curves between start and end: published are 5,000 steps
in 25,000."""


class ScheduledSampling:
    """The probability of feeding a true frame, over training.

    Every schedule of the horizon falls from 1 to 0 between `sampling_start` and `sampling_end`;
    `"none"` runs free throughout. A reverse schedule shows half of the input frames before
    `sampling_start` and all of them from `sampling_end` on, along the curve that its name says,
    while the share of true frames of the horizon falls from half to none in a line.

    Parameters
    ----------
    options:
        The kind of schedule, and its bounds. As fractions of training, the bounds mean the same for
        a short and a long run. As steps, they are as published ones are given, and
        `sampling_end` may lie beyond the last step.

    Raises
    ------
    ConfigurationError
        A kind or a unit is unknown, or the bounds are not in order.

    Examples
    --------
    >>> linear = ScheduledSampling(SamplingOptions("linear", sampling_end=0.5))
    >>> linear.probability(25, total_steps=100)
    0.5
    >>> published = ScheduledSampling(
    ...     SamplingOptions("reverse-exponential", 25_000, 50_000, sampling_unit="steps")
    ... )
    >>> published.observed_probability(0, 80_000), published.observed_probability(50_000, 80_000)
    (0.5, 1.0)
    """

    def __init__(self, options: SamplingOptions):
        self.kind: str = options.sampling
        self.start, self.end = options.sampling_start, options.sampling_end
        self.unit = options.sampling_unit
        self._check()

    def _check(self) -> None:
        if self.kind == "reverse":
            raise ConfigurationError(
                "reverse scheduled sampling comes in three shapes: choose one of "
                f"{', '.join(REVERSE_KINDS)} (published: reverse-exponential)"
            )
        require_one_of("sampling", self.kind, FORWARD_KINDS + REVERSE_KINDS)
        require_one_of("sampling_unit", self.unit, get_args(SamplingUnit))
        last = 1 if self.unit == "fraction" else math.inf
        if not 0 <= self.start <= self.end <= last:
            what = "fractions of training" if self.unit == "fraction" else "steps"
            order = "0 <= start <= end" + (" <= 1" if self.unit == "fraction" else "")
            raise ConfigurationError(
                f"sampling_start={self.start} and sampling_end={self.end} are {what}: give {order}"
            )

    @property
    def hides_input(self) -> bool:
        """Whether frames of the input part are hidden. Not every model can go without them."""
        return self.kind in REVERSE_KINDS

    def probability(self, step: int, total_steps: int) -> float:
        """Return the probability of feeding a true frame of the horizon at a step (0-based)."""
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
        """Return the probability of feeding a true frame of the input part at a step (0-based).

        It is 1, or rises from 1/2 to 1 for the reverse schedules. Between start and end they are
        as published: `1 - exp(-t / a) / 2` (exponential) and `1/2 + 1/2 / (1 + exp((b - t) / a))`
        (sigmoid), where t is the time since the start, a a fifth and b half of the way. Both end
        with a small jump to 1.
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
        """Return the part of the way from start to end that is done: from 0 to 1."""
        now = step / total_steps if self.unit == "fraction" else step
        if now >= self.end:
            return 1.0
        if now <= self.start:
            return 0.0
        return (now - self.start) / (self.end - self.start)


def forced_frames(
    probability: float, horizon: int, seed: int, step: int, lanes: Sequence[int] | np.ndarray
) -> Tensor:
    """Draw the frames of the horizon that are fed as truth: float32 (b, horizon - 1) of 0 and 1.

    Row i depends only on (seed, step, lanes[i]), so it is the same whichever worker holds the
    lane. A higher probability only adds ones.

    Parameters
    ----------
    probability:
        Probability of each one, in [0, 1].
    horizon:
        Number of frames to forecast. The last one is never fed.
    seed, step:
        Seed of the run, and the optimisation step; both 0 or more.
    lanes:
        Place of each sample in the global batch, 0 or more.

    Raises
    ------
    ConfigurationError
        `horizon` is below 1, or `probability` is not in [0, 1].
    """
    if horizon < 1:
        raise ConfigurationError(f"horizon={horizon} frames: give 1 or more")
    return _drawn(probability, horizon - 1, [(seed, step, int(lane)) for lane in lanes])


def observed_frames(
    probability: float, input_frames: int, seed: int, step: int, lanes: Sequence[int] | np.ndarray
) -> Tensor:
    """Draw the input frames that are fed as truth: float32 (b, input_frames - 1) of 0 and 1.

    Column j belongs to frame 1 + j: the first frame is always fed. The parameters and errors are
    those of `forced_frames`, and the draws are independent of its draws.
    """
    if input_frames < 1:
        raise ConfigurationError(f"input_frames={input_frames}: give 1 or more")
    return _drawn(
        probability, input_frames - 1, [(seed, step, int(lane), _INPUT_PART) for lane in lanes]
    )


_INPUT_PART = 1
"""Part of the random key that keeps the draws for the input apart from those for the horizon."""


def _drawn(probability: float, columns: int, keys: Sequence[tuple[int, ...]]) -> Tensor:
    """Draw 1 with this probability, else 0: (rows, columns), each row from its own key."""
    if not 0 <= probability <= 1:
        raise ConfigurationError(f"probability={probability}: give a number from 0 to 1")
    draws = np.empty((len(keys), columns))
    for row, key in enumerate(keys):
        draws[row] = np.random.default_rng(key).random(columns)
    return torch.from_numpy((draws < probability).astype(np.float32))
