"""What a forecast is, and the two that every model is printed beside: persistence, climatology.

Both see what a model sees and no more: persistence the last input frame after normalisation (where
a missing pixel is the train mean or minimum), climatology frames of the train period alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np

from pipelines.climatology import Climatology
from pipelines.normalisation import Normalisation

Forecast = Callable[[np.ndarray, int], np.ndarray]
"""(frames_btchw, horizon) -> (B, horizon, C, H, W), both normalised float32."""


class MemberForecast(ABC):
    """A forecast of one member or several, drawn from noise that numbers fix."""

    @abstractmethod
    def members(self, frames_btchw: np.ndarray, horizon: int, numbers: Sequence[int]) -> np.ndarray:
        """(B, M, horizon, C, H, W), normalised; ``numbers`` are the init frames of the windows."""

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


def climatological(
    climatology: Climatology, normalisation: Normalisation, valid_times: np.ndarray
) -> np.ndarray:
    """The climatology at valid times (B, T) in physical units, (B, T, C, H, W) float32.

    A pixel that the train period never saw takes the value that a model gives to a missing one.
    """
    fields = climatology.at(valid_times.ravel())
    filled = np.nan_to_num(normalisation.apply(fields), copy=False)
    return normalisation.invert(filled).reshape(*valid_times.shape, *fields.shape[1:])
