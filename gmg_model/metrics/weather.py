"""Protocol ``weather``: latitude-weighted errors and anomaly correlation.

Conventions of WeatherBench 2 (Rasp et al. 2024): rows weigh with the cosine of their latitude; the
root is taken once, of the mean over all frames; the anomaly correlation of Eq. 8 there is taken for
each frame, without removing the frame's mean anomaly, and averaged over frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gmg_model.errors import ConfigurationError
from gmg_model.metrics.streaming import (
    FRAME_AXES,
    Field,
    StreamingMetrics,
    Sums,
    as_float64,
    by_lead,
)


class WeatherMetrics(StreamingMetrics):
    """``rmse_latitude``, ``mae_latitude``, ``bias_latitude`` and ``acc``.

    Pixels that are NaN in the truth have weight 0. ``acc`` appears where ``update`` is given a
    climatology; a frame without any anomaly in forecast or truth has none and is left out, so that
    the climatology itself scores NaN.

    Parameters
    ----------
    latitude:
        Latitudes of the rows in degrees, shape (H,).
    """

    def __init__(self, latitude: Any):
        super().__init__()
        self.latitude = as_float64(latitude)
        if self.latitude.ndim != 1 or not (np.abs(self.latitude) <= 90.0 + 1e-6).all():
            raise ConfigurationError(
                "latitude must hold one value in degrees, -90 to 90, for each row"
            )
        # A pole's cosine is 6e-17, not 0, and may round below it.
        self._weight_h1 = np.maximum(np.cos(np.deg2rad(self.latitude)), 0.0)[:, None]

    def options(self) -> Mapping[str, Any]:
        return {"latitude": self.latitude.tolist()}

    def batch_sums(self, pred: Field, true: Field, climatology: Field | None) -> Sums:
        if true.shape[-2] != self.latitude.size:
            raise ValueError(f"frames of {true.shape[-2]} rows, {self.latitude.size} latitudes")
        valid = ~np.isnan(true)
        weight = np.where(valid, self._weight_h1, 0.0)
        error = np.where(valid, pred - true, 0.0)
        sums = {
            "weight": by_lead(weight),
            "squared": by_lead(weight * error * error),
            "absolute": by_lead(weight * np.abs(error)),
            "signed": by_lead(weight * error),
        }
        if climatology is None:
            return sums
        forecast = np.where(valid, pred - climatology, 0.0)
        truth = np.where(valid, true - climatology, 0.0)
        product, forecast_power, truth_power = (
            (weight * values).sum(axis=FRAME_AXES)
            for values in (forecast * truth, forecast * forecast, truth * truth)
        )
        norm = np.sqrt(forecast_power * truth_power)
        # NaN is kept (a broken forecast), zero is left out (no anomaly to correlate with).
        counted = norm != 0
        with np.errstate(invalid="ignore", divide="ignore"):
            correlation = np.where(counted, product / norm, 0.0)
        return sums | {"anomaly_frames": by_lead(counted), "correlation": by_lead(correlation)}

    def scores(self, sums: Sums) -> Sums:
        scores = {
            "rmse_latitude": np.sqrt(sums["squared"] / sums["weight"]),
            "mae_latitude": sums["absolute"] / sums["weight"],
            "bias_latitude": sums["signed"] / sums["weight"],
        }
        if "correlation" in sums:
            scores["acc"] = sums["correlation"] / sums["anomaly_frames"]
        return scores
