"""The 256 grey levels of an 8-bit image, and the values that they stand for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gmg_model.errors import ConfigurationError

GREY_LEVELS = 255.0
"""The whitest grey level."""

ROUNDING = 1e-4
"""Grey levels. Whole levels that were kept in float32 or scaled and scaled back come out up to some
1e-5 too low or too high: so far below a whole level they still count as that level."""


@dataclass(frozen=True)
class GreyScale:
    """A linear scale from physical values to grey levels.

    >>> GreyScale(-10.0, 85.0).levels(np.array([30.0]))
    array([107.36842105])
    """

    data_min: float
    """value of grey level 0"""
    data_max: float
    """value of grey level 255"""

    def __post_init__(self) -> None:
        if not self.data_max > self.data_min:
            raise ConfigurationError(
                f"data_max {self.data_max} must exceed data_min {self.data_min}"
            )

    def levels(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Grey levels, neither rounded nor clipped."""
        return (values - self.data_min) * (GREY_LEVELS / (self.data_max - self.data_min))

    def values(self, level: float) -> float:
        """The physical value of a grey level."""
        return self.data_min + level * (self.data_max - self.data_min) / GREY_LEVELS

    def clipped(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """On [0, 1]; NaN stays NaN."""
        return np.clip((values - self.data_min) / (self.data_max - self.data_min), 0.0, 1.0)

    def rounded(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Whole grey levels 0 to 255, to the nearest, half to even; NaN stays NaN."""
        return np.rint(np.clip(self.levels(values), 0.0, GREY_LEVELS))

    def truncated(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Whole grey levels 0 to 255, towards zero; NaN stays NaN."""
        return np.floor(np.clip(self.levels(values), 0.0, GREY_LEVELS) + ROUNDING)
