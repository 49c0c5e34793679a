"""Gradient difference (Mathieu et al. 2016): how much the steps between neighbours differ.

Axes: N windows, T lead times, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def gradient_differences(
    pred: NDArray[np.float64], true: NDArray[np.float64]
) -> Iterator[NDArray[np.float64]]:
    """``| |grad true| - |grad pred| |`` of every pair of neighbours, down the rows and along them.

    Arrays (N, T, C, H, W) give (N, T, C, H - 1, W) and (N, T, C, H, W - 1).
    """
    for axis in (-2, -1):
        yield np.abs(np.abs(np.diff(true, axis=axis)) - np.abs(np.diff(pred, axis=axis)))
