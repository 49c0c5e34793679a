"""Extrapolation along the optical flow, the usual baseline for radar.

The motion of the echoes in the input frames is estimated by local Lucas-Kanade optical flow. It
carries the last frame on (semi-Lagrangian extrapolation, Germann and Zawadzki 2002). Both methods
are those of pysteps with their defaults.

Legend: B windows, T frames, C channels, H W grid.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import warnings

import numpy as np

from pipelines.errors import UsageError
from pipelines.optional_libraries import load_pysteps

DEFINITION = (
    "the last frame carried on along the optical flow of the frames that the model was given "
    "(pysteps, Lucas-Kanade and semi-Lagrangian); what flows in from outside the grid is taken as "
    "the least value of the last frame"
)
MIN_FRAMES = 2
"""input frames that a motion can be seen in"""


def extrapolation(frames_btchw: np.ndarray, horizon: int) -> np.ndarray:
    """Return forecasts (B, horizon, C, H, W) float32, in the units of the frames.

    Every channel moves on its own. A window without contrast stays as it is.

    Parameters
    ----------
    frames_btchw:
        At least `MIN_FRAMES` input frames without NaN.
    """
    batch, _, channels, height, width = frames_btchw.shape
    forecast = np.empty((batch, horizon, channels, height, width), np.float32)
    for b in range(batch):
        for c in range(channels):
            forecast[b, :, c] = _carried_on(frames_btchw[b, :, c].astype(np.float64), horizon)
    return forecast


def unavailable() -> str | None:
    """Return why extrapolation is impossible here, with the remedy; None if it is possible."""
    try:
        load_pysteps("pysteps.motion.lucaskanade")
        importlib.import_module("cv2")
    except ImportError:
        return "none: it needs opencv; pip install 'gmg-platform[radar]'"
    except UsageError as error:
        return f"none: {error.what}; {error.remedy}"
    return None


def _carried_on(frames_thw: np.ndarray, horizon: int) -> np.ndarray:
    flow = load_pysteps("pysteps.motion.lucaskanade").dense_lucaskanade
    carry = load_pysteps("pysteps.extrapolation.semilagrangian").extrapolate
    last_hw = frames_thw[-1]
    # With few features pysteps warns about a covariance that this method does not use.
    with (
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(),
        np.errstate(all="ignore"),
    ):
        warnings.simplefilter("ignore")
        velocity = flow(frames_thw, verbose=False)
        moved = carry(last_hw, velocity, horizon)
    return np.where(np.isnan(moved), last_hw.min(), moved)
