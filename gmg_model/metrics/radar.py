"""Protocol ``radar``: scores of events above thresholds, from counts pooled over all frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gmg_model.errors import ConfigurationError
from gmg_model.metrics.streaming import StreamingMetrics, Sums, by_lead


class RadarMetrics(StreamingMetrics):
    """CSI, POD, FAR, HSS and FSS; event = value >= threshold.

    Counts of hits, misses, false alarms and correct rejections are pooled over windows, channels
    and pixels before a ratio is taken. A ratio of nothing (no event forecast nor seen) is NaN, not
    0 or 1. Pixels that are NaN in the truth are left out; a forecast of NaN is no event.

    The fractions skill score (Roberts and Lean 2008, Eqs. 5 to 7) compares the fractions of event
    pixels in squares of ``scales`` pixels that lie wholly on the grid; a square with a missing
    pixel is left out.

    Parameters
    ----------
    thresholds:
        In the units of the data (dBZ, or pixels if those are scored).
    scales:
        Odd sides of the squares of FSS in pixels; none: no FSS.
    """

    def __init__(self, thresholds: Sequence[float] = (30, 40, 50), scales: Sequence[int] = ()):
        super().__init__()
        self.thresholds, self.scales = tuple(thresholds), tuple(scales)
        if not self.thresholds:
            raise ConfigurationError("give at least one threshold")
        for scale in self.scales:
            if scale < 1 or scale % 2 == 0:
                raise ConfigurationError(
                    f"a scale of FSS must be an odd number of pixels, not {scale}"
                )

    def options(self) -> Mapping[str, Any]:
        return {"thresholds": self.thresholds, "scales": self.scales}

    def batch_sums(
        self,
        pred: NDArray[np.float64],
        true: NDArray[np.float64],
        climatology: NDArray[np.float64] | None,
    ) -> Sums:
        valid = ~np.isnan(true)
        sums: Sums = {}
        for threshold in self.thresholds:
            forecast, event = (pred >= threshold) & valid, true >= threshold
            sums[f"hits_{threshold}"] = by_lead(forecast & event)
            sums[f"misses_{threshold}"] = by_lead(~forecast & event)
            sums[f"false_{threshold}"] = by_lead(forecast & ~event)
            sums[f"rejected_{threshold}"] = by_lead(valid & ~forecast & ~event)
            for scale in self.scales:
                whole = _fractions(valid, scale) > 1 - 0.5 / scale**2
                f, o = (np.where(whole, _fractions(x, scale), 0.0) for x in (forecast, event))
                sums[f"fbs_{threshold}_{scale}"] = by_lead((f - o) ** 2)
                sums[f"worst_{threshold}_{scale}"] = by_lead(f * f + o * o)
        return sums

    def scores(self, sums: Sums) -> Sums:
        scores: Sums = {}
        for threshold in self.thresholds:
            hits, misses, false, rejected = (
                sums[f"{kind}_{threshold}"] for kind in ("hits", "misses", "false", "rejected")
            )
            scores[f"csi_{threshold}"] = hits / (hits + misses + false)
            scores[f"pod_{threshold}"] = hits / (hits + misses)
            scores[f"far_{threshold}"] = false / (hits + false)
            chance = (hits + misses) * (misses + rejected) + (hits + false) * (false + rejected)
            scores[f"hss_{threshold}"] = 2 * (hits * rejected - misses * false) / chance
            for scale in self.scales:
                fbs, worst = (sums[f"{kind}_{threshold}_{scale}"] for kind in ("fbs", "worst"))
                scores[f"fss_{threshold}_{scale}px"] = 1 - fbs / worst
        return scores


def _fractions(event: NDArray[np.bool_], scale: int) -> NDArray[np.float64]:
    """Fraction of event pixels in each whole square: (..., H, W) -> (..., H - s + 1, W - s + 1)."""
    *lead, rows, columns = event.shape
    if scale > min(rows, columns):
        return np.zeros((*lead, 0, 0))
    corner = np.zeros((*lead, rows + 1, columns + 1), dtype=np.int64)
    corner[..., 1:, 1:] = event.cumsum(axis=-2).cumsum(axis=-1)
    counts = (
        corner[..., scale:, scale:]
        - corner[..., :-scale, scale:]
        - corner[..., scale:, :-scale]
        + corner[..., :-scale, :-scale]
    )
    return counts / scale**2
