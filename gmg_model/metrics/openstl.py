"""Protocol `openstl`: the conventions of GMG's Tables III to V, which are those of OpenSTL.

Array axes: N windows, T lead times, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gmg_model.metrics.images import WindowMoments, ssim_map
from gmg_model.metrics.streaming import (
    FRAME_AXES,
    Field,
    StreamingMetrics,
    Sums,
    by_lead,
    frames_in,
)


class OpenstlMetrics(StreamingMetrics):
    """Scores comparable with the published tables; every score's name states its convention.

    - `mse_pixel_sum`, `mae_pixel_sum`: mean over windows and lead times, SUM over C, H, W, of
      unclipped forecasts; `rmse_pixel_sum` is the root of `mse_pixel_sum`.
    - `*_spatial_norm`: the mean also over C, H, W, as in the WeatherBench tables.
    - `psnr_frame_mean_clipped`: mean over frames of -10 log10(mse), with the forecast (not the
      truth) clipped to [0, 1]; infinite where a frame is exact.
    - `ssim_uniform7_range2_clipped` (what the tables print) and `..._range1_...`: mean over all
      whole 7 x 7 windows, sample covariance, data range 2 and 1.
    - `csi_ge_X`, `hits_ge_X`, `misses_ge_X`, `false_alarms_ge_X`: event = value >= X,
      counts pooled over everything.

    The protocol does not handle missing pixels: a NaN in the truth makes the scores NaN.

    Parameters
    ----------
    thresholds:
        Thresholds X of the events, in the units of the data.
    image:
        Whether the data lie in [0, 1]. False (temperature in kelvin, for example) leaves only the
        errors, because clipping, PSNR, SSIM and events would be meaningless.
    """

    def __init__(self, thresholds: Sequence[float] = (0.3, 0.5, 0.7), image: bool = True):
        super().__init__()
        self.thresholds, self.image = tuple(thresholds), image

    def options(self) -> Mapping[str, Any]:
        return {"thresholds": self.thresholds, "image": self.image}

    def batch_sums(self, pred: Field, true: Field, climatology: Field | None) -> Sums:
        error = pred - true
        frames = frames_in(true)
        sums = {
            "frames": frames,
            "pixels": frames * np.prod(true.shape[2:]),
            "squared": by_lead(error * error),
            "absolute": by_lead(np.abs(error)),
        }
        if not self.image:
            return sums
        clipped = np.clip(pred, 0.0, 1.0)
        with np.errstate(divide="ignore"):
            decibel = -10 * np.log10(((clipped - true) ** 2).mean(axis=FRAME_AXES))
        sums["psnr"] = by_lead(decibel)
        forecast, truth = WindowMoments(clipped), WindowMoments(true)
        for data_range in (1, 2):
            similarity = ssim_map(forecast, truth, float(data_range))
            sums[f"ssim_{data_range}"] = by_lead(similarity)
            sums["windows"] = frames * np.prod(similarity.shape[2:])
        # A NaN pixel would count as "no event": this makes the counts NaN instead.
        broken = 0.0 * by_lead(true)
        for threshold in self.thresholds:
            forecast_event, event = clipped >= threshold, true >= threshold
            sums[f"hits_ge_{threshold}"] = by_lead(forecast_event & event) + broken
            sums[f"misses_ge_{threshold}"] = by_lead(~forecast_event & event) + broken
            sums[f"false_alarms_ge_{threshold}"] = by_lead(forecast_event & ~event) + broken
        return sums

    def scores(self, sums: Sums) -> Sums:
        scores: Sums = {}
        for suffix, count in (("pixel_sum", sums["frames"]), ("spatial_norm", sums["pixels"])):
            scores[f"mse_{suffix}"] = sums["squared"] / count
            scores[f"mae_{suffix}"] = sums["absolute"] / count
            scores[f"rmse_{suffix}"] = np.sqrt(scores[f"mse_{suffix}"])
        if not self.image:
            return scores
        scores["psnr_frame_mean_clipped"] = sums["psnr"] / sums["frames"]
        for data_range in (2, 1):
            name = f"ssim_uniform7_range{data_range}_clipped"
            scores[name] = sums[f"ssim_{data_range}"] / sums["windows"]
        for threshold in self.thresholds:
            counts = [sums[f"{kind}_ge_{threshold}"] for kind in ("hits", "misses", "false_alarms")]
            scores[f"csi_ge_{threshold}"] = counts[0] / (counts[0] + counts[1] + counts[2])
            for kind, count in zip(("hits", "misses", "false_alarms"), counts, strict=True):
                scores[f"{kind}_ge_{threshold}"] = count
        return scores
