"""Scheduled sampling: a function of the step, with draws from (seed, step, lane)."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch

from gmg_model.errors import ConfigurationError
from gmg_model.training.options import FORWARD_KINDS, REVERSE_KINDS, SamplingOptions
from gmg_model.training.sampling import ScheduledSampling, forced_frames, observed_frames


def schedule_of(*options: Any, **named: Any) -> ScheduledSampling:
    return ScheduledSampling(SamplingOptions(*options, **named))


@pytest.mark.parametrize("kind", [kind for kind in FORWARD_KINDS if kind != "none"])
def test_every_schedule_falls_from_truth_to_free_running(kind: str) -> None:
    schedule = schedule_of(kind, sampling_start=0.1, sampling_end=0.6)
    values = [schedule.probability(i, 100) for i in range(101)]
    assert values[:11] == [1.0] * 11
    assert values[60:] == [0.0] * 41
    assert all(later <= earlier for earlier, later in pairwise(values))
    assert all(0 < value < 1 for value in values[11:60])
    long = 10**9
    assert schedule.probability(long // 10 + 1, long) == pytest.approx(1, abs=1e-6)
    assert schedule.probability(6 * long // 10 - 1, long) == pytest.approx(0, abs=1e-6)
    assert {schedule.observed_probability(i, 100) for i in range(101)} == {1.0}
    assert not schedule.hides_input


def test_sampling_none_runs_free_from_the_first_step() -> None:
    assert [schedule_of("none").probability(i, 2) for i in range(3)] == [0.0] * 3


@pytest.mark.parametrize("kind", FORWARD_KINDS + REVERSE_KINDS)
def test_a_schedule_is_the_same_in_steps_and_in_fractions_of_training(kind: str) -> None:
    by_step = schedule_of(kind, sampling_start=20, sampling_end=60, sampling_unit="steps")
    by_fraction = schedule_of(kind, sampling_start=0.1, sampling_end=0.3)
    for step in range(200):
        for measure in ("probability", "observed_probability"):
            first, second = (getattr(s, measure) for s in (by_step, by_fraction))
            assert first(step, 200) == pytest.approx(second(step, 200), abs=1e-12)
            assert first(step, 200) == first(step, 5000)


def test_reverse_sampling_takes_its_published_values() -> None:
    schedule = schedule_of(
        "reverse-exponential", sampling_start=25_000, sampling_end=50_000, sampling_unit="steps"
    )
    for step in (0, 24_999, 25_000, 26_000, 40_000, 49_999, 50_000, 80_000):
        if step < 25_000:
            observed, horizon = 0.5, 0.5
        elif step < 50_000:
            observed = 1.0 - 0.5 * math.exp(-(step - 25_000) / 5000)
            horizon = 0.5 - (0.5 / 25_000) * (step - 25_000)
        else:
            observed, horizon = 1.0, 0.0
        assert schedule.observed_probability(step, 80_000) == pytest.approx(observed, abs=1e-12)
        assert schedule.probability(step, 80_000) == pytest.approx(horizon, abs=1e-12)


@pytest.mark.parametrize("kind", REVERSE_KINDS)
def test_reverse_sampling_rises_from_half_of_the_input_to_all_of_it(kind: str) -> None:
    schedule = schedule_of(kind, sampling_start=0.2, sampling_end=0.8)
    values = [schedule.observed_probability(i, 1000) for i in range(1001)]
    assert schedule.hides_input
    assert set(values[:201]) == {0.5}
    assert set(values[800:]) == {1.0}
    assert all(0.5 < value < 1 for value in values[201:800])
    assert all(later >= earlier for earlier, later in pairwise(values))
    assert max(later - earlier for earlier, later in pairwise(values)) < 0.04


def test_forced_frames_depend_only_on_seed_step_and_lane() -> None:
    together = forced_frames(0.5, 30, seed=3, step=11, lanes=[0, 1, 2, 3])
    assert together.shape == (4, 29)
    assert together.dtype == torch.float32
    assert torch.equal(forced_frames(0.5, 30, 3, 11, [2, 0]), together[[2, 0]])
    for other in (forced_frames(0.5, 30, 4, 11, [0]), forced_frames(0.5, 30, 3, 12, [0])):
        assert not torch.equal(other[0], together[0])
    assert not torch.equal(together[0], together[1])


def test_a_higher_probability_only_adds_ones() -> None:
    lanes = list(range(200))
    few, many = (forced_frames(p, 20, 0, 0, lanes) for p in (0.2, 0.7))
    assert few.mean().item() == pytest.approx(0.2, abs=0.02)
    assert many.mean().item() == pytest.approx(0.7, abs=0.02)
    assert (many >= few).all()
    assert forced_frames(0.0, 20, 0, 0, lanes).sum() == 0
    assert forced_frames(1.0, 20, 0, 0, lanes).mean() == 1
    assert forced_frames(0.5, 1, 0, 0, []).shape == (0, 0)


def test_observed_frames_depend_only_on_seed_step_and_lane() -> None:
    together = observed_frames(0.5, 30, seed=3, step=11, lanes=[0, 1, 2, 3])
    assert together.shape == (4, 29)
    assert together.dtype == torch.float32
    assert torch.equal(observed_frames(0.5, 30, 3, 11, [2, 0]), together[[2, 0]])
    for other in (observed_frames(0.5, 30, 4, 11, [0]), observed_frames(0.5, 30, 3, 12, [0])):
        assert not torch.equal(other[0], together[0])
    assert observed_frames(1.0, 30, 3, 11, [0, 1]).mean() == 1
    assert observed_frames(0.5, 30, 3, 11, range(200)).mean().item() == pytest.approx(0.5, abs=0.03)


def test_the_draws_for_input_and_horizon_are_independent() -> None:
    lanes = range(400)
    given, forced = observed_frames(0.5, 21, 0, 7, lanes), forced_frames(0.5, 21, 0, 7, lanes)
    agree = (given == forced).float().mean().item()
    assert agree == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampling": "linea"}, "did you mean 'linear'"),
        ({"sampling": "reverse"}, "reverse-linear, reverse-exponential, reverse-sigmoid"),
        ({"sampling_start": 0.6, "sampling_end": 0.5}, "fractions"),
        ({"sampling_end": 1.5}, "fractions"),
        ({"sampling_start": -1, "sampling_unit": "steps"}, "steps: give 0 <= start <= end$"),
        ({"sampling_unit": "step"}, "did you mean 'steps'"),
    ],
)
def test_impossible_schedules_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        schedule_of(**options)


def test_impossible_masks_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"probability=1.5"):
        forced_frames(1.5, 3, 0, 0, [0])
    with pytest.raises(ConfigurationError, match="input_frames=0"):
        observed_frames(0.5, 0, 0, 0, [0])
    with pytest.raises(ConfigurationError, match="horizon=0"):
        forced_frames(0.5, 0, 0, 0, [0])
