"""Structural similarity (Wang et al. 2004, Eq. 13) with a uniform 7 x 7 window."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WINDOW = 7
K1, K2 = 0.01, 0.03

Field = NDArray[np.float64]


class Moments:
    """Window sums of one side of the comparison, (..., H - 6, W - 6).

    The mean and the sample variance of the truth serve every data range and every forecast that is
    compared with it.
    """

    def __init__(self, values: Field):
        self.values = values
        self.mean = window_sum(values) / WINDOW**2
        self.variance = _sample(window_sum(values * values), self.mean * self.mean)


def ssim_map(pred: Moments, true: Moments, data_range: float) -> Field:
    """SSIM of every whole window, (..., H - 6, W - 6): the 3-pixel border has none."""
    mean_product = pred.mean * true.mean
    covariance = _sample(window_sum(pred.values * true.values), mean_product)
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    top = (2 * mean_product + c1) * (2 * covariance + c2)
    bottom = (pred.mean**2 + true.mean**2 + c1) * (pred.variance + true.variance + c2)
    return top / bottom


def window_sum(values: Field) -> Field:
    """Sums over all whole 7 x 7 windows: (..., H, W) -> (..., H - 6, W - 6)."""
    return _run_of_seven(_run_of_seven(values, -1), -2)


def _sample(sum_of_products: Field, product_of_means: Field) -> Field:
    pixels = WINDOW**2
    return (sum_of_products - pixels * product_of_means) / (pixels - 1)


def _run_of_seven(values: Field, axis: int) -> Field:
    # 7 = 4 + 2 + 1: four additions, and no running sum whose error would drift along the row.
    def shifted(x: Field, first: int, stop: int) -> Field:
        return x[..., first:stop] if axis == -1 else x[..., first:stop, :]

    length = values.shape[axis]
    size = length - WINDOW + 1
    if size <= 0:
        return shifted(values, 0, 0)
    pairs = shifted(values, 0, length - 1) + shifted(values, 1, length)
    fours = shifted(pairs, 0, length - 3) + shifted(pairs, 2, length - 1)
    total = shifted(fours, 0, size) + shifted(pairs, 4, 4 + size)
    total += shifted(values, 6, 6 + size)
    return total
