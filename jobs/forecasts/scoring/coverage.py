"""Which part of the grid is observed whole, for scores that need frames without missing pixels.

The corners of a radar composite lie outside every radar and are missing in every frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pipelines.stores.store import Store

Region = tuple[int, int, int, int]
"""first row, row after the last, first column, column after the last"""

_MOST_CELLS = 512
"""Rows and columns that are searched; larger grids are searched in blocks."""


def observed_region(store: Store, variable: str) -> Region | None:
    """The largest rectangle that the frame with the fewest missing pixels has whole.

    None where that frame misses nothing, or has no pixel at all.
    """
    missing = np.asarray(store.dataset()["missing_fraction"], float).reshape(len(store.times), -1)
    share = np.where(np.isnan(missing), 1.0, missing).max(axis=1)
    frame = int(np.argmin(share))
    if share[frame] == 0:
        return None
    values = np.asarray(store.array(variable)[frame])
    lost_chw = np.isnan(values).reshape(-1, *store.spatial_shape)
    seen = np.asarray(~lost_chw.any(axis=0))
    if seen.all() or not seen.any():
        return None
    region = largest_rectangle(seen)
    return region if region[1] > region[0] else None


def largest_rectangle(seen_hw: np.ndarray) -> Region:
    """The largest rectangle in which every pixel is true; empty where there is none.

    Grids of more than 512 rows or columns are searched in square blocks that are true throughout.

    >>> corners = np.array([[0, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]], bool)
    >>> largest_rectangle(corners)
    (1, 4, 1, 4)
    """
    side = -(-max(seen_hw.shape) // _MOST_CELLS)
    rows, columns = (length // side for length in seen_hw.shape)
    blocks = seen_hw[: rows * side, : columns * side].reshape(rows, side, columns, side)
    whole = np.asarray(blocks.all(axis=(1, 3)))
    best, most = (0, 0, 0, 0), 0
    heights = np.zeros(columns + 1, np.int64)
    for row in range(rows):
        # Rows, up to this one, in which each column is true; the last column ends every rectangle.
        heights[:columns] = np.where(whole[row], heights[:columns] + 1, 0)
        rising: list[tuple[int, int]] = []
        for column, height in enumerate(heights.tolist()):
            left = column
            while rising and rising[-1][1] >= height:
                left, lower = rising.pop()
                if lower * (column - left) > most:
                    most = lower * (column - left)
                    best = (row + 1 - lower, row + 1, left, column)
            rising.append((left, height))
    top, bottom, left, right = (place * side for place in best)
    return top, bottom, left, right
