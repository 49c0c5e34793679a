"""Protocol ``srvp``: the conventions of SRVP's tables, on whole grey levels, horizon by horizon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gmg_model.metrics.grey import GREY_LEVELS, GreyScale
from gmg_model.metrics.ssim import WINDOW, Moments, ssim_across_windows, ssim_map
from gmg_model.metrics.streaming import (
    Field,
    StreamingMetrics,
    Sums,
    as_float64,
    by_lead,
    frames_in,
    on_host,
)


class SrvpMetrics(StreamingMetrics):
    """Scores of frames rounded to the 256 grey levels, as SRVP's Tables 1 to 4 take them.

    - ``mse_uint8_rounded``: mean over windows, C, H and W, in squared grey levels.
    - ``mae_uint8_rounded``: likewise, in grey levels.
    - ``psnr_uint8_rounded_pooled_range255``: 10 log10(255^2 / mse) with the mse POOLED over the
      windows of a lead; over all leads, the mean of the leads' decibels.
    - ``psnr_uint8_rounded_pooled_range_forecast``: the same with the span of the forecasts of that
      lead in place of 255. This is what the tables print: it is lower where forecasts are faint.
    - ``ssim_uint8_rounded_uniform7_range255``: mean over the whole 7 x 7 windows of each frame.

    The published SSIM is taken otherwise: its 7 x 7 x 7 window reaches over seven test sequences
    that happen to be neighbours, so it depends on their order and cannot be summed in parts:
    `published_ssim` gives it for a whole test set.

    The protocol knows no missing pixels: a NaN in the truth makes the scores NaN.

    Parameters
    ----------
    data_min, data_max:
        The values that stand for grey level 0 and 255; what lies outside is clipped.
    """

    def __init__(self, data_min: float = 0.0, data_max: float = 1.0):
        super().__init__()
        self.scale = GreyScale(data_min, data_max)

    def options(self) -> Mapping[str, Any]:
        return {"data_min": self.scale.data_min, "data_max": self.scale.data_max}

    def batch_sums(self, pred: Field, true: Field, climatology: Field | None) -> Sums:
        grey, grey_true = self.scale.rounded(pred), self.scale.rounded(true)
        error = grey - grey_true
        similarity = ssim_map(Moments(grey), Moments(grey_true), GREY_LEVELS)
        frames = frames_in(true)
        return {
            "pixels": frames * np.prod(true.shape[2:]),
            "squared": by_lead(error * error),
            "absolute": by_lead(np.abs(error)),
            "windows": frames * np.prod(similarity.shape[2:]),
            "ssim": by_lead(similarity),
            "levels": _level_counts(grey),
        }

    def scores(self, sums: Sums) -> Sums:
        mse = sums["squared"] / sums["pixels"]
        scores = {
            "mse_uint8_rounded": mse,
            "mae_uint8_rounded": sums["absolute"] / sums["pixels"],
            "psnr_uint8_rounded_pooled_range255": 10 * np.log10(GREY_LEVELS**2 / mse),
            "ssim_uint8_rounded_uniform7_range255": sums["ssim"] / sums["windows"],
        }
        if "levels" not in sums:
            return scores
        seen = sums["levels"] > 0
        darkest, brightest = seen.argmax(axis=-1), 255 - seen[..., ::-1].argmax(axis=-1)
        span = (brightest - darkest) ** 2
        return scores | {"psnr_uint8_rounded_pooled_range_forecast": 10 * np.log10(span / mse)}

    def overall(self, sums: Sums) -> Sums:
        """As every protocol's, but the PSNR over all leads is the mean of the leads' decibels."""
        by_lead = self.scores(sums)
        means = {name: v.mean(axis=0) for name, v in by_lead.items() if name.startswith("psnr")}
        return super().overall(sums) | means


def published_ssim(
    pred: Any, true: Any, data_min: float = 0.0, data_max: float = 1.0
) -> list[float]:
    """SSIM as SRVP's tables have it, one number a lead; the tables print their mean.

    Windows of 7 x 7 pixels x 7 neighbouring test sequences, so that the order of the sequences
    counts and the first and last three count less; data range: the span of the lead's forecasts.

    Parameters
    ----------
    pred, true:
        A whole test set in its order, (N, T, C, H, W), N at least 7.
    data_min, data_max:
        The values that stand for grey level 0 and 255.

    Raises
    ------
    ValueError
        The shapes differ, or fewer than seven sequences are given.
    """
    scale = GreyScale(data_min, data_max)
    pred, true = on_host(pred), on_host(true)
    if pred.shape != true.shape or true.ndim != 5 or len(true) < WINDOW:
        raise ValueError(
            f"forecast {pred.shape} and truth {true.shape} must be one shape (N, T, C, H, W) with "
            f"N of at least {WINDOW} sequences"
        )
    scores = []
    for lead in range(true.shape[1]):
        grey, grey_true = (scale.rounded(as_float64(x[:, lead])) for x in (pred, true))
        scores.append(ssim_across_windows(grey, grey_true, float(np.ptp(grey))))
    return scores


def _level_counts(grey: Field) -> Field:
    """Pixels of each grey level by lead, (T, 256); the span of levels seen follows by any split."""
    leads = grey.shape[1]
    places = np.arange(leads)[:, None, None, None] * 256 + grey
    counts = np.bincount(places[~np.isnan(places)].astype(np.int64), minlength=leads * 256)
    return counts.reshape(leads, 256).astype(np.float64)
