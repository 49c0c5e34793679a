"""Reading, forecasting and scoring run at the same time, in order, with errors in their place."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from jobs.forecasts.forecasters.model_forecast import TrainedForecast
from jobs.forecasts.prediction.forecast_store import ForecastStore
from jobs.forecasts.prefetch import prefetch
from jobs.forecasts.scoring import blocks
from pipelines.inputs.normalisation import Normalisation
from pipelines.stream.windows import WindowSpec
from tests.jobs.forecasts.running import evaluate, predict
from tests.support.processes.training_runs import small_options, write_untrained_run

LONG_SECONDS = 120
"""after which a test that would wait for ever fails"""


def test_an_item_is_prepared_while_the_caller_works_on_the_previous_one() -> None:
    second_began = threading.Event()

    def source() -> Iterator[int]:
        yield 1
        second_began.set()
        yield 2

    taken = []
    for item in prefetch(source()):
        assert second_began.wait(LONG_SECONDS)
        taken.append(item)
    assert taken == [1, 2]


def test_an_error_is_raised_after_the_items_before_it() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise ValueError("the second")

    items = prefetch(source())
    assert next(items) == 1
    with pytest.raises(ValueError, match="the second"):
        next(items)


def test_a_batch_is_scored_while_the_next_is_forecast(make_store, monkeypatch) -> None:
    values = np.random.default_rng(0).random((24 * 30, 4, 4)).astype(np.float32)
    store = make_store(values)
    forecast_of_second, seen = threading.Event(), []
    mean_of = blocks.mean_of

    def waits_for_the_next_forecast(members: np.ndarray) -> np.ndarray:
        seen.append(forecast_of_second.wait(LONG_SECONDS))
        return mean_of(members)

    calls = []

    def forecast(frames_btchw: np.ndarray, horizon: int) -> np.ndarray:
        calls.append(len(frames_btchw))
        if len(calls) > 1:
            forecast_of_second.set()
        return np.repeat(frames_btchw[:, -1:], horizon, axis=1)

    monkeypatch.setattr(blocks, "mean_of", waits_for_the_next_forecast)
    variables = tuple(store.variables)
    evaluate(
        store,
        forecast,
        variables=variables,
        window=WindowSpec(3, 2),
        normalisation=Normalisation.from_store(store, variables, "standardise"),
        max_windows=6,
        batch_size=3,
    )
    assert seen
    assert all(seen)


def test_a_forecast_is_written_while_the_next_is_made(make_store, tmp_path, monkeypatch) -> None:
    values = np.random.default_rng(0).random((24 * 30, 8, 8)).astype(np.float32)
    store = make_store(values)
    trained = write_untrained_run(small_options(store.uri, str(tmp_path / "run")))
    second_forecast, seen, calls = threading.Event(), [], []
    write, members = ForecastStore.write, TrainedForecast.members

    def waits_for_the_next_forecast(self, index, arrays):
        seen.append(second_forecast.wait(LONG_SECONDS))
        write(self, index, arrays)

    def counted(self, frames, horizon, numbers):
        calls.append(len(numbers))
        if len(calls) > 1:
            second_forecast.set()
        return members(self, frames, horizon, numbers)

    monkeypatch.setattr(ForecastStore, "write", waits_for_the_next_forecast)
    monkeypatch.setattr(TrainedForecast, "members", counted)
    made = predict(
        trained,
        store,
        str(tmp_path / "forecasts"),
        period=("2019-01-20T00", "2019-01-20T03"),
        batch_size=2,
    )
    assert made.made == 4
    assert calls == [2, 2]
    assert seen == [True] * 4
