"""Splits by time: the archive's protocol, a file of the user's, or 70/10/20 by time."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from pipelines.archives.contents import Splits
from pipelines.archives.time_axis import iso
from pipelines.errors import SourceError, UsageError, nearest

NAMES = ("train", "validation", "test")
FRACTIONS = (0.7, 0.1)
"""train and validation; the rest is the test split"""
MOVED = 0.05
"""of all frames: so far a cut moves, so that a period of the archive stays in one split"""

Bounds = dict[str, tuple[str, str]]
"""split -> first and last as the user wrote them, in ISO form"""


@dataclass(frozen=True)
class SplitChoice:
    """The splits of a store and where they come from."""

    splits: Splits
    origin: str
    """"protocol", "fraction" or "file\""""

    @property
    def embargo(self) -> bool:
        """Whether windows keep a distance of window - 1 frames from the split before.

        Splits by fraction cut the archive where it happens to fall; protocols and files say
        exactly which frames belong to which split.
        """
        return self.origin == "fraction"


def choose_splits(times: np.ndarray, protocol: Splits | None, file: Bounds | None) -> SplitChoice:
    """The splits of a time axis ``times`` (int64 seconds, increasing).

    A file wins over the protocol, the protocol over fractions.
    """
    if file is not None:
        return SplitChoice(splits_between(times, file), "file")
    if protocol is not None:
        return SplitChoice(protocol, "protocol")
    return SplitChoice(split_by_fraction(times), "fraction")


def split_by_fraction(times: np.ndarray) -> Splits:
    """70/10/20 by time; SourceError with fewer than three frames.

    Where a jump in time is near a cut, the cut is made there: an archive of short events keeps each
    of them whole.
    """
    frames = len(times)
    if frames < len(NAMES):
        raise SourceError(
            f"the archive has {frames} frames, which cannot be split into {', '.join(NAMES)}",
            remedy="give more of the archive",
        )
    train = min(max(1, int(frames * FRACTIONS[0])), frames - 2)
    validation = min(max(1, int(frames * FRACTIONS[1])), frames - train - 1)
    steps = np.diff(times)
    jumps = np.flatnonzero(steps > steps.min()) + 1
    first, second = (_near(cut, jumps, frames) for cut in (train, train + validation))
    if first == second:
        first, second = train, train + validation
    edges = (0, first, second, frames)
    return {
        name: (int(times[edges[i]]), int(times[edges[i + 1] - 1])) for i, name in enumerate(NAMES)
    }


def _near(cut: int, jumps: np.ndarray, frames: int) -> int:
    """The jump that is nearest to ``cut``, or ``cut`` where none is near."""
    if not len(jumps):
        return cut
    nearest_jump = int(jumps[np.argmin(np.abs(jumps - cut))])
    return nearest_jump if abs(nearest_jump - cut) <= MOVED * frames else cut


def splits_between(times: np.ndarray, bounds: Bounds) -> Splits:
    """The frames inside each split's bounds; UsageError where a split is empty or two overlap."""
    splits: Splits = {}
    for name in NAMES:
        first, last = bounds[name]
        begin, end = (int(np.datetime64(t, "s").astype(np.int64)) for t in (first, last))
        inside = times[(times >= begin) & (times <= end)]
        if not len(inside):
            raise UsageError(
                f"the split '{name}' ({first} to {last}) holds no frame of the archive",
                where="--splits",
                remedy=f"the archive covers {iso(int(times[0]))} to {iso(int(times[-1]))}",
            )
        splits[name] = (int(inside[0]), int(inside[-1]))
    ordered = sorted(splits.items(), key=lambda item: item[1])
    for (one, (_, last)), (two, (first, _)) in pairwise(ordered):
        if first <= last:
            raise UsageError(
                f"the splits '{one}' and '{two}' overlap at {iso(first)}",
                where="--splits",
                remedy="both ends of a split are inclusive: let one end before the next begins",
            )
    return splits


def read_splits_file(uri: str) -> Bounds:
    """Bounds from a YAML file such as ``train: ["2010", "2015"]``; both ends are inclusive.

    A year, month or day stands for all of it, as in pandas: ``["2010", "2015"]`` ends with the
    last second of 2015.

    Raises
    ------
    UsageError
        No such file, no YAML, an unknown or missing split, or a date that is none.
    """
    import yaml

    from pipelines.storage import places

    try:
        content = yaml.safe_load(places.read_bytes(uri))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the splits file cannot be read: {error}",
            where=uri,
            remedy=_EXAMPLE,
        ) from None
    if not isinstance(content, dict):
        raise UsageError("the splits file names no splits", where=uri, remedy=_EXAMPLE)
    for name in content:
        if name not in NAMES:
            raise UsageError(f"unknown split '{name}'", where=uri, remedy=nearest(str(name), NAMES))
    missing = [name for name in NAMES if name not in content]
    if missing:
        raise UsageError(f"the splits file lacks {', '.join(missing)}", where=uri, remedy=_EXAMPLE)
    return {name: _bounds(name, content[name], uri) for name in NAMES}


_EXAMPLE = 'write for example  train: ["2010", "2015"]  validation: ["2016", "2016"]  test: [...]'


def _bounds(name: str, value: Any, uri: str) -> tuple[str, str]:
    if not isinstance(value, list) or len(value) != 2:
        raise UsageError(
            f"the split '{name}' is no pair of dates: {value!r}", where=uri, remedy=_EXAMPLE
        )
    try:
        begin, end = _ends(str(value[0]))[0], _ends(str(value[1]))[1]
    except ValueError as error:
        raise UsageError(
            f"the split '{name}' has a date that is none: {error}", where=uri, remedy=_EXAMPLE
        ) from None
    if begin > end:
        raise UsageError(
            f"the split '{name}' ends before it begins: {value[0]} to {value[1]}",
            where=uri,
            remedy="write the earlier date first",
        )
    return begin.strftime("%Y-%m-%dT%H:%M:%S"), end.strftime("%Y-%m-%dT%H:%M:%S")


def _ends(date: str) -> tuple[Any, Any]:
    """First and last second of the period that a date stands for; ValueError where it is none."""
    import pandas as pd

    period = pd.Period(date)
    if not isinstance(period, pd.Period):
        raise ValueError(f"no date: {date!r}")
    return period.start_time.floor("s"), period.end_time.floor("s")
