"""Runs of frames: a few pairs of numbers for many indices that follow each other."""

from __future__ import annotations

import numpy as np


def true_runs(values: np.ndarray) -> list[tuple[int, int, int]]:
    """Runs of True: first index, last index, length.

    >>> true_runs(np.array([False, True, True, False]))
    [(1, 2, 2)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], values.astype(np.int8), [0]])))
    return [(int(first), int(end - 1), int(end - first)) for first, end in edges.reshape(-1, 2)]


def as_runs(values: np.ndarray) -> list[list[int]]:
    """Increasing steps of one as ``[first, count]``.

    >>> as_runs(np.array([3, 4, 5, 9]))
    [[3, 3], [9, 1]]
    """
    breaks = np.flatnonzero(np.diff(values) != 1) + 1
    return [[int(run[0]), len(run)] for run in np.split(values, breaks) if len(run)]


def from_runs(runs: list[list[int]]) -> np.ndarray:
    """The inverse of :func:`as_runs`."""
    if not runs:
        return np.empty(0, np.int64)
    return np.concatenate([np.arange(first, first + n, dtype=np.int64) for first, n in runs])
