"""Mean, deviation and range over a period, reduced exactly from the moments of single frames.

The variance over a period is the spread inside the frames plus the spread between their means
(Chan et al., 1979).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from pipelines.stores.moments import (
    COUNT,
    MAX,
    MIN,
    MOMENTS,
    NANS,
    SQUARES,
    SUM,
    Moments,
    blocks,
)
from pipelines.stores.pairwise_sum import PairwiseSum

Pass = Callable[[], Iterable[np.ndarray]]
"""starts a pass over moments `(n, channels, 6)` in order of time, in blocks of any length"""


def reduce_moments(begin: Pass, channels: int = 0) -> dict[str, Any]:
    """Return one summary of many moments; needs the memory of one block.

    Parameters
    ----------
    begin
        Called three times. It must give the same moments each time.
    channels
        Number of channels that are also described one by one. 0: none.

    Returns
    -------
    dict
        `count`, `nan_count`, `mean`, `std` (of the population), `min` and `max`, as a store keeps
        them in JSON. The last four are None if no value exists. If `channels` > 0, `"channels"`
        holds one such dictionary per channel.
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
    """A summary of rows of moments `(n, 6)`, which it is given in three passes."""

    def __init__(self) -> None:
        self._count = self._nans = self._held = 0
        self._low, self._high = np.inf, -np.inf
        self._sum = self._squares = self._between = PairwiseSum(0)

    def count(self, rows: np.ndarray) -> None:
        """Take the first pass: numbers of values, and the range."""
        self._count += int(rows[:, COUNT].sum())
        self._nans += int(rows[:, NANS].sum())
        held = rows[rows[:, COUNT] > 0]
        if len(held):
            self._held += len(held)
            self._low = min(self._low, float(held[:, MIN].min()))
            self._high = max(self._high, float(held[:, MAX].max()))

    def add(self, rows: np.ndarray) -> None:
        """Take the second pass: the sum, and the spread inside the frames."""
        if self._sum.length != self._held:
            self._sum, self._squares = PairwiseSum(self._held), PairwiseSum(self._held)
        held = rows[rows[:, COUNT] > 0]
        self._sum.add(held[:, SUM])
        self._squares.add(held[:, SQUARES])

    def add_between(self, rows: np.ndarray) -> None:
        """Take the third pass: how the means of frames differ from the mean of all."""
        if self._between.length != self._held:
            self._between = PairwiseSum(self._held)
        held = rows[rows[:, COUNT] > 0]
        if len(held):
            mean = self._sum.result() / self._count
            count = held[:, COUNT]
            self._between.add(count * (held[:, SUM] / count - mean) ** 2)

    def as_dict(self) -> dict[str, Any]:
        """Return the summary as `reduce_moments` describes it."""
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
    """Return the statistics that a store carries, as JSON.

    Parameters
    ----------
    moments
        Moments of the whole time axis, by variable.
    layered
        Variables with levels, members or channels. Each level, member or channel is described too.
    frames
        bool `(frames,)`: the frames that count.
    split, period
        What the statistics cover. They are written beside the statistics.
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
    """Return the sha256 of the statistics in canonical JSON, which ties a checkpoint to a store."""
    canonical = json.dumps(statistics, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
