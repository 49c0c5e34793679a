"""Operations of a whole forecast, to the printed digit (GFLOP per sample, a MAC counts 2)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import gmg_model

MOVING_MNIST = {"in_shape": (1, 64, 64), "patch_size": 4}
TAXIBJ = {"in_shape": (2, 32, 32), "patch_size": 2}
WEATHERBENCH = {"in_shape": (1, 32, 64), "patch_size": 2}


def counted(name: str, *steps: int, batch: int = 1, **options: Any) -> tuple[float, ...]:
    """Return GFLOP of forecasts of several lengths, counted without computing anything."""
    totals = []
    with FakeTensorMode(), torch.no_grad():
        model = gmg_model.create_model(name, **options)
        frames = torch.empty(batch, 1, *options["in_shape"])
        for horizon in steps:
            with FlopCounterMode(display=False) as counter:
                model(frames, horizon)
            totals.append(counter.get_total_flops() / 1e9)
    return tuple(totals)


def gflop(name: str, steps: int, **options: Any) -> float:
    """Return GFLOP of one forecast, from two steps: all steps of such a model cost the same."""
    one, two = counted(name, 1, 2, **options)
    return one + (steps - 1) * (two - one)


@pytest.mark.parametrize(
    ("name", "data", "steps", "expected"),
    [
        ("motionrnn-predrnn", MOVING_MNIST, 19, 257.3),
        ("motionrnn-predrnn", MOVING_MNIST, 14, 189.6),
        ("motionrnn-predrnn", WEATHERBENCH, 23, 616.6),
        ("convlstm", MOVING_MNIST, 19, 113.6),
        ("mim", MOVING_MNIST, 19, 363.4),
        # Computed, not published:
        ("predrnn", MOVING_MNIST, 19, 231.9),
        ("motionrnn-mim", MOVING_MNIST, 19, 388.8),
    ],
)
def test_a_forecast_takes_the_published_number_of_operations(
    name: str, data: dict[str, Any], steps: int, expected: float
) -> None:
    assert round(gflop(name, steps, **data), 1) == expected


def test_motionrnn_on_traffic_takes_the_published_number_of_operations() -> None:
    found = gflop("motionrnn-predrnn", 7, **TAXIBJ)
    assert found == pytest.approx(94.15, abs=0.005)  # printed as 94.2


def test_the_cost_of_a_rollout_follows_from_two_steps() -> None:
    for name in ("mim", "gmg-l"):
        (whole,) = counted(name, 6, hidden=(8, 8), **TAXIBJ)
        assert whole == pytest.approx(gflop(name, 6, hidden=(8, 8), **TAXIBJ))


@pytest.mark.parametrize(
    ("data", "attention_hidden", "steps", "expected"),
    [
        (MOVING_MNIST, 32, 19, 304.6),
        (MOVING_MNIST, 32, 14, 224.4),
        (TAXIBJ, 32, 7, 111.4),
        (WEATHERBENCH, 64, 23, 741.4),
    ],
)
def test_gmg_takes_the_published_operations_except_a_repeated_projection(
    data: dict[str, Any], attention_hidden: int, steps: int, expected: float
) -> None:
    found = gflop("gmg-l", steps, fused=False, attention_hidden=attention_hidden, **data)
    rows, columns = (size // data["patch_size"] for size in data["in_shape"][1:])
    # The published self-attention memory computes the values of M, a 1 x 1 convolution, twice.
    again = 2 * 4 * 128 * 128 * rows * columns * steps / 1e9
    assert round(found + again, 1) == expected


def test_fused_gmg_takes_only_the_operations_of_its_convolutions() -> None:
    options = {"attention_hidden": 32, **MOVING_MNIST}
    one, two = (gflop("gmg-l", 19, batch=batch, **options) for batch in (1, 2))
    # Merging weights costs the same once per rollout, for any batch. The nine values of the gate's
    # constant field cost the same on any grid.
    merging, nine_values = 2 * one - two, 2 * 19 * 4 * 9 * 9 * 128 * 128 / 1e9
    assert merging == pytest.approx(0.201, abs=1e-3)
    assert round(one - merging - nine_values, 1) == 290.7


def test_e3d_lstm_takes_the_published_operations_with_a_growing_history() -> None:
    assert round(counted("e3dlstm", 19, fused=False, **MOVING_MNIST)[0], 1) == 597.7


def test_fused_e3d_lstm_computes_once_what_the_frames_of_a_window_share() -> None:
    assert round(counted("e3dlstm", 19, **MOVING_MNIST)[0], 1) == 467.0
    assert round(counted("motionrnn-e3dlstm", 19, **MOVING_MNIST)[0], 1) == 517.5


def test_a_bounded_memory_bounds_the_cost_of_a_step() -> None:
    costs = counted("e3dlstm", *range(1, 7), memory_length=3, hidden=(8, 8), **TAXIBJ)
    steps = [after - before for before, after in pairwise(costs)]
    assert steps[0] < steps[1] == pytest.approx(steps[2])
    assert steps[2] == pytest.approx(steps[4])
