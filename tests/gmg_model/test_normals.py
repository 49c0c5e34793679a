"""Normals of an exported model: the same places in a cycle as in `pipelines`, which makes them."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pytest

from gmg_model.errors import ConfigurationError
from gmg_model.normals import Normals, frame_times
from pipelines.inputs.climatology import Climatology, Cycle

DAYS: dict[Cycle, int] = {"day": 1, "week": 7, "year": 366}


@pytest.mark.parametrize("cycle", DAYS)
@pytest.mark.parametrize("hours", [1, 6, 24])
def test_each_time_has_the_same_place_as_in_the_climatology(cycle: Cycle, hours: int):
    # Two centuries: with leap years, 1900 without one, 2000 with one, and times before 1970.
    times = np.arange("1880-01-01", "2081-01-01", dtype="datetime64[h]").reshape(-1, 24)
    places = DAYS[cycle] * 24 // hours
    table = np.arange(places, dtype=np.float32)[:, None, None, None]
    found = Normals(table, cycle, 3600 * hours).at(times.astype("datetime64[ns]"))
    assert found.shape == (*times.shape, 1, 1, 1)
    assert len(np.unique(found)) == places
    np.testing.assert_array_equal(found, Climatology(table, cycle, 3600 * hours, "").at(times))


@pytest.mark.parametrize(("cycle", "places"), [("day", 23), ("week", 24), ("moon", 24)])
def test_a_table_of_the_wrong_length_raises(cycle: str, places: int):
    with pytest.raises(ConfigurationError, match=f"normals of {places} places"):
        Normals(np.zeros((places, 1, 2, 2), np.float32), cycle, 3600)


def test_frame_times_are_the_input_frames_and_the_lead_times():
    found = frame_times(["2019-03-31T23:00", "2020-02-28T23:30"], 2, 2, 1, 3600)
    assert found.astype(str).tolist() == [
        ["2019-03-31T22:00:00", "2019-03-31T23:00:00", "2019-04-01T00:00:00"],
        ["2020-02-28T22:30:00", "2020-02-28T23:30:00", "2020-02-29T00:30:00"],
    ]
    newest = datetime.datetime(2019, 3, 31, 23)
    np.testing.assert_array_equal(frame_times(newest, 1, 2, 1, 3600), found[:1])


@pytest.mark.parametrize("newest", [None, 1554073200, 2.5, "yesterday", ["2019-03-31"] * 3, "NaT"])
def test_a_newest_frame_without_a_valid_time_raises(newest: Any):
    with pytest.raises(ConfigurationError, match="give the time of the newest frame"):
        frame_times(newest, 2, 2, 1, 3600)
