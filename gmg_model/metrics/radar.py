"""Protocol `radar`: scores of events above thresholds, from counts pooled over all frames.

Array axes: N windows, T lead times, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gmg_model.errors import ConfigurationError, require_one_of
from gmg_model.metrics.images import ROUNDING, GreyScale
from gmg_model.metrics.streaming import Field, StreamingMetrics, Sums, by_lead

CONVENTIONS = ("dbz", "pixel", "motionrnn")
EDGES = ("whole", "pad0")
KINDS = ("hits", "misses", "false", "rejected")


class Event(NamedTuple):
    """A threshold under one convention: event = value >= least."""

    label: str
    """end of the score's name, such as `30_dbz`"""
    least: float
    """smallest value that is an event, in the units of the data"""


class RadarMetrics(StreamingMetrics):
    """CSI, POD, FAR, HSS and FSS; event = value >= threshold.

    Counts of hits, misses, false alarms and correct rejections are pooled over windows, channels
    and pixels before a ratio is taken. The ratio 0 / 0 (no event forecast nor observed) is NaN, not
    0 or 1. Pixels that are NaN in the truth are left out; a forecast of NaN counts as no event.

    The fractions skill score (Roberts and Lean 2008, Eqs. 5 to 7) compares the fractions of event
    pixels in squares of `scales` pixels.

    Parameters
    ----------
    thresholds:
        Thresholds in the units of the data (dBZ, or grey levels if those are scored).
    scales:
        Sides of the squares of FSS in pixels, odd. Empty: no FSS.
    edges:
        `"whole"`: only squares that lie wholly on the grid and have no missing pixel, so that
        every fraction is of a whole square; scores are named `fss_30_5px`. `"pad0"`: a square
        around every pixel, with no events beyond the grid and in missing pixels, as in pysteps;
        scores are named `fss_30_5px_pad0`.
    conventions:
        What "30 dBZ" means in the papers, for data in dBZ that came from 8-bit images. Each
        convention adds its own scores. `"dbz"`: value >= 30, named `csi_30_dbz`. `"pixel"`:
        grey level >= the whole level nearest to 30 dBZ, named by the level, `csi_107_pixel`.
        `"motionrnn"`: (p + 30) / 2 >= 30 of the grey level p, named `csi_30_motionrnn`. Empty:
        value >= threshold, named `csi_30`.
    dbz_range:
        The dBZ of grey levels 0 and 255: (-10, 85) for CIKM2017, (0, 70) for Shanghai2020. Required
        by the conventions `pixel` and `motionrnn`.
    """

    def __init__(
        self,
        thresholds: Sequence[float] = (30, 40, 50),
        scales: Sequence[int] = (),
        edges: str = "whole",
        conventions: Sequence[str] = (),
        dbz_range: tuple[float, float] | None = None,
    ):
        super().__init__()
        self.thresholds, self.scales, self.edges = tuple(thresholds), tuple(scales), edges
        self.conventions = tuple(conventions)
        self.dbz_range = None if dbz_range is None else tuple(dbz_range)
        if not self.thresholds:
            raise ConfigurationError("give at least one threshold")
        require_one_of("edges", edges, EDGES)
        for scale in self.scales:
            if scale < 1 or scale % 2 == 0:
                raise ConfigurationError(
                    f"a scale of the FSS must be an odd number of pixels, not {scale}"
                )
        self.events = _events(self.thresholds, self.conventions, self.dbz_range)

    def options(self) -> Mapping[str, Any]:
        return {
            "thresholds": self.thresholds,
            "scales": self.scales,
            "edges": self.edges,
            "conventions": self.conventions,
            "dbz_range": self.dbz_range,
        }

    def batch_sums(self, pred: Field, true: Field, climatology: Field | None) -> Sums:
        valid = ~np.isnan(true)
        wholes = {
            scale: _fractions(valid, scale) > 1 - 0.5 / scale**2
            for scale in (self.scales if self.edges == "whole" else ())
        }
        sums: Sums = {}
        for label, least in self.events:
            forecast, event = (pred >= least) & valid, true >= least
            for kind, count in counts_of_events(forecast, event, valid).items():
                sums[f"{kind}_{label}"] = count
            for scale in self.scales:
                if self.edges == "whole":
                    whole = wholes[scale]
                    f, o = (np.where(whole, _fractions(x, scale), 0.0) for x in (forecast, event))
                else:
                    f, o = (_fractions(_padded(x, scale), scale) for x in (forecast, event))
                sums[f"fbs_{label}_{scale}"] = by_lead((f - o) ** 2)
                sums[f"worst_{label}_{scale}"] = by_lead(f * f + o * o)
        return sums

    def scores(self, sums: Sums) -> Sums:
        scores: Sums = {}
        suffix = "" if self.edges == "whole" else f"_{self.edges}"
        for label, _ in self.events:
            for name, value in ratios_of_events(sums, label).items():
                scores[f"{name}_{label}"] = value
            for scale in self.scales:
                fbs, worst = (sums[f"{kind}_{label}_{scale}"] for kind in ("fbs", "worst"))
                scores[f"fss_{label}_{scale}px{suffix}"] = 1 - fbs / worst
        return scores


