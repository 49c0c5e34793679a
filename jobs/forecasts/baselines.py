"""The two forecasts that every model is printed beside: persistence and climatology.

Both see what a model sees and no more: persistence the last input frame after normalisation (where
a missing pixel is the train mean or minimum), climatology frames of the train period alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipelines.climatology import Climatology
from pipelines.normalisation import Normalisation

Forecast = Callable[[np.ndarray, int], np.ndarray]
"""(frames_btchw, horizon) -> (B, horizon, C, H, W), both normalised float32."""


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
