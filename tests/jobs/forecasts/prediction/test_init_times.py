"""Init times of a period, and warnings if the store does not cover it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from jobs.forecasts.prediction.init_times import choose_inits
from pipelines.errors import UsageError
from pipelines.stream.windows import WindowSpec
from tests.jobs.forecasts.running import predict

HOURS = np.arange("2019-03-01T00", "2019-04-01T00", dtype="datetime64[h]").astype("datetime64[ns]")


def chosen(first: str, last: str) -> Any:
    """Return the init times of a period in a month of hours."""
    there = np.zeros(len(HOURS), np.uint8)
    hour = np.timedelta64(1, "h")
    return choose_inits(HOURS, there, hour, WindowSpec(3, 1), period=(first, last))


@pytest.mark.parametrize(
    "text",
    [
        *("2019-03-20T06:00+02:00", "now", "today", "NaT", "20190320", "2019-02-30", "2019-3-1"),
        *("2019-03-20T", "2019-03-20T06:00:00.5", "0001", "2300", ""),
    ],
)
def test_an_error_about_an_invalid_time_shows_the_valid_forms(text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for period in ((text, "2019"), ("2019", text)):
            with pytest.raises(UsageError, match=r"(?s)is not a time.*2018-03-01T06:00"):
                chosen(*period)


@pytest.mark.parametrize(
    ("period", "count"),
    [
        (("2019", "2019-03"), 31 * 24 - 2),
        (("2019-03-20", "2019-03-20"), 24),
        (("2019-03-20T06", "2019-03-20T07:30"), 2),
        (("2019-03-20T06:00Z", "2019-03-20T07:00:00Z"), 2),
        (("2019-03-20 06:00", " 2019-03-20T06 "), 1),
    ],
)
def test_times_are_as_exact_as_they_are_written(period: tuple[str, str], count: int) -> None:
    assert len(chosen(*period).frames) == count


@pytest.mark.parametrize(
    "period", [("2019-03-20", "2019-04-20"), ("2019", "2019-03-02"), ("2019-03", "2019")]
)
def test_a_period_that_goes_beyond_the_store_has_a_warning(period: tuple[str, str]) -> None:
    said = chosen(*period).beyond
    assert "frames from 2019-03-01T00:00:00 to 2019-03-31T23:00:00" in said
    assert f"the rest of {period[0]} to {period[1]} has no forecast" in said


@pytest.mark.parametrize("period", [("2019-03", "2019-03"), ("2019-03-02", "2019-03-31")])
def test_a_period_that_the_store_covers_has_no_warning(period: tuple[str, str]) -> None:
    assert chosen(*period).beyond is None


def test_a_period_beyond_the_store_gives_the_forecasts_inside_the_store(store, trained, tmp_path):
    lines: list[str] = []
    places = trained, store, str(tmp_path / "forecasts")
    predict(*places, period=("2019-01-30T22", "2019-02"), say=lines.append)
    assert any("to 2019-01-30T23:00:00: the rest of 2019-01-30T22 to 2019-02" in x for x in lines)
    again = predict(*places, period=("2019-01-30T22", "2019-01-30"), say=lines.append)
    assert (again.made, again.kept) == (0, 2)
