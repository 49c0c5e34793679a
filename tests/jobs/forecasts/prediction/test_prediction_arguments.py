"""Seeds and lists of numbers of the command line are checked before the work."""

from __future__ import annotations

import numpy as np
import pytest

from jobs import predict as command
from jobs.command_line import numbers
from jobs.forecasts.forecasters.model_forecast import TrainedForecast
from jobs.forecasts.prediction.options import PredictionOptions
from pipelines.errors import UsageError


@pytest.mark.parametrize("seed", [-3, 2**31, 99999999999999999999999])
def test_a_seed_that_is_out_of_range_is_an_error_before_anything_is_read(seed: int) -> None:
    with pytest.raises(UsageError, match=f"no seed {seed}"):
        command.predict(
            PredictionOptions("nowhere", "nowhere", latest=True, netcdf="f.nc", seed=seed)
        )


def test_the_largest_seed_makes_forecasts(trained) -> None:
    frames = np.zeros((1, 3, 1, 12, 16), np.float32)
    made = TrainedForecast(trained, seed=2**31 - 1).members(frames, 1, [64_000_000_000])
    assert np.isfinite(made).all()


@pytest.mark.parametrize("text", ["nan", "1,inf", "-inf", "two", "0.5,0.5,0.1", "5,5.0"])
def test_numbers_must_be_finite_and_different(text: str) -> None:
    with pytest.raises(UsageError, match=rf"(?s)'{text}' (is no list|has a number twice).*0\.9"):
        numbers(text)


def test_numbers_are_sorted() -> None:
    assert numbers("40, 30,-1e3") == (-1000, 30, 40)
