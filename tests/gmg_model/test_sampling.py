"""Scheduled sampling: a function of the fraction of training, and of (seed, step, lane)."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from gmg_model.errors import ConfigurationError
from gmg_model.sampling import KINDS, ScheduledSampling, forced_frames


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "none"])
def test_every_schedule_falls_from_truth_to_free_running(kind: str) -> None:
    schedule = ScheduledSampling(kind, start=0.1, end=0.6)
    values = [schedule.probability(i / 100) for i in range(101)]
    assert values[:11] == [1.0] * 11
    assert values[60:] == [0.0] * 41
    assert all(later <= earlier for earlier, later in pairwise(values))
    assert all(0 < value < 1 for value in values[11:60])
    assert schedule.probability(0.1 + 1e-9) == pytest.approx(1, abs=1e-6)
    assert schedule.probability(0.6 - 1e-9) == pytest.approx(0, abs=1e-6)


def test_none_runs_free_from_the_first_step() -> None:
    assert [ScheduledSampling("none").probability(f) for f in (0.0, 0.5, 1.0)] == [0.0] * 3


def test_a_row_depends_only_on_seed_step_and_lane() -> None:
    together = forced_frames(0.5, 30, seed=3, step=11, lanes=[0, 1, 2, 3])
    assert together.shape == (4, 29)
    assert together.dtype == torch.float32
    assert torch.equal(forced_frames(0.5, 30, 3, 11, [2, 0]), together[[2, 0]])
    for other in (forced_frames(0.5, 30, 4, 11, [0]), forced_frames(0.5, 30, 3, 12, [0])):
        assert not torch.equal(other[0], together[0])
    assert not torch.equal(together[0], together[1])


def test_probability_is_the_share_of_ones_and_only_adds_them() -> None:
    lanes = list(range(200))
    few, many = (forced_frames(p, 20, 0, 0, lanes) for p in (0.2, 0.7))
    assert few.mean().item() == pytest.approx(0.2, abs=0.02)
    assert many.mean().item() == pytest.approx(0.7, abs=0.02)
    assert (many >= few).all()
    assert forced_frames(0.0, 20, 0, 0, lanes).sum() == 0
    assert forced_frames(1.0, 20, 0, 0, lanes).mean() == 1
    assert forced_frames(0.5, 1, 0, 0, []).shape == (0, 0)


def test_reverse_scheduled_sampling_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="reverse scheduled sampling"):
        ScheduledSampling("reverse")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "linea"}, "did you mean 'linear'"),
        ({"start": 0.6, "end": 0.5}, "fractions"),
        ({"end": 1.5}, "fractions"),
    ],
)
def test_schedules_that_cannot_be_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ScheduledSampling(**options)  # pyright: ignore[reportArgumentType]
