"""The state of an optimisation: a resumed training makes the same steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from gmg_model.errors import ConfigurationError
from gmg_model.training.optimisation import Optimisation, check_options
from gmg_model.training.options import OptimisationOptions

Make = Callable[..., Any]


def trained(optimisation: Optimisation, first: int, last: int) -> None:
    for step in range(first, last):
        frames = torch.randn(2, 5, 1, 8, 12, generator=torch.Generator().manual_seed(step))
        optimisation.backward(optimisation.model, frames, 3, None, 0.5)
        optimisation.update(step)


@pytest.mark.parametrize(
    ("optimiser", "moments"),
    [
        ("adam", {"exp_avg", "exp_avg_sq", "step"}),
        ("adamw", {"exp_avg", "exp_avg_sq", "step"}),
        ("rmsprop", {"square_avg", "momentum_buffer", "step"}),
    ],
)
def test_a_resumed_training_makes_the_same_steps(
    small: Make, optimiser: str, moments: set[str]
) -> None:
    decay = 0.0 if optimiser == "adam" else 0.01
    options = OptimisationOptions(
        learning_rate=1e-3,
        optimiser=optimiser,  # pyright: ignore[reportArgumentType]
        weight_decay=decay,
        ema=0.9,
    )
    whole = Optimisation(small("convlstm"), options, total_steps=6)
    trained(whole, 0, 6)

    before = Optimisation(small("convlstm"), options, total_steps=6)
    trained(before, 0, 3)
    after = Optimisation(small("convlstm"), options, total_steps=6)
    after.model.load_state_dict(before.model.state_dict())
    tensors = before.state_tensors()
    after.load_state_tensors({name: value.clone() for name, value in tensors.items()})
    trained(after, 3, 6)

    assert {name.rsplit("/", 1)[1] for name in tensors if name.startswith("optimiser/")} == moments
    assert all(
        torch.equal(value, after.evaluated_weights()[name])
        for name, value in whole.evaluated_weights().items()
    )
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, after.model.state_dict()[name])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimiser": "adam", "weight_decay": 0.1}, "'adamw' or 'rmsprop'"),
        ({"optimiser": "sgd"}, "adam, adamw, rmsprop"),
        ({"warmup": 1.0}, r"warmup cannot be 1\.0"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        check_options(OptimisationOptions(**options), total_steps=1)
