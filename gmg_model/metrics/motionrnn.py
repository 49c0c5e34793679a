"""Protocol `motionrnn`: the conventions of MotionRNN's tables, on frames clipped to [0, 1].

Array axes: N windows, T lead times, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gmg_model.metrics.images import (
    GREY_LEVELS,
    GreyScale,
    WindowMoments,
    gradient_differences,
    ssim_map,
)
from gmg_model.metrics.radar import counts_of_events, motionrnn_level, ratios_of_events
from gmg_model.metrics.streaming import (
    FRAME_AXES,
    Field,
    StreamingMetrics,
    Sums,
    by_lead,
    frames_in,
)


class MotionrnnMetrics(StreamingMetrics):
    """Scores as MotionRNN's Tables 1, 4 and 5 define them (Wu et al. 2021).

    - `mse_pixel_sum_clipped`, `mae_pixel_sum_clipped`: errors of values clipped to [0, 1], mean
      over windows and lead times, SUM over C, H, W. (Table 1 prints a tenth of the first and a
      hundredth of the second.)
    - `psnr_uint8_truncated_frame_mean`: mean over frames of 20 log10(255) - 10 log10(mse) of grey
      levels, TRUNCATED, not rounded, from 255 * value; infinite where a frame is exact.
    - `ssim_uint8_truncated_uniform7_range255`: SSIM of the same grey levels, mean over all whole
      7 x 7 windows, sample covariance.
    - `gdl1_pixel_sum_clipped`, `gdl2_pixel_sum_clipped`: gradient difference with exponent 1
      and 2, mean over frames, SUM over C and all pairs of neighbours in both directions. Both
      exponents are given because the paper states none and its code is not published.
    - `csi_X_motionrnn`, `pod_...`, `far_...`, `hss_...` for each X of `thresholds`: event
      = (p + 30) / 2 >= X of the grey level p (so 30 is p >= 30, 40 is p >= 50, 50 is p >= 70),
      counts pooled over everything; NaN where there is no event. (The published loop averages the
      CSI of batches of eight, 0 where there is no event.)

    The protocol does not handle missing pixels: a NaN in the truth makes the scores NaN.

    Parameters
    ----------
    data_min, data_max:
        The physical values that are scaled to 0 and 1, grey levels 0 and 255.
    thresholds:
        Thresholds X of the events, for radar images; 30, 40, 50 in the tables.
    """

    def __init__(
        self, data_min: float = 0.0, data_max: float = 1.0, thresholds: Sequence[float] = ()
    ):
        super().__init__()
        self.scale, self.thresholds = GreyScale(data_min, data_max), tuple(thresholds)

    def options(self) -> Mapping[str, Any]:
        return {
            "data_min": self.scale.data_min,
            "data_max": self.scale.data_max,
            "thresholds": self.thresholds,
        }

    def batch_sums(self, pred: Field, true: Field, climatology: Field | None) -> Sums:
        clipped, truth = self.scale.clipped(pred), self.scale.clipped(true)
        grey, grey_true = self.scale.truncated(pred), self.scale.truncated(true)
        error, grey_error = clipped - truth, grey - grey_true
        similarity = ssim_map(WindowMoments(grey), WindowMoments(grey_true), GREY_LEVELS)
        with np.errstate(divide="ignore"):
            decibel = 10 * np.log10(GREY_LEVELS**2 / (grey_error**2).mean(axis=FRAME_AXES))
        frames = frames_in(true)
        sums = {
            "frames": frames,
            "windows": frames * np.prod(similarity.shape[2:]),
            "squared": by_lead(error * error),
            "absolute": by_lead(np.abs(error)),
            "psnr": by_lead(decibel),
            "ssim": by_lead(similarity),
            "gdl1": np.zeros_like(frames),
            "gdl2": np.zeros_like(frames),
        }
        for difference in gradient_differences(clipped, truth):
            sums["gdl1"] += by_lead(difference)
            sums["gdl2"] += by_lead(difference * difference)
        # A NaN pixel would count as "no event": this makes the counts NaN instead.
        broken = 0.0 * by_lead(truth)
        for threshold in self.thresholds:
            level = motionrnn_level(threshold)
            counts = counts_of_events(grey >= level, grey_true >= level, ~np.isnan(grey_true))
            for kind, value in counts.items():
                sums[f"{kind}_{threshold}"] = value + broken
        return sums

    def scores(self, sums: Sums) -> Sums:
        frames = sums["frames"]
        scores = {
            "mse_pixel_sum_clipped": sums["squared"] / frames,
            "mae_pixel_sum_clipped": sums["absolute"] / frames,
            "psnr_uint8_truncated_frame_mean": sums["psnr"] / frames,
            "ssim_uint8_truncated_uniform7_range255": sums["ssim"] / sums["windows"],
            "gdl1_pixel_sum_clipped": sums["gdl1"] / frames,
            "gdl2_pixel_sum_clipped": sums["gdl2"] / frames,
        }
        for threshold in self.thresholds:
            for name, value in ratios_of_events(sums, f"{threshold}").items():
                scores[f"{name}_{threshold}_motionrnn"] = value
        return scores
