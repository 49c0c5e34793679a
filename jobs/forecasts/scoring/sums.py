"""Sums over windows that scores are computed from: in all, by day, by month and by hour.

A score is a function of sums over windows (gmg_model/metrics/streaming.py). The sums of each window
are taken once and added to every group that the window, or one of its lead times, belongs to.

The sums by day are kept beside the scores (`DailySums`), because a comparison of two models on the
SAME days drawn anew needs them; the intervals of either model alone do not tell it. The file is an
npz without pickles: an index as JSON, the units of the bootstrap, and one array (D, T, P) for each
quantity, protocol and system. The scores hold its checksum.

Legend: B windows of a batch, D units of the bootstrap (days, clips, or runs of clips), S systems,
T lead times, P sums, C channels, H W grid.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gmg_model.metrics import StreamingMetrics, create_metrics
from gmg_model.metrics.streaming import Sums
from pipelines.storage import places

if TYPE_CHECKING:
    from pipelines.stores.store import Store
    from pipelines.stream.windows import WindowSpec

MOST_UNITS = 365
"""units of the bootstrap for an archive of clips; with more clips, runs of neighbouring clips are
one unit, so that memory does not grow with their number"""
MOST_BYTES = 2**30
"""maps of errors whose sums would take more memory are not kept"""
FORMAT = 1
"""version of the file of sums by day"""
_MONTHS, _HOURS = 12, 24
_INDEX, _UNITS = "index", "units"


@dataclass(frozen=True, eq=False)
class WindowGroups:
    """Which groups some windows belong to, one row per window."""

    units: np.ndarray
    """(n,) int64: day of the init time since 1970, or number of the run of clips"""
    months: np.ndarray | None
    """(n, T) 0 to 11, calendar month of the valid time; None: frames have no date"""
    hours: np.ndarray | None
    """(n, T) 0 to 23, hour UTC of the valid time"""
    unit: str
    """what the units are, for people"""

    @classmethod
    def of(cls, store: Store, window: WindowSpec, starts: np.ndarray) -> WindowGroups:
        """Return the groups of the windows that begin at the frames `starts`."""
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
        """Return the groups of some of the windows."""
        months, hours = (
            None if numbers is None else numbers[part] for numbers in (self.months, self.hours)
        )
        return WindowGroups(self.units[part], months, hours, self.unit)


@dataclass(frozen=True, eq=False)
class UnitSums:
    """Sums of one protocol and one system by unit of the bootstrap, and what scores them."""

    metrics: StreamingMetrics
    """turns sums into scores"""
    names: tuple[str, ...]
    """(P,) names of the sums"""
    packed_dtp: np.ndarray
    """(D, T, P) float64, the units in order"""

    def unpack(self, packed: np.ndarray) -> Sums:
        """Return sums (..., P) by name, each (...)."""
        return {name: packed[..., place] for place, name in enumerate(self.names)}


class GroupedSums:
    """Accumulates one protocol of one system.

    `metrics` holds all sums, also the rows of curves. The groups hold only the sums that are one
    number per lead time, so that each day takes T x P numbers of memory.
    """

    def __init__(self, metrics: StreamingMetrics):
        self.metrics = metrics
        self.units: dict[int, np.ndarray] = {}
        self.months: dict[int, np.ndarray] = {}
        self.hours: dict[int, np.ndarray] = {}
        self._names: tuple[str, ...] = ()

    def update(self, pred: Any, true: Any, climatology: Any, groups: WindowGroups) -> None:
        """Add a batch; `groups` has one row per window."""
        for row, sums in enumerate(self.metrics.parts(pred, true, climatology)):
            self.metrics.add(sums)
            if not self._names:
                self._names = tuple(name for name, value in sums.items() if value.ndim == 1)
            packed_tp = np.stack([sums[name] for name in self._names], axis=-1)
            _add(self.units, int(groups.units[row]), packed_tp)
            for keys_t, target in ((groups.months, self.months), (groups.hours, self.hours)):
                if keys_t is not None:
                    _scatter(target, keys_t[row], packed_tp)

    def merge(self, other: GroupedSums) -> None:
        """Add the sums of another accumulator."""
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
        """Return the sums of each unit of the bootstrap."""
        packed_dtp = np.stack([self.units[key] for key in sorted(self.units)])
        return UnitSums(self.metrics, self._names, packed_dtp)

    def by_group(self, which: Mapping[int, np.ndarray]) -> dict[int, dict[str, float]]:
        """Return scores over all lead times for each group of `months` or of `hours`."""
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


def _scatter(target: dict[int, np.ndarray], keys_t: np.ndarray, packed_tp: np.ndarray) -> None:
    """Add each lead time to its own group; the group's other lead times stay as they are."""
    for key in np.unique(keys_t).tolist():
        chosen = keys_t == key
        if key not in target:
            target[key] = np.zeros_like(packed_tp)
        target[key][chosen] += packed_tp[chosen]


def _add(target: dict[int, np.ndarray], key: int, packed_tp: np.ndarray) -> None:
    if key in target:
        target[key] += packed_tp
    else:
        target[key] = packed_tp.copy()


