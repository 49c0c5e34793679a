"""Which frames are reported as suspicious, and which unusual ones are not."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.audit.suspicious_frames import find_suspicious_frames
from pipelines.stores.moments import MomentsTable, frame_moments


def fields(frames: int = 400, seed: int = 0) -> np.ndarray:
    """Return values with a daily cycle and noise, (frames, 4, 5)."""
    rng = np.random.default_rng(seed)
    daily = 5 * np.sin(np.arange(frames) * 2 * np.pi / 24)[:, None, None]
    return (280 + daily + rng.normal(size=(frames, 4, 5))).astype(np.float32)


def reported(values: np.ndarray) -> list[tuple[str, str, str, int]]:
    found = find_suspicious_frames("t2m", table(values), len(values))
    return [(a.kind, a.first, a.last, a.frames) for a in found]


def table(values: np.ndarray) -> MomentsTable:
    """Return the moments of values (frames, *channels, y, x), as a conversion keeps them."""
    moments = frame_moments(values)
    kept = MomentsTable(moments.shape[1])
    kept.write(0, moments)
    return kept


def test_ordinary_weather_is_not_reported():
    assert reported(fields()) == []


def test_a_frame_in_another_unit_is_reported():
    values = fields()
    values[100:102] -= 273.15
    assert reported(values) == [("unlikely mean", "100", "101", 2)]


def test_a_field_that_stands_still_for_three_frames_is_reported():
    values = fields()
    values[50:52] = values[50]
    values[200:203] = values[200]
    assert reported(values) == [("repeated", "200", "202", 3)]


def test_a_field_that_never_changes_is_not_reported():
    assert reported(np.broadcast_to(fields()[:1], (400, 4, 5))) == []


def test_a_field_of_one_value_is_reported_if_such_fields_are_rare():
    values = fields()
    values[300] = 281.5
    assert reported(values) == [("constant", "300", "300", 1)]
    values[:200] = 280.0
    assert reported(values) == []


def test_calm_frames_without_echo_are_not_reported():
    values = np.zeros((400, 4, 5), np.float32)
    values[100:250] = fields(150) - 270
    assert reported(values) == []


def test_more_missing_pixels_than_usual_are_reported():
    values = fields()
    values[:, 0] = np.nan
    values[70:75, :3] = np.nan
    assert reported(values) == [("missing pixels", "70", "74", 5)]


def test_frames_that_are_missing_in_the_source_are_not_reported():
    values = fields()
    values[20:60] = np.nan
    assert reported(values) == []


def test_an_infinite_value_hides_nothing_else():
    values = fields()
    values[10, 0, 0] = np.inf
    values[100] -= 273.15
    assert reported(values) == [("unlikely mean", "100", "100", 1)]


def test_each_channel_is_checked_and_frames_are_named_by_their_label():
    values = np.stack([fields(), fields(seed=1) - 200], axis=1)
    values[30, 1] += 200
    found = find_suspicious_frames("t", table(values), len(values), lambda frame: f"hour {frame}")
    assert [(a.channel, a.first, a.kind) for a in found] == [(1, "hour 30", "unlikely mean")]
    assert "standard deviations from 80" in found[0].detail


@pytest.mark.parametrize("frames", [1, 2])
def test_nothing_is_reported_in_a_series_of_one_or_two_frames(frames: int):
    assert reported(fields(frames)) == []


def test_a_variable_without_any_value_is_reported():
    assert reported(np.full((30, 4, 5), np.nan, np.float32)) == [("no values", "0", "29", 30)]
