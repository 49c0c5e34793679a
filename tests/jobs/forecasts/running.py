"""Evaluations and predictions by a call, with options as keywords."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jobs.forecasts.forecasters.baselines import Forecast
from jobs.forecasts.prediction.options import PredictionOptions
from jobs.forecasts.prediction.predict import Prediction
from jobs.forecasts.prediction.predict import predict as make_forecasts
from jobs.forecasts.scoring.evaluate import ForecastSystem
from jobs.forecasts.scoring.evaluate import evaluate as score
from jobs.forecasts.scoring.options import EvaluationOptions
from jobs.forecasts.scoring.scores import Evaluation
from jobs.training.run.checkpoints import Checkpoint
from pipelines.inputs.normalisation import Normalisation
from pipelines.progress import Progress, ignore
from pipelines.stores.store import Store
from pipelines.stream.windows import WindowSpec


def evaluate(
    store: Store,
    forecast: Forecast,
    *,
    variables: tuple[str, ...],
    window: WindowSpec,
    normalisation: Normalisation,
    notes: tuple[str, ...] = (),
    progress: Progress = ignore,
    **options: Any,
) -> Evaluation:
    """Score a forecast that no checkpoint holds; `options` are those of `EvaluationOptions`."""
    chosen = EvaluationOptions(store.uri, store.uri, "report", **options)
    system = ForecastSystem(forecast, variables, window, normalisation, notes)
    return score(store, system, chosen, progress)


def predict(
    trained: Checkpoint,
    store: Store,
    forecasts: str,
    period: tuple[str, str] | None = None,
    say: Callable[[str], None] = lambda line: None,
    **options: Any,
) -> Prediction:
    """Forecast from a period, or from the newest frames; `options` are of `PredictionOptions`."""
    first, last = period or (None, None)
    options |= {"first": first, "last": last, "latest": period is None}
    places = {"store": store.uri, "forecasts": forecasts}
    chosen = PredictionOptions(trained.uri, **places, **options)
    return make_forecasts(trained, store, forecasts, chosen, say)
