"""Moments of single frames, and their exact reduction over any period.

Sums of squares are of deviations from the frame's own mean, so that a field far from zero with
little spread (surface pressure, geopotential) loses no digits; the reduction adds the spread
between frames (Chan et al., 1979).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np

from pipelines.stores.pairwise_sum import PairwiseSum

MOMENTS = ("count", "nan_count", "sum", "squares", "min", "max")
"""columns of a table of moments: float64 (frames, channels, 6)"""
COUNT, NANS, SUM, SQUARES, MIN, MAX = range(len(MOMENTS))

_BLOCK_VALUES = 131_072
"""values that are worked on at once: 1 MiB as float64, which stays in the cache"""
_BLOCK_ROWS = 8192
"""rows of moments, frames times channels, that are read at once: 384 KiB"""


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


class Moments(Protocol):
    """Moments of every frame of a variable, wherever they lie."""

    @property
    def channels(self) -> int:
        """Extra dimensions flattened, or 1."""
        ...

    def read(self, start: int, stop: int) -> np.ndarray:
        """Those of frames [start, stop): float64 (stop - start, channels, 6)."""
        ...


def blocks(moments: Moments, start: int, stop: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Moments of frames [start, stop) in order, some at a time: which frames, (n, channels, 6)."""
    step = max(1, _BLOCK_ROWS // moments.channels)
    for begin in range(start, stop, step):
        end = min(begin + step, stop)
        yield slice(begin, end), moments.read(begin, end)


Pass = Callable[[], Iterable[np.ndarray]]
"""begins a pass over moments ``(n, channels, 6)`` in order of time, in blocks of any length"""


def reduce_moments(begin: Pass, channels: int = 0) -> dict[str, Any]:
    """One summary of moments, taken in their own order; needs the memory of one block.

    Parameters
    ----------
    begin:
        Called three times, for the same moments each time.
    channels:
        How many channels are also described one by one; 0: none.

    Returns
    -------
    ``count``, ``nan_count``, ``mean``, ``std`` (of the population), ``min`` and ``max``; the last
    four are None where there is no value at all. With channels the same of each under ``channels``.
    """
    whole, single = _Summary(), [_Summary() for _ in range(channels)]
    for take in (_Summary.count, _Summary.add, _Summary.add_between):
        for block in begin():
            take(whole, block.reshape(-1, len(MOMENTS)))
            for channel, summary in enumerate(single):
                take(summary, block[:, channel])
    described = {"channels": [summary.as_dict() for summary in single]} if channels else {}
    return whole.as_dict() | described


class _Summary:
    """Takes rows of moments ``(n, 6)`` in three passes."""

    def __init__(self) -> None:
        self._count = self._nans = self._held = 0
        self._low, self._high = np.inf, -np.inf
        self._sum = self._squares = self._between = PairwiseSum(0)

    def count(self, rows: np.ndarray) -> None:
        """The first pass."""
        self._count += int(rows[:, COUNT].sum())
        self._nans += int(rows[:, NANS].sum())
        held = rows[rows[:, COUNT] > 0]
        if len(held):
            self._held += len(held)
            self._low = min(self._low, float(held[:, MIN].min()))
            self._high = max(self._high, float(held[:, MAX].max()))

    def add(self, rows: np.ndarray) -> None:
        """The second."""
        if self._sum.length != self._held:
            self._sum, self._squares = PairwiseSum(self._held), PairwiseSum(self._held)
        held = rows[rows[:, COUNT] > 0]
        self._sum.add(held[:, SUM])
        self._squares.add(held[:, SQUARES])

    def add_between(self, rows: np.ndarray) -> None:
        """The third: what the means of frames differ from the mean of all."""
        if self._between.length != self._held:
            self._between = PairwiseSum(self._held)
        held = rows[rows[:, COUNT] > 0]
        if len(held):
            mean = self._sum.result() / self._count
            count = held[:, COUNT]
            self._between.add(count * (held[:, SUM] / count - mean) ** 2)

    def as_dict(self) -> dict[str, Any]:
        """See :func:`reduce_moments`."""
        summary: dict[str, Any] = {"count": self._count, "nan_count": self._nans}
        if self._count == 0:
            return summary | dict.fromkeys(("mean", "std", "min", "max"))
        variance = (self._squares.result() + self._between.result()) / self._count
        return summary | {
            "mean": float(self._sum.result() / self._count),
            "std": float(np.sqrt(variance)),
            "min": self._low,
            "max": self._high,
        }


def describe_period(
    moments: Mapping[str, Moments],
    layered: Collection[str],
    frames: np.ndarray,
    split: str,
    period: Sequence[str],
) -> dict[str, Any]:
    """The statistics that a store carries.

    Parameters
    ----------
    moments:
        variable -> those of the whole time axis.
    layered:
        The variables with levels, members or channels: each of these is described as well.
    frames:
        bool ``(frames,)``: those that count.
    split, period:
        What the statistics cover; written beside them.
    """
    variables: dict[str, Any] = {}
    for name, table in moments.items():
        channels = table.channels if name in layered else 0
        variables[name] = reduce_moments(partial(_chosen, table, frames), channels)
    return {"split": split, "period": list(period), "variables": variables}


def _chosen(table: Moments, frames: np.ndarray) -> Iterator[np.ndarray]:
    for part, block in blocks(table, 0, len(frames)):
        yield block[frames[part]]


def fingerprint(statistics: Mapping[str, Any]) -> str:
    """sha256 of the statistics in canonical JSON: what ties a checkpoint to a store."""
    canonical = json.dumps(statistics, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
