"""The radar baseline: echoes continue along their motion."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from jobs.forecasts.forecasters.extrapolation import extrapolation
from pipelines.inputs.normalisation import Normalisation
from pipelines.stream.windows import WindowSpec
from tests.jobs.forecasts.running import evaluate
from tests.jobs.forecasts.stores import weather


def moving_echoes(frames: int, size: int = 64) -> np.ndarray:
    """Return (frames, size, size) dBZ: three echoes that move 2 columns and 1 row per frame."""
    y, x = np.mgrid[:size, :size].astype(float)
    fields = []
    for t in range(frames):
        echo = np.full((size, size), -10.0)
        for row, column, width in ((16, 10, 3.0), (34, 20, 4.0), (25, 34, 2.5)):
            distance = (y - row - t) ** 2 + (x - column - 2 * t) ** 2
            echo = np.maximum(echo, 50 * np.exp(-distance / (2 * width**2)) - 10)
        fields.append(echo)
    return np.stack(fields).astype(np.float32)


def test_extrapolation_is_better_than_persistence_for_echoes_that_move_steadily() -> None:
    frames = moving_echoes(11)
    forecast = extrapolation(frames[None, :5, None], 6)
    assert forecast.shape == (1, 6, 1, 64, 64)
    assert forecast.dtype == np.float32
    error = np.sqrt(((forecast[0, :, 0] - frames[5:]) ** 2).mean(axis=(1, 2)))
    stays = np.sqrt(((frames[4] - frames[5:]) ** 2).mean(axis=(1, 2)))
    assert (error < 0.5 * stays).all()


def test_a_window_without_contrast_stays_and_inflow_is_the_least_value() -> None:
    still = np.full((1, 4, 2, 32, 32), -10.0, np.float32)
    np.testing.assert_array_equal(extrapolation(still, 3), still[:, :3])
    leaving = extrapolation(moving_echoes(5)[None, :, None], 40)
    assert np.isfinite(leaving).all()
    assert leaving[0, -1, 0, :, 0] == pytest.approx(-10.0, abs=1e-3)


def test_each_window_and_channel_moves_on_its_own() -> None:
    frames = moving_echoes(5)
    both = np.stack([frames, frames[:, ::-1, ::-1]], axis=1)[None]
    forecast = extrapolation(both, 3)
    np.testing.assert_array_equal(forecast[:, :, :1], extrapolation(both[:, :, :1], 3))
    np.testing.assert_array_equal(forecast[:, :, 1:], extrapolation(both[:, :, 1:], 3))


def evaluated(store):
    window = WindowSpec(4, 3)
    constants = Normalisation.from_store(store, ("t2m",), "minmax")
    return evaluate(
        store,
        lambda seen, horizon: np.repeat(seen[:, -1:], horizon, axis=1),
        variables=("t2m",),
        window=window,
        normalisation=constants,
        max_windows=3,
    )


def test_radar_echoes_are_scored_beside_their_extrapolation(make_store) -> None:
    found = evaluated(make_store(weather() - 240, units="dBZ"))
    (scores,) = found.scores
    assert scores.forecasts == ("model", "persistence", "extrapolation", "climatology")
    assert "extrapolation" in scores.systems("radar")
    assert found.extrapolation is not None
    assert "Lucas-Kanade" in found.extrapolation


def test_without_opencv_the_evaluation_says_why_extrapolation_is_missing(
    make_store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert evaluated(make_store()).extrapolation is None
    monkeypatch.setitem(sys.modules, "cv2", None)  # an import of cv2 fails now
    found = evaluated(make_store(weather() - 240, name="echoes.zarr", units="dBZ"))
    assert "extrapolation" not in found.scores[0].forecasts
    assert found.extrapolation is not None
    assert "pip install 'gmg-platform[radar]'" in found.extrapolation
