"""Protocol `strict`, the default: errors in physical units, means over pixels with a value.

Array axes: N windows, T lead times, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gmg_model.errors import ConfigurationError
from gmg_model.metrics.images import WINDOW, WindowMoments, ssim_map, window_sum
from gmg_model.metrics.streaming import FRAME_AXES, Field, StreamingMetrics, Sums, by_lead

SMALLEST_MSE = 2.0**-48
"""Lower limit of a frame's scaled error in PSNR: the square of float32's rounding on a range of 1.
A frame that is forecast exactly counts 144.5 dB; without the limit, one such frame (an empty radar
image) would make the mean infinite."""


class StrictMetrics(StreamingMetrics):
    """`mse`, `rmse`, `mae` and `bias`; with a data range also `ssim` and `psnr`.

    Pixels that are NaN in the truth are left out everywhere. A forecast that is NaN where the truth
    exists makes the scores NaN.

    Parameters
    ----------
    data_min, data_max:
        Extremes of the TRAIN period in the units of the data. If both are given, frames are scaled
        by them to [0, 1] for `ssim` (uniform 7 x 7 window, sample covariance, whole windows only,
        data range 1, unclipped) and `psnr` (mean over frames, dB).
    """

    def __init__(self, data_min: float | None = None, data_max: float | None = None):
        super().__init__()
        if (data_min is None) != (data_max is None):
            raise ConfigurationError("give data_min and data_max together, or neither")
        if data_min is not None and data_max is not None and not data_max > data_min:
            raise ConfigurationError(f"data_max {data_max} must exceed data_min {data_min}")
        self.data_min, self.data_max = data_min, data_max

    def options(self) -> Mapping[str, Any]:
        return {"data_min": self.data_min, "data_max": self.data_max}

    def batch_sums(self, pred: Field, true: Field, climatology: Field | None) -> Sums:
        valid = ~np.isnan(true)
        error = np.where(valid, pred - true, 0.0)
        squared = error * error
        sums = {
            "pixels": by_lead(valid),
            "squared": by_lead(squared),
            "absolute": by_lead(np.abs(error)),
            "signed": by_lead(error),
        }
        if self.data_min is None or self.data_max is None:
            return sums
        scale = self.data_max - self.data_min
        pixels = valid.sum(axis=FRAME_AXES)
        seen = pixels > 0
        mse = squared.sum(axis=FRAME_AXES) / np.maximum(pixels, 1) / scale**2
        decibel = -10 * np.log10(np.maximum(mse, SMALLEST_MSE))
        sums |= {"frames": by_lead(seen), "psnr": by_lead(np.where(seen, decibel, 0.0))}
        similarity, whole = _similarity(
            (pred - self.data_min) / scale, (true - self.data_min) / scale, valid
        )
        sums |= {"windows": by_lead(whole), "ssim": by_lead(similarity)}
        return sums

    def scores(self, sums: Sums) -> Sums:
        mse = sums["squared"] / sums["pixels"]
        scores = {
            "mse": mse,
            "rmse": np.sqrt(mse),
            "mae": sums["absolute"] / sums["pixels"],
            "bias": sums["signed"] / sums["pixels"],
        }
        if "ssim" in sums:
            scores["ssim"] = sums["ssim"] / sums["windows"]
            scores["psnr"] = sums["psnr"] / sums["frames"]
        return scores


def _similarity(
    pred: Field, true: Field, valid: NDArray[np.bool_]
) -> tuple[Field, NDArray[np.bool_]]:
    """Return the SSIM map for data range 1, and which of its windows are complete.

    A window with a missing pixel has SSIM 0 and is False in the second array.
    """
    forecast, truth = (WindowMoments(np.where(valid, values, 0.0)) for values in (pred, true))
    similarity = ssim_map(forecast, truth, data_range=1.0)
    if valid.all():
        return similarity, np.ones_like(similarity, dtype=bool)
    # Sums of float64 ones: the half makes the comparison independent of rounding.
    whole = window_sum(valid.astype(np.float64)) > WINDOW**2 - 0.5
    return np.where(whole, similarity, 0.0), whole
