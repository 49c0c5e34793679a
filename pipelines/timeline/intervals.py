"""Runs of frames: a few pairs of numbers for many indices that follow each other."""

from __future__ import annotations

import numpy as np


def true_runs(values: np.ndarray) -> list[tuple[int, int, int]]:
    """Runs of True: first index, last index, length.

    >>> true_runs(np.array([False, True, True, False]))
    [(1, 2, 2)]
    """
    outside = np.zeros(1, np.int8)
    edges = np.flatnonzero(np.diff(np.concatenate([outside, values.view(np.int8), outside])))
    return [(int(first), int(end - 1), int(end - first)) for first, end in edges.reshape(-1, 2)]


def run_table(values: np.ndarray) -> np.ndarray:
    """Increasing steps of one as int64 (runs, 2): the first number of each run, and how many.

    >>> run_table(np.array([3, 4, 5, 9])).tolist()
    [[3, 3], [9, 1]]
    """
    begins = np.flatnonzero(np.diff(values) != 1) + 1
    begins = np.concatenate([np.zeros(min(1, len(values)), np.int64), begins])
    counts = np.diff(begins, append=len(values))
    return np.stack([values[begins].astype(np.int64), counts], axis=1)


def as_runs(values: np.ndarray) -> list[list[int]]:
    """The same for JSON: lists of ``[first, count]``."""
    return run_table(values).tolist()


def from_runs(runs: np.ndarray | list[list[int]]) -> np.ndarray:
    """The inverse of :func:`run_table` and of :func:`as_runs`."""
    table = np.asarray(runs, np.int64).reshape(-1, 2)
    firsts, counts = table.T
    begins = np.cumsum(counts) - counts
    return np.arange(counts.sum()) + np.repeat(firsts - begins, counts)
