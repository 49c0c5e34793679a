"""What scores of images share: grey levels, structural similarity and gradient differences.

Array axes: N windows, T lead times, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gmg_model.errors import ConfigurationError
from gmg_model.metrics.streaming import Field

GREY_LEVELS = 255.0
"""The brightest of the 256 grey levels of an 8-bit image."""

ROUNDING = 1e-4
"""Tolerance in grey levels. A whole level that was stored as float32, or scaled and scaled back,
comes out up to about 1e-5 too low or too high. A value this far below a whole level still counts as
that level."""

WINDOW = 7
"""Side of the SSIM window in pixels: uniform, as the published evaluations use it."""
K1, K2 = 0.01, 0.03
"""The constants of SSIM, as Wang et al. (2004) recommend them."""
ROWS_AND_COLUMNS = (-1, -2)
SEQUENCES_AT_ONCE = 256
"""Sequences per block in `ssim_across_windows`, which bounds its memory."""


@dataclass(frozen=True)
class GreyScale:
    """A linear scale from physical values to grey levels.

    >>> GreyScale(-10.0, 85.0).levels(np.array([30.0]))
    array([107.36842105])
    """

    data_min: float
    """physical value of grey level 0"""
    data_max: float
    """physical value of grey level 255"""

    def __post_init__(self) -> None:
        if not self.data_max > self.data_min:
            raise ConfigurationError(
                f"data_max {self.data_max} must exceed data_min {self.data_min}"
            )

    def levels(self, values: Field) -> Field:
        """Return grey levels, neither rounded nor clipped."""
        return (values - self.data_min) * (GREY_LEVELS / (self.data_max - self.data_min))

    def values(self, level: float) -> float:
        """Return the physical value of a grey level."""
        return self.data_min + level * (self.data_max - self.data_min) / GREY_LEVELS

    def clipped(self, values: Field) -> Field:
        """Return values scaled and clipped to [0, 1]; NaN stays NaN."""
        return np.clip((values - self.data_min) / (self.data_max - self.data_min), 0.0, 1.0)

    def rounded(self, values: Field) -> Field:
        """Return the nearest whole grey levels, 0 to 255, half to even; NaN stays NaN."""
        return np.rint(np.clip(self.levels(values), 0.0, GREY_LEVELS))

    def truncated(self, values: Field) -> Field:
        """Return whole grey levels, 0 to 255, truncated towards zero; NaN stays NaN."""
        return np.floor(np.clip(self.levels(values), 0.0, GREY_LEVELS) + ROUNDING)


class WindowMoments:
    """Mean and sample variance of every SSIM window of some frames, (..., H - 6, W - 6).

    The moments of the truth are computed once and serve every data range and every forecast that is
    compared with it.

    Parameters
    ----------
    values:
        Frames (..., H, W).
    axes:
        The axes that a window extends over, seven elements along each.
    """

    def __init__(self, values: Field, axes: tuple[int, ...] = ROWS_AND_COLUMNS):
        self.values, self.axes = values, axes
        self.pixels = WINDOW ** len(axes)
        self.mean = window_sum(values, axes) / self.pixels
        self.variance = self.sample_covariance(values * values, self.mean * self.mean)

    def sample_covariance(self, products: Field, product_of_means: Field) -> Field:
        """Return the sample covariance in each window (divisor: pixels - 1)."""
        sums = window_sum(products, self.axes)
        return (sums - self.pixels * product_of_means) / (self.pixels - 1)


def ssim_map(pred: WindowMoments, true: WindowMoments, data_range: float) -> Field:
    """Return the SSIM of every whole window, (..., H - 6, W - 6) (Wang et al. 2004, Eq. 13).

    Only whole windows count, so the 3 pixels along each border have no value.
    """
    mean_product = pred.mean * true.mean
    covariance = pred.sample_covariance(pred.values * true.values, mean_product)
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    numerator = (2 * mean_product + c1) * (2 * covariance + c2)
    denominator = (pred.mean**2 + true.mean**2 + c1) * (pred.variance + true.variance + c2)
    return numerator / denominator


def ssim_across_windows(pred: Field, true: Field, data_range: float) -> float:
    """Return the mean SSIM of cubes of 7 x 7 pixels x 7 neighbours along the first axis.

    Arrays are (N, C, H, W). With fewer than 7 along the first axis the result is NaN.
    """
    axes = (-1, -2, 0)
    total, count = 0.0, 0
    for first in range(0, len(true) - WINDOW + 1, SEQUENCES_AT_ONCE):
        part = slice(first, first + SEQUENCES_AT_ONCE + WINDOW - 1)
        similarity = ssim_map(
            WindowMoments(pred[part], axes), WindowMoments(true[part], axes), data_range
        )
        total, count = total + float(similarity.sum()), count + similarity.size
    return total / count if count else float("nan")


def window_sum(values: Field, axes: tuple[int, ...] = ROWS_AND_COLUMNS) -> Field:
    """Return the sums over all whole windows: (..., H, W) -> (..., H - 6, W - 6)."""
    for axis in axes:
        values = _sum_of_seven(values, axis)
    return values


def gradient_differences(pred: Field, true: Field) -> Iterator[Field]:
    """Yield `| |grad true| - |grad pred| |` for all pairs of neighbours (Mathieu et al. 2016).

    Arrays (N, T, C, H, W) yield two arrays: for pairs down the rows (N, T, C, H - 1, W), then for
    pairs along the rows (N, T, C, H, W - 1).
    """
    for axis in (-2, -1):
        yield np.abs(np.abs(np.diff(true, axis=axis)) - np.abs(np.diff(pred, axis=axis)))


def _sum_of_seven(values: Field, axis: int) -> Field:
    """Return the sums of seven neighbours along an axis (0, -2 or -1)."""

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
