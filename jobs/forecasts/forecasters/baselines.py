"""What a forecast is, and the one that every model is printed beside: persistence."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np

Forecast = Callable[[np.ndarray, int], np.ndarray]
"""(frames_btchw, horizon) -> (B, horizon, C, H, W) float32, both as models have them."""


class MemberForecast(ABC):
    """A forecast of one member or several, drawn from noise that numbers fix."""

    @abstractmethod
    def members(self, frames_btchw: np.ndarray, horizon: int, numbers: Sequence[int]) -> np.ndarray:
        """(B, M, horizon, C, H, W); ``numbers`` are the init frames of the windows."""

    def __call__(self, frames_btchw: np.ndarray, horizon: int) -> np.ndarray:
        """The mean of the members, as a `Forecast`."""
        return mean_of(self.members(frames_btchw, horizon, range(len(frames_btchw))))


def mean_of(members_bmtchw: np.ndarray) -> np.ndarray:
    """The mean of the members, (B, T, C, H, W) float32."""
    if members_bmtchw.shape[1] == 1:
        return members_bmtchw[:, 0]
    return members_bmtchw.mean(axis=1, dtype=np.float64).astype(np.float32)


def persistence(frames_btchw: np.ndarray, horizon: int) -> np.ndarray:
    """Every lead time is the last frame that was seen.

    >>> persistence(np.arange(3.0).reshape(1, 3, 1, 1, 1), 2).ravel()
    array([2., 2.])
    """
    return np.repeat(frames_btchw[:, -1:], horizon, axis=1)
