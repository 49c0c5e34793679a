"""Train, validation and test: from the archive's protocol, a file of the user, or by fraction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import yaml

from pipelines.errors import SourceError, UsageError, nearest
from pipelines.storage import places
from pipelines.timeline.intervals import iso

NAMES = ("train", "validation", "test")
FRACTIONS = (0.7, 0.1)
"""fractions of the frames for train and validation; the rest is the test split"""
MOVED = 0.05
"""fraction of all frames by which a cut may move, to keep a period of the archive in one split"""
_EXAMPLE = 'write for example  train: ["2010", "2015"]  validation: ["2016", "2016"]  test: [...]'

Splits = dict[str, tuple[int, int]]
"""split -> first and last time, inclusive, seconds since 1970-01-01"""
Bounds = dict[str, tuple[str, str]]
"""split -> first and last time, inclusive, in ISO form: the user's dates written out in full"""


@dataclass(frozen=True)
class SplitChoice:
    """The splits of a store and where they come from."""

    splits: Splits
    origin: str
    """"protocol", "fraction" or "file\""""

    @property
    def embargo(self) -> bool:
        """Whether windows keep a distance of window - 1 frames from the split before.

        Splits by fraction cut the archive at an arbitrary frame, so that the windows on both sides
        of a cut resemble each other. Protocols and files define exactly which frames belong to
        which split.
        """
        return self.origin == "fraction"


def choose_splits(times: np.ndarray, protocol: Splits | None, file: Bounds | None) -> SplitChoice:
    """Return the splits of a time axis: from the file, else the protocol, else by fraction.

    Parameters
    ----------
    times:
        int64 (n,): increasing, seconds since 1970-01-01.
    protocol:
        The splits of the archive's papers; None if they define none.
    file:
        The bounds that the user gave; None if no file was given.
    """
    if file is not None:
        return SplitChoice(splits_between(times, file), "file")
    if protocol is not None:
        return SplitChoice(protocol, "protocol")
    return SplitChoice(split_by_fraction(times), "fraction")


def split_by_fraction(times: np.ndarray) -> Splits:
    """Return splits of 70/10/20 % by time.

    A cut moves to a jump in time if one is near, so that the short events of an archive stay whole.

    Raises
    ------
    SourceError
        There are fewer than three frames.
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
    """Return the jump nearest to `cut`, or `cut` itself if no jump is near."""
    if not len(jumps):
        return cut
    nearest_jump = int(jumps[np.argmin(np.abs(jumps - cut))])
    return nearest_jump if abs(nearest_jump - cut) <= MOVED * frames else cut


def splits_between(times: np.ndarray, bounds: Bounds) -> Splits:
    """Return the first and last frame inside each split's bounds.

    Raises
    ------
    UsageError
        A split holds no frame, or two splits overlap.
    """
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
    """Return the bounds in a YAML file such as `train: ["2010", "2015"]`; both are inclusive.

    A year, month or day stands for all of it, as in pandas: `["2010", "2015"]` ends with the last
    second of 2015.

    Raises
    ------
    UsageError
        The file does not exist or is not YAML, a split is unknown or missing, or a date is invalid.
    """
    try:
        content = yaml.safe_load(places.read_bytes(uri))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the splits file cannot be read: {error}",
            where=uri,
            remedy=_EXAMPLE,
        ) from None
    if not isinstance(content, dict):
        raise UsageError("the splits file contains no splits", where=uri, remedy=_EXAMPLE)
    for name in content:
        if name not in NAMES:
            raise UsageError(f"unknown split '{name}'", where=uri, remedy=nearest(str(name), NAMES))
    missing = [name for name in NAMES if name not in content]
    if missing:
        raise UsageError(
            f"splits are missing in the splits file: {', '.join(missing)}",
            where=uri,
            remedy=_EXAMPLE,
        )
    return {name: _bounds(name, content[name], uri) for name in NAMES}


def split_text(bounds: Sequence[Any]) -> tuple[str, str]:
    """Return the first and last of a split, or of a period of statistics, as text for people.

    >>> split_text([0, 8999]), split_text(["2010-01-01T00:00:00", "2015-12-31T23:00:00"])[0]
    (('sample 0', 'sample 8999'), '2010-01-01T00:00:00')
    """
    first, last = (f"sample {end}" if isinstance(end, int) else str(end) for end in bounds)
    return first, last


def _bounds(name: str, value: Any, uri: str) -> tuple[str, str]:
    if not isinstance(value, list) or len(value) != 2:
        raise UsageError(
            f"the split '{name}' is not a pair of dates: {value!r}", where=uri, remedy=_EXAMPLE
        )
    try:
        begin, end = _ends(str(value[0]))[0], _ends(str(value[1]))[1]
    except ValueError as error:
        raise UsageError(
            f"the split '{name}' has an invalid date: {error}", where=uri, remedy=_EXAMPLE
        ) from None
    if begin > end:
        raise UsageError(
            f"the split '{name}' ends before it begins: {value[0]} to {value[1]}",
            where=uri,
            remedy="write the earlier date first",
        )
    return begin.strftime("%Y-%m-%dT%H:%M:%S"), end.strftime("%Y-%m-%dT%H:%M:%S")


def _ends(date: str) -> tuple[Any, Any]:
    """Return the first and last second of a year, month, day or time; raise ValueError if invalid.

    pandas is imported here because it loads slowly, and workers import this module.
    """
    import pandas as pd

    period = pd.Period(date)
    if not isinstance(period, pd.Period):  # pd.Period("") is NaT
        raise ValueError(f"{date!r} is not a date")
    return period.start_time.floor("s"), period.end_time.floor("s")
