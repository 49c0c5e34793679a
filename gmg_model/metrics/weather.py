"""Protocol `weather`: latitude-weighted errors and anomaly correlation.

The conventions are those of WeatherBench 2 (Rasp et al. 2024). A row's weight is the cosine of its
latitude. The root of the RMSE is taken once, of the mean over all frames. The anomaly correlation
(their Eq. 8) is computed for each frame, without removing the frame's mean anomaly, and averaged
over frames. Array axes: N windows, T lead times, C channels, H rows, W columns.
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
    """`rmse_latitude`, `mae_latitude`, `bias_latitude` and `acc`.

    Pixels that are NaN in the truth have weight 0. `acc`, the anomaly correlation, needs the
    climatology in `update`. A frame whose forecast or truth equals the climatology everywhere has
    no correlation and is left out, so the climatology as a forecast scores NaN.

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
        # In floating point cos(90°) is 6e-17 and beyond the pole (within the tolerance) negative.
        self._weight_h1 = np.maximum(np.cos(np.deg2rad(self.latitude)), 0.0)[:, None]

    def options(self) -> Mapping[str, Any]:
        return {"latitude": self.latitude.tolist()}

    def batch_sums(self, pred: Field, true: Field, climatology: Field | None) -> Sums:
        if true.shape[-2] != self.latitude.size:
            raise ValueError(
                f"frames have {true.shape[-2]} rows and there are {self.latitude.size} latitudes"
            )
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
        # A norm of NaN (a broken forecast) counts; a norm of 0 (no anomaly) is left out.
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
