"""Ranges of frames: long lists of mostly consecutive numbers as a few pairs, and times as text.

A "run" is a maximal range of consecutive numbers. It is stored as its first number and its length.
"""

from __future__ import annotations

import numpy as np


def true_runs(values: np.ndarray) -> list[tuple[int, int, int]]:
    """Return the runs of True in a bool (n,) array: first index, last index, length.

    >>> true_runs(np.array([False, True, True, False]))
    [(1, 2, 2)]
    """
    outside = np.zeros(1, np.int8)
    edges = np.flatnonzero(np.diff(np.concatenate([outside, values.view(np.int8), outside])))
    return [(int(first), int(end - 1), int(end - first)) for first, end in edges.reshape(-1, 2)]


def run_table(values: np.ndarray) -> np.ndarray:
    """Return the runs of increasing integers, int64 (runs, 2): first number and length.

    >>> run_table(np.array([3, 4, 5, 9])).tolist()
    [[3, 3], [9, 1]]
    """
    begins = np.flatnonzero(np.diff(values) != 1) + 1
    begins = np.concatenate([np.zeros(min(1, len(values)), np.int64), begins])
    counts = np.diff(begins, append=len(values))
    return np.stack([values[begins].astype(np.int64), counts], axis=1)


def as_runs(values: np.ndarray) -> list[list[int]]:
    """Return the runs of increasing integers as lists `[first, length]`, for JSON."""
    return run_table(values).tolist()


def from_runs(runs: np.ndarray | list[list[int]]) -> np.ndarray:
    """Return the integers of some runs: the inverse of `run_table` and `as_runs`.

    >>> from_runs([[3, 3], [9, 1]]).tolist()
    [3, 4, 5, 9]
    """
    table = np.asarray(runs, np.int64).reshape(-1, 2)
    firsts, counts = table.T
    begins = np.cumsum(counts) - counts
    return np.arange(counts.sum()) + np.repeat(firsts - begins, counts)


def iso(seconds: int) -> str:
    """Return a time, given in seconds since 1970-01-01, as it stands in messages and attributes.

    >>> iso(1262304000)
    '2010-01-01T00:00:00'
    """
    return str(np.datetime64(int(seconds), "s"))