@dataclass(frozen=True, eq=False)
class DailySums:
    """The sums by unit of the bootstrap of one evaluation."""

    unit: str
    """what the units are, for people"""
    units: np.ndarray
    """(D,) int64: days since 1970, or numbers of runs of clips"""
    sums: dict[str, dict[str, dict[str, UnitSums]]]
    """[variable or level][protocol][system]"""
    options: dict[str, dict[str, dict[str, Any]]]
    """[variable or level][protocol]: options of the accumulators"""

    @classmethod
    def of(
        cls,
        groups: WindowGroups,
        sums: Mapping[str, Mapping[str, Mapping[str, GroupedSums]]],
        options: Mapping[str, Mapping[str, Mapping[str, Any]]],
    ) -> DailySums:
        """Return those of an evaluation; mappings as of the fields of this class."""
        by_unit = {
            label: {
                protocol: {system: grouped.by_unit() for system, grouped in systems.items()}
                for protocol, systems in protocols.items()
            }
            for label, protocols in sums.items()
        }
        plain = {
            label: {name: dict(given) for name, given in protocols.items()}
            for label, protocols in options.items()
        }
        return cls(groups.unit, np.unique(groups.units), by_unit, plain)

    @cached_property
    def content(self) -> bytes:
        """The bytes of the file."""
        arrays: dict[str, np.ndarray] = {_UNITS: self.units}
        entries = []
        for label, protocols in self.sums.items():
            for protocol, systems in protocols.items():
                for system, found in systems.items():
                    entries.append([label, protocol, system, list(found.names)])
                    arrays[f"{len(entries) - 1}"] = found.packed_dtp
        index = {"format": FORMAT, "unit": self.unit, "options": self.options, "sums": entries}
        text = json.dumps(index, default=lambda values: np.asarray(values).tolist())
        arrays[_INDEX] = np.frombuffer(text.encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # pyright: ignore[reportArgumentType]
        return buffer.getvalue()

    @cached_property
    def sha256(self) -> str:
        """Checksum of the file, by which scores recognise their own sums."""
        return hashlib.sha256(self.content).hexdigest()

    def write(self, uri: str) -> None:
        """Write the file."""
        places.write_bytes(uri, self.content)


def read_daily_sums(uri: str, sha256: str | None) -> DailySums | str:
    """Read a file of sums by day, or return why it cannot be used, as the object of a sentence.

    Parameters
    ----------
    sha256:
        Checksum that the scores hold; None if they hold none.
    """
    try:
        content = places.read_bytes(uri)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return "no sums by day"
    if sha256 is None:
        return "sums by day that an earlier version left, which may be another evaluation's,"
    if hashlib.sha256(content).hexdigest() != sha256:
        return "sums by day that are damaged or another evaluation's"
    with np.load(io.BytesIO(content), allow_pickle=False) as held:
        index = json.loads(held[_INDEX].tobytes())
        if index["format"] != FORMAT:
            return "sums by day of another version"
        options, sums = index["options"], {}
        for place, (label, protocol, system, names) in enumerate(index["sums"]):
            metrics = create_metrics(protocol, **options[label][protocol])
            found = UnitSums(metrics, tuple(names), held[f"{place}"])
            sums.setdefault(label, {}).setdefault(protocol, {})[system] = found
        return DailySums(index["unit"], held[_UNITS], sums, options)


def are_daily_sums(content: bytes, *, damaged: bool) -> bool:
    """Return whether the content of a file is sums by day, of whatever version.

    Parameters
    ----------
    damaged:
        The answer for content that cannot be read.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as held:
            return {_INDEX, _UNITS} <= {*held.files}
    except Exception:  # NumPy and zip files raise errors of many kinds for bytes of any other file
        return damaged


@dataclass(frozen=True)
class ErrorFields:
    """Maps of errors over the windows scored, in physical units; NaN where nothing was observed."""

    systems: tuple[str, ...]
    bias_stchw: np.ndarray
    """float32, mean of forecast minus truth"""
    rmse_stchw: np.ndarray
    """float32"""
    count_tchw: np.ndarray
    """int64, number of windows whose truth exists"""


class ErrorSums:
    """Sums of errors and of their squares where the truth exists, in double precision."""

    def __init__(self, systems: tuple[str, ...], shape_tchw: tuple[int, ...]):
        self.systems = systems
        self._count = np.zeros(shape_tchw, np.int64)
        self._signed = np.zeros((len(systems), *shape_tchw))
        self._squared = np.zeros((len(systems), *shape_tchw))

    @staticmethod
    def nbytes(systems: int, shape_tchw: tuple[int, ...]) -> int:
        """Return the bytes of memory that the sums take."""
        return 8 * (2 * systems + 1) * int(np.prod(shape_tchw))

    def update(self, fields: Mapping[str, np.ndarray], truth_btchw: np.ndarray) -> None:
        """Add a batch; `fields` are forecasts (B, T, C, H, W) by system."""
        for row, truth in enumerate(truth_btchw):
            seen = ~np.isnan(truth)
            self._count += seen
            for place, system in enumerate(self.systems):
                error = np.where(seen, np.subtract(fields[system][row], truth, dtype=np.float64), 0)
                self._signed[place] += error
                self._squared[place] += error * error

    def merge(self, other: ErrorSums) -> None:
        """Add the sums of another accumulator."""
        self._count += other._count
        self._signed += other._signed
        self._squared += other._squared

    def result(self) -> ErrorFields:
        """Return bias and RMSE."""
        with np.errstate(invalid="ignore", divide="ignore"):
            bias, mse = self._signed / self._count, self._squared / self._count
        return ErrorFields(
            systems=self.systems,
            bias_stchw=bias.astype(np.float32),
            rmse_stchw=np.sqrt(mse).astype(np.float32),
            count_tchw=self._count,
        )
