"""Structural similarity (Wang et al. 2004, Eq. 13) with a uniform window of 7 pixels a side."""

from __future__ import annotations

from gmg_model.metrics.streaming import Field

WINDOW = 7
K1, K2 = 0.01, 0.03
ROWS_AND_COLUMNS = (-1, -2)
SEQUENCES_AT_ONCE = 256


class Moments:
    """Window sums of one side of the comparison, (..., H - 6, W - 6).

    The mean and the sample variance of the truth serve every data range and every forecast that is
    compared with it.

    Parameters
    ----------
    values:
        Frames (..., H, W).
    axes:
        The axes that a window extends over, seven places each.
    """

    def __init__(self, values: Field, axes: tuple[int, ...] = ROWS_AND_COLUMNS):
        self.values, self.axes = values, axes
        self.pixels = WINDOW ** len(axes)
        self.mean = window_sum(values, axes) / self.pixels
        self.variance = self.sample(values * values, self.mean * self.mean)

    def sample(self, products: Field, product_of_means: Field) -> Field:
        """The sample covariance in each window, with pixels - 1 below."""
        sums = window_sum(products, self.axes)
        return (sums - self.pixels * product_of_means) / (self.pixels - 1)


def ssim_map(pred: Moments, true: Moments, data_range: float) -> Field:
    """SSIM of every whole window, (..., H - 6, W - 6): the 3-pixel border has none."""
    mean_product = pred.mean * true.mean
    covariance = pred.sample(pred.values * true.values, mean_product)
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    top = (2 * mean_product + c1) * (2 * covariance + c2)
    bottom = (pred.mean**2 + true.mean**2 + c1) * (pred.variance + true.variance + c2)
    return top / bottom


def ssim_across_windows(pred: Field, true: Field, data_range: float) -> float:
    """Mean SSIM of cubes of 7 x 7 pixels and 7 neighbours along the first axis: (N, C, H, W)."""
    axes = (-1, -2, 0)
    total, count = 0.0, 0
    for first in range(0, len(true) - WINDOW + 1, SEQUENCES_AT_ONCE):
        part = slice(first, first + SEQUENCES_AT_ONCE + WINDOW - 1)
        similarity = ssim_map(Moments(pred[part], axes), Moments(true[part], axes), data_range)
        total, count = total + float(similarity.sum()), count + similarity.size
    return total / count if count else float("nan")


def window_sum(values: Field, axes: tuple[int, ...] = ROWS_AND_COLUMNS) -> Field:
    """Sums over all whole windows: (..., H, W) -> (..., H - 6, W - 6)."""
    for axis in axes:
        values = _run_of_seven(values, axis)
    return values


def _run_of_seven(values: Field, axis: int) -> Field:
    # 7 = 4 + 2 + 1: four additions, and no running sum whose error would drift along the row.
    def shifted(x: Field, first: int, stop: int) -> Field:
        if axis == 0:
            return x[first:stop]
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
