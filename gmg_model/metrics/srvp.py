"""Protocol `srvp`: the conventions of SRVP's tables, on whole grey levels, per lead time.

Array axes: N windows, T lead times, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gmg_model.metrics.images import (
    GREY_LEVELS,
    WINDOW,
    GreyScale,
    WindowMoments,
    ssim_across_windows,
    ssim_map,
)
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
    """Scores of frames rounded to the 256 grey levels, as in SRVP's Tables 1 to 4.

    - `mse_uint8_rounded`: mean over windows, C, H and W, in squared grey levels.
    - `mae_uint8_rounded`: likewise, in grey levels.
    - `psnr_uint8_rounded_pooled_range255`: 10 log10(255^2 / mse), with the mse POOLED over the
      windows of one lead time. The overall score is the mean of the lead times' decibels.
    - `psnr_uint8_rounded_pooled_range_forecast`: the same with the span (brightest minus darkest
      grey level) of that lead time's forecasts in place of 255. The tables print this score. It is
      lower where forecasts are faint.
    - `ssim_uint8_rounded_uniform7_range255`: mean over the whole 7 x 7 windows of each frame.

    The published SSIM differs from the last score. Its 7 x 7 x 7 window covers seven test sequences
    that happen to be neighbours, so it depends on their order and cannot be summed in parts.
    `published_ssim` computes it for a whole test set.

    The protocol does not handle missing pixels: a NaN in the truth makes the scores NaN.

    Parameters
    ----------
    data_min, data_max:
        The physical values of grey levels 0 and 255; values outside are clipped.
    """

    def __init__(self, data_min: float = 0.0, data_max: float = 1.0):
        super().__init__()
        self.scale = GreyScale(data_min, data_max)

    def options(self) -> Mapping[str, Any]:
        return {"data_min": self.scale.data_min, "data_max": self.scale.data_max}

    def batch_sums(self, pred: Field, true: Field, climatology: Field | None) -> Sums:
        grey, grey_true = self.scale.rounded(pred), self.scale.rounded(true)
        error = grey - grey_true
        similarity = ssim_map(WindowMoments(grey), WindowMoments(grey_true), GREY_LEVELS)
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
        """Return the scores of pooled sums; for PSNR the mean of the lead times' decibels."""
        per_lead = self.scores(sums)
        means = {name: v.mean(axis=0) for name, v in per_lead.items() if name.startswith("psnr")}
        return super().overall(sums) | means


def published_ssim(
    pred: Any, true: Any, data_min: float = 0.0, data_max: float = 1.0
) -> list[float]:
    """Return the SSIM of SRVP's tables per lead time; the tables print the mean over lead times.

    A window is 7 x 7 pixels x 7 neighbouring test sequences. Hence the order of the sequences
    matters, and the first and last three count less. The data range is the span of the lead time's
    forecasts.

    Parameters
    ----------
    pred, true:
        A whole test set in its order, (N, T, C, H, W), N at least 7.
    data_min, data_max:
        The physical values of grey levels 0 and 255.

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
    """Count the pixels of each grey level per lead time, (T, 256).

    Counts add up over batches, so the span of the levels does not depend on how a set was split.
    """
    leads = grey.shape[1]
    bins = np.arange(leads)[:, None, None, None] * 256 + grey
    counts = np.bincount(bins[~np.isnan(bins)].astype(np.int64), minlength=leads * 256)
    return counts.reshape(leads, 256).astype(np.float64)