def motionrnn_level(threshold: float) -> float:
    """Return the grey level p at which MotionRNN's `(p + 30) / 2` reaches a threshold.

    >>> motionrnn_level(40)
    50
    """
    return 2 * threshold - 30


def counts_of_events(
    forecast: NDArray[np.bool_], event: NDArray[np.bool_], valid: NDArray[np.bool_]
) -> Sums:
    """Return the four entries of the contingency table, each (T,).

    `forecast` and `event` must be False where `valid` is False.
    """
    hits = by_lead(forecast & event)
    forecast_events, events, pixels = by_lead(forecast), by_lead(event), by_lead(valid)
    false = forecast_events - hits
    return {
        "hits": hits,
        "misses": events - hits,
        "false": false,
        "rejected": pixels - events - false,
    }


def ratios_of_events(sums: Sums, label: str) -> Sums:
    """Return CSI, POD, FAR and the Heidke skill score of the counts `<kind>_<label>`.

    A ratio 0 / 0 is NaN.
    """
    hits, misses, false, rejected = (sums[f"{kind}_{label}"] for kind in KINDS)
    chance = (hits + misses) * (misses + rejected) + (hits + false) * (false + rejected)
    return {
        "csi": hits / (hits + misses + false),
        "pod": hits / (hits + misses),
        "far": false / (hits + false),
        "hss": 2 * (hits * rejected - misses * false) / chance,
    }


def _events(
    thresholds: tuple[float, ...],
    conventions: tuple[str, ...],
    dbz_range: tuple[float, ...] | None,
) -> tuple[Event, ...]:
    """Return every threshold under every convention."""
    if not conventions:
        return tuple(Event(f"{threshold}", threshold) for threshold in thresholds)
    scale = None if dbz_range is None else GreyScale(*dbz_range)
    events = []
    for convention in conventions:
        require_one_of("convention", convention, CONVENTIONS)
        for threshold in thresholds:
            if convention == "dbz":
                events.append(Event(f"{threshold}_dbz", threshold))
                continue
            if scale is None:
                raise ConfigurationError(
                    f"convention '{convention}' counts grey levels: give dbz_range, the dBZ of "
                    "levels 0 and 255, for example (-10, 85)"
                )
            if convention == "pixel":
                level = float(np.rint(scale.levels(np.array(float(threshold)))))
                label = f"{level:.0f}_pixel"
            else:
                level, label = motionrnn_level(threshold), f"{threshold}_motionrnn"
            # Grey levels that were stored in dBZ come back up to ROUNDING too low.
            events.append(Event(label, scale.values(level - ROUNDING)))
    return tuple(events)


def _padded(event: NDArray[np.bool_], scale: int) -> NDArray[np.bool_]:
    rim = scale // 2
    return np.pad(event, [(0, 0)] * (event.ndim - 2) + [(rim, rim), (rim, rim)])


def _fractions(event: NDArray[np.bool_], scale: int) -> Field:
    """Return the fraction of event pixels in each whole square of side s.

    Shapes: (..., H, W) -> (..., H - s + 1, W - s + 1).
    """
    *lead, rows, columns = event.shape
    if scale > min(rows, columns):
        return np.zeros((*lead, 0, 0))
    # Summed-area table: entry (i, j) counts the events above row i and left of column j.
    corner = np.zeros((*lead, rows + 1, columns + 1), dtype=np.int64)
    corner[..., 1:, 1:] = event.cumsum(axis=-2).cumsum(axis=-1)
    counts = (
        corner[..., scale:, scale:]
        - corner[..., :-scale, scale:]
        - corner[..., scale:, :-scale]
        + corner[..., :-scale, :-scale]
    )
    return counts / scale**2
