"""The types of forecasts, and the simplest baseline: persistence."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np

Forecast = Callable[[np.ndarray, int], np.ndarray]
"""(frames_btchw, horizon) -> (B, horizon, C, H, W) float32, both normalised"""


class MemberForecast(ABC):
    """A forecast of one or several members, whose noise is fixed by numbers."""

    @abstractmethod
    def members(self, frames_btchw: np.ndarray, horizon: int, numbers: Sequence[int]) -> np.ndarray:
        """Return forecasts (B, M, horizon, C, H, W), normalised.

        Parameters
        ----------
        frames_btchw:
            Normalised input frames.
        numbers:
            One per window, such as its init frame: the same number gives the same noise.
        """

    def __call__(self, frames_btchw: np.ndarray, horizon: int) -> np.ndarray:
        """Return the mean of the members."""
        return mean_of(self.members(frames_btchw, horizon, range(len(frames_btchw))))


def mean_of(members_bmtchw: np.ndarray) -> np.ndarray:
    """Return the mean of the members, (B, T, C, H, W) float32."""
    if members_bmtchw.shape[1] == 1:
        return members_bmtchw[:, 0]
    return members_bmtchw.mean(axis=1, dtype=np.float64).astype(np.float32)


def persistence(frames_btchw: np.ndarray, horizon: int) -> np.ndarray:
    """Return a forecast whose every lead time is the last input frame.

    >>> persistence(np.arange(3.0).reshape(1, 3, 1, 1, 1), 2).ravel()
    array([2., 2.])
    """
    return np.repeat(frames_btchw[:, -1:], horizon, axis=1)
