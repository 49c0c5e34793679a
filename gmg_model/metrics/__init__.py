"""Scores of forecasts. A protocol is a named set of conventions, one module each.

>>> import numpy as np
>>> truth = np.zeros((1, 2, 1, 8, 8))
>>> score(truth + 0.5, truth, "strict")["bias"]
0.5
"""

from __future__ import annotations

import inspect
from typing import Any

from gmg_model.errors import ConfigurationError, nearest
from gmg_model.metrics.detail import DetailMetrics
from gmg_model.metrics.ensemble import EnsembleMetrics
from gmg_model.metrics.motionrnn import MotionrnnMetrics
from gmg_model.metrics.openstl import OpenstlMetrics
from gmg_model.metrics.perceptual import PerceptualMetrics
from gmg_model.metrics.radar import RadarMetrics
from gmg_model.metrics.srvp import SrvpMetrics
from gmg_model.metrics.streaming import StreamingMetrics
from gmg_model.metrics.strict import StrictMetrics
from gmg_model.metrics.weather import WeatherMetrics

__all__ = ["PROTOCOLS", "StreamingMetrics", "create_metrics", "score"]

PROTOCOLS: dict[str, type[StreamingMetrics]] = {
    "strict": StrictMetrics,
    "openstl": OpenstlMetrics,
    "srvp": SrvpMetrics,
    "motionrnn": MotionrnnMetrics,
    "weather": WeatherMetrics,
    "radar": RadarMetrics,
    "ensemble": EnsembleMetrics,
    "detail": DetailMetrics,
    "perceptual": PerceptualMetrics,
}


def create_metrics(protocol: str = "strict", **options: Any) -> StreamingMetrics:
    """Return an empty accumulator with `update(pred, true)`, `merge(other)` and `result()`.

    Parameters
    ----------
    protocol:
        `strict` (options data_min, data_max), `openstl` (thresholds, image), `srvp`
        (data_min, data_max), `motionrnn` (data_min, data_max, thresholds), `weather`
        (latitude), `radar` (thresholds, scales, edges, conventions, dbz_range), `ensemble`
        (thresholds), `detail` (region) or `perceptual` (name, frame_features, clip_features,
        layer_weights).

    Raises
    ------
    ConfigurationError
        The protocol or an option is unknown (the message names the nearest), a required option is
        missing, or an option's value is impossible.
    """
    if protocol not in PROTOCOLS:
        raise ConfigurationError(f"unknown protocol '{protocol}': {nearest(protocol, PROTOCOLS)}")
    known = inspect.signature(PROTOCOLS[protocol]).parameters
    for name in options:
        if name not in known:
            raise ConfigurationError(
                f"protocol '{protocol}' has no option '{name}': {nearest(name, known)}"
            )
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in options:
            raise ConfigurationError(f"protocol '{protocol}' needs {name}=...")
    return PROTOCOLS[protocol](**options)


def score(
    pred: Any, true: Any, protocol: str = "strict", climatology: Any = None, **options: Any
) -> dict[str, float]:
    """Return the scores over all lead times of forecasts `pred` against the truth `true`.

    Both have shape (N, T, C, H, W): windows, lead times, channels, rows, columns. Protocol
    `ensemble` takes forecasts (N, M, T, C, H, W) of M members. `options` are those of
    `create_metrics`.
    """

    metrics = create_metrics(protocol, **options)
    metrics.update(pred, true, climatology)
    return metrics.result()["overall"]
