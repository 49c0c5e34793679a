"""Moments of single frames, and their exact reduction over any period.

Sums of squares are of deviations from the frame's own mean, so that a field far from zero with
little spread (surface pressure, geopotential) loses no digits; the reduction adds the spread
between frames (Chan et al., 1979).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

MOMENTS = ("count", "nan_count", "sum", "squares", "min", "max")
"""columns of a table of moments: float64 (frames, channels, 6)"""
COUNT, NANS, SUM, SQUARES, MIN, MAX = range(len(MOMENTS))

_BLOCK_VALUES = 131_072
"""values that are worked on at once: 1 MiB as float64, which stays in the cache"""


def frame_moments(frames: np.ndarray) -> np.ndarray:
    """Moments of every frame and channel.

    Parameters
    ----------
    frames:
        float32 ``(n, *extra, y, x)``; NaN is missing.

    Returns
    -------
    float64 ``(n, channels, 6)``: the columns :data:`MOMENTS`; channels are the extra dimensions
    flattened. Minimum and maximum are NaN where a frame has no value.
    """
    n, height, width = len(frames), frames.shape[-2], frames.shape[-1]
    rows = frames.reshape(-1, height * width)
    moments = np.empty((len(rows), len(MOMENTS)))
    step = max(1, _BLOCK_VALUES // rows.shape[1])
    for begin in range(0, len(rows), step):
        _row_moments(rows[begin : begin + step], moments[begin : begin + step])
    return moments.reshape(n, -1, len(MOMENTS))


def _row_moments(rows: np.ndarray, out: np.ndarray) -> None:
    pixels = rows.shape[1]
    values = rows.astype(np.float64)
    total = values.sum(axis=1)
    if np.isfinite(total).all():
        out[:, COUNT], out[:, NANS], out[:, SUM] = pixels, 0, total
        values -= (total / pixels)[:, None]
        np.einsum("ij,ij->i", values, values, out=out[:, SQUARES])
        out[:, MIN], out[:, MAX] = rows.min(axis=1), rows.max(axis=1)
        return
    missing = np.isnan(rows)
    count = pixels - missing.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        total = np.where(missing, 0.0, values).sum(axis=1)
        deviations = np.where(missing, 0.0, values - (total / np.maximum(count, 1))[:, None])
        out[:, SQUARES] = np.einsum("ij,ij->i", deviations, deviations)
    out[:, COUNT], out[:, NANS], out[:, SUM] = count, pixels - count, total
    empty = count == 0
    out[:, MIN] = np.where(empty, np.nan, np.where(missing, np.inf, rows).min(axis=1))
    out[:, MAX] = np.where(empty, np.nan, np.where(missing, -np.inf, rows).max(axis=1))


def missing_moments(frames: int, channels: int, pixels: int) -> np.ndarray:
    """Moments of frames that hold nothing."""
    moments = np.zeros((frames, channels, len(MOMENTS)))
    moments[..., NANS] = pixels
    moments[..., MIN:] = np.nan
    return moments


def reduce_moments(moments: np.ndarray) -> dict[str, Any]:
    """One summary of moments ``(..., 6)``, taken in their own order.

    Returns
    -------
    ``count``, ``nan_count``, ``mean``, ``std`` (of the population), ``min`` and ``max``; the last
    four are None where there is no value at all.
    """
    table = moments.reshape(-1, len(MOMENTS))
    count, nans = int(table[:, COUNT].sum()), int(table[:, NANS].sum())
    summary: dict[str, Any] = {"count": count, "nan_count": nans}
    if count == 0:
        return summary | dict.fromkeys(("mean", "std", "min", "max"))
    held = table[table[:, COUNT] > 0]
    mean = held[:, SUM].sum() / count
    between = held[:, COUNT] * (held[:, SUM] / held[:, COUNT] - mean) ** 2
    variance = (held[:, SQUARES].sum() + between.sum()) / count
    return summary | {
        "mean": float(mean),
        "std": float(np.sqrt(variance)),
        "min": float(held[:, MIN].min()),
        "max": float(held[:, MAX].max()),
    }


def describe_period(
    tables: Mapping[str, np.ndarray],
    layered: Collection[str],
    frames: np.ndarray,
    split: str,
    period: Sequence[str],
) -> dict[str, Any]:
    """The statistics that a store carries.

    Parameters
    ----------
    tables:
        variable -> moments ``(frames, channels, 6)`` of the whole time axis.
    layered:
        The variables with levels, members or channels: each of these is described as well.
    frames:
        bool ``(frames,)``: those that count.
    split, period:
        What the statistics cover; written beside them.
    """
    variables: dict[str, Any] = {}
    for name, moments in tables.items():
        chosen = moments[frames]
        variables[name] = reduce_moments(chosen)
        if name in layered:
            variables[name]["channels"] = [
                reduce_moments(chosen[:, channel]) for channel in range(moments.shape[1])
            ]
    return {"split": split, "period": list(period), "variables": variables}


def fingerprint(statistics: Mapping[str, Any]) -> str:
    """sha256 of the statistics in canonical JSON: what ties a checkpoint to a store."""
    canonical = json.dumps(statistics, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
