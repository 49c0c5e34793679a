"""Sums of one protocol and one forecast, in all and apart by day, month and hour.

A score is a function of sums over windows (gmg_model/metrics/streaming.py). Each window's sums are
taken once and added to every group that the window, or one of its lead times, belongs to. Legend:
T lead times, P sums, D units of the bootstrap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gmg_model.metrics import StreamingMetrics
from gmg_model.metrics.streaming import Sums

if TYPE_CHECKING:
    from pipelines.stores.store import Store
    from pipelines.stream.windows import WindowSpec

MOST_UNITS = 365
"""Units of the bootstrap of an archive of clips: runs of neighbouring ones, so that memory does not
grow with their number."""
_MONTHS, _HOURS = 12, 24


@dataclass(frozen=True, eq=False)
class WindowGroups:
    """The groups of some windows, a row each."""

    units: np.ndarray
    """(n,) int64: day of the init time since 1970, or run of clips"""
    months: np.ndarray | None
    """(n, T) 0 to 11, calendar month of the valid time; None: frames have no date"""
    hours: np.ndarray | None
    """(n, T) 0 to 23, hour UTC of the valid time"""
    unit: str
    """what the units are, for people"""

    @classmethod
    def of(cls, store: Store, window: WindowSpec, starts: np.ndarray) -> WindowGroups:
        """The groups of the windows at ``starts``."""
        if store.clips is not None:
            run = -(-len(starts) // MOST_UNITS)
            unit = "clip" if run == 1 else f"run of {run} clips"
            return cls(np.arange(len(starts), dtype=np.int64) // run, None, None, unit)
        init = starts + (window.input_frames - 1) * window.stride
        days = store.times[init].astype("datetime64[D]").astype(np.int64)
        leads = np.arange(window.input_frames, window.frames) * window.stride
        valid = store.times[starts[:, None] + leads]
        months = valid.astype("datetime64[M]").astype(np.int64) % _MONTHS
        hours = valid.astype("datetime64[h]").astype(np.int64) % _HOURS
        return cls(days, months, hours, "day of the init time")

    def rows(self, part: slice) -> WindowGroups:
        """Those of some of the windows."""
        months, hours = (
            None if places is None else places[part] for places in (self.months, self.hours)
        )
        return WindowGroups(self.units[part], months, hours, self.unit)


@dataclass(frozen=True, eq=False)
class UnitSums:
    """Sums of one protocol and one forecast by unit of the bootstrap, and what scores them."""

    metrics: StreamingMetrics
    """turns sums into scores"""
    names: tuple[str, ...]
    """(P,) of the sums"""
    packed_dtp: np.ndarray
    """(D, T, P) float64, the units in order"""

    def unpack(self, packed: np.ndarray) -> Sums:
        """Sums (..., P) by name, each (...)."""
        return {name: packed[..., place] for place, name in enumerate(self.names)}


class GroupedSums:
    """Accumulates one protocol of one forecast.

    ``metrics`` holds everything, with the rows of curves; the groups hold the sums that are one
    number a lead time, so that memory grows with the number of days by T x P numbers each.
    """

    def __init__(self, metrics: StreamingMetrics):
        self.metrics = metrics
        self.units: dict[int, np.ndarray] = {}
        self.months: dict[int, np.ndarray] = {}
        self.hours: dict[int, np.ndarray] = {}
        self._names: tuple[str, ...] = ()

    def update(self, pred: Any, true: Any, climatology: Any, groups: WindowGroups) -> None:
        """Add a batch whose windows are in ``groups``, a row each."""
        for row, sums in enumerate(self.metrics.parts(pred, true, climatology)):
            self.metrics.add(sums)
            if not self._names:
                self._names = tuple(name for name, value in sums.items() if value.ndim == 1)
            packed_tp = np.stack([sums[name] for name in self._names], axis=-1)
            _add(self.units, int(groups.units[row]), packed_tp)
            for places_t, target in ((groups.months, self.months), (groups.hours, self.hours)):
                if places_t is not None:
                    _scatter(target, places_t[row], packed_tp)

    def merge(self, other: GroupedSums) -> None:
        """Add what another has seen."""
        self.metrics.merge(other.metrics)
        self._names = self._names or other._names
        for own, new in (
            (self.units, other.units),
            (self.months, other.months),
            (self.hours, other.hours),
        ):
            for key, packed_tp in new.items():
                _add(own, key, packed_tp)

    def by_unit(self) -> UnitSums:
        """The sums of each unit."""
        packed_dtp = np.stack([self.units[key] for key in sorted(self.units)])
        return UnitSums(self.metrics, self._names, packed_dtp)

    def by_group(self, which: Mapping[int, np.ndarray]) -> dict[int, dict[str, float]]:
        """Scores over all lead times of each of ``months`` or ``hours`` that was seen."""
        named = {
            key: {name: packed_tp[..., place] for place, name in enumerate(self._names)}
            for key, packed_tp in sorted(which.items())
        }
        with np.errstate(divide="ignore", invalid="ignore"):
            scores = {key: self.metrics.overall(sums) for key, sums in named.items()}
        return {
            key: {name: float(value) for name, value in found.items()}
            for key, found in scores.items()
        }


def _scatter(target: dict[int, np.ndarray], places_t: np.ndarray, packed_tp: np.ndarray) -> None:
    """Add each lead time to its own group; others of the group's lead times gain nothing."""
    for key in np.unique(places_t).tolist():
        chosen = places_t == key
        if key not in target:
            target[key] = np.zeros_like(packed_tp)
        target[key][chosen] += packed_tp[chosen]


def _add(target: dict[int, np.ndarray], key: int, packed_tp: np.ndarray) -> None:
    if key in target:
        target[key] += packed_tp
    else:
        target[key] = packed_tp.copy()
