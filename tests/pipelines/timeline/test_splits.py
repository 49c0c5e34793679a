"""Splits by time: protocols, files, fractions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.archives.series import taxibj, weatherbench
from pipelines.errors import SourceError, UsageError
from pipelines.timeline.intervals import iso
from pipelines.timeline.splits import (
    choose_splits,
    read_splits_file,
    split_by_fraction,
    splits_between,
)

HOUR = 3600


def hours(first: str, last: str) -> np.ndarray:
    begin, end = (int(np.datetime64(t, "s").astype(np.int64)) for t in (first, last))
    return np.arange(begin, end + 1, HOUR)


def as_text(splits) -> dict[str, tuple[str, str]]:
    return {name: (iso(first), iso(last)) for name, (first, last) in splits.items()}


def test_weatherbench_uses_the_years_of_the_papers():
    splits = weatherbench.protocol_splits(hours("2009-01-01", "2018-12-31T23:00:00"))
    assert splits is not None
    assert as_text(splits) == {
        "train": ("2010-01-01T00:00:00", "2015-12-31T23:00:00"),
        "validation": ("2016-01-01T00:00:00", "2016-12-31T23:00:00"),
        "test": ("2017-01-01T00:00:00", "2018-12-31T23:00:00"),
    }


def test_weatherbench_without_a_validation_year_has_no_protocol_splits():
    times = np.concatenate(
        [hours("2014-01-01", "2015-12-31T23"), hours("2017-01-01", "2018-12-31T23")]
    )
    assert weatherbench.protocol_splits(times) is None
    assert choose_splits(times, None, None).origin == "fraction"


def test_taxibj_tests_on_the_last_four_weeks():
    times = hours("2014-04-01", "2014-09-30T23")
    splits = taxibj.protocol_splits(times)
    assert splits is not None
    assert as_text(splits)["test"] == ("2014-09-03T00:00:00", "2014-09-30T23:00:00")
    rest = int((times < splits["test"][0]).sum())
    validation = (splits["validation"][1] - splits["validation"][0]) // HOUR + 1
    assert validation == round(rest / 10)
    assert splits["train"][1] + HOUR == splits["validation"][0]
    assert splits["validation"][1] + HOUR == splits["test"][0]


def events(*frames: int) -> np.ndarray:
    """Events of five-minute frames, a day apart."""
    return np.concatenate([np.arange(n) * 300 + day * 86_400 for day, n in enumerate(frames)])


def test_a_cut_by_fraction_moves_to_the_end_of_a_near_event():
    times = events(36, 36, 36, 36, 36, 36)
    splits = split_by_fraction(times)
    counts = [int(((times >= a) & (times <= b)).sum()) for a, b in splits.values()]
    assert counts == [4 * 36, 36, 36]


@pytest.mark.parametrize("frames", [(100, 100), (3, 200), (2, 1, 1), (70, 8, 1, 1, 20)])
def test_a_cut_by_fraction_stays_if_no_event_ends_near_it(frames: tuple[int, ...]):
    times = events(*frames)
    splits = split_by_fraction(times)
    counts = np.array([((times >= a) & (times <= b)).sum() for a, b in splits.values()])
    assert counts.min() >= 1
    assert counts.sum() == len(times)
    assert np.all(
        np.abs(np.cumsum(counts)[:2] / len(times) - (0.7, 0.8)) <= max(0.1, 1 / len(times))
    )


def test_taxibj_has_no_protocol_splits_for_a_month_of_frames():
    assert taxibj.protocol_splits(hours("2014-04-01", "2014-05-10")) is None


@pytest.mark.parametrize("frames", [3, 4, 7, 10, 999])
def test_fractions_cover_every_frame_once(frames: int):
    times = np.arange(frames) * HOUR
    splits = split_by_fraction(times)
    covered = [t for first, last in splits.values() for t in range(first, last + 1, HOUR)]
    assert covered == times.tolist()


def test_two_frames_are_too_few_to_split():
    with pytest.raises(SourceError, match="2 frames"):
        split_by_fraction(np.array([0, HOUR]))


def test_both_ends_of_a_period_in_a_file_are_inclusive(tmp_path: Path):
    file = tmp_path / "splits.yaml"
    file.write_text("train: ['2010', 2011]\nvalidation: ['2012-01', '2012-03']\ntest: [2013, 2013]")
    bounds = read_splits_file(str(file))
    assert bounds["train"] == ("2010-01-01T00:00:00", "2011-12-31T23:59:59")
    assert bounds["validation"] == ("2012-01-01T00:00:00", "2012-03-31T23:59:59")
    splits = splits_between(hours("2010-01-01", "2013-12-31T23"), bounds)
    assert as_text(splits)["train"] == ("2010-01-01T00:00:00", "2011-12-31T23:00:00")
    assert choose_splits(hours("2010-01-01", "2013-12-31"), splits, bounds).origin == "file"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: [2010, 2011]\nvalidation: [2012, 2012]", "missing .*: test"),
        ("trian: [2010, 2011]", "did you mean 'train'"),
        ("train: 2010\nvalidation: [2012, 2012]\ntest: [2013, 2013]", "not a pair of dates"),
        ("train: [soon, later]\nvalidation: [2012, 2012]\ntest: [2013, 2013]", "invalid date"),
        ("train: [2011, 2010]\nvalidation: [2012, 2012]\ntest: [2013, 2013]", "ends before"),
        ("train: [", "cannot be read"),
        ("just words", "contains no splits"),
    ],
)
def test_a_wrong_splits_file_raises_an_error_with_the_reason(
    tmp_path: Path, text: str, message: str
):
    file = tmp_path / "splits.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_splits_file(str(file))


def test_a_missing_splits_file_raises_an_error(tmp_path: Path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_splits_file(str(tmp_path / "none.yaml"))


def test_splits_that_share_a_frame_raise_an_error():
    bounds = {"train": ("2010-01-01", "2010-01-05"), "validation": ("2010-01-05", "2010-01-06")}
    with pytest.raises(UsageError, match="overlap at 2010-01-05"):
        splits_between(
            hours("2010-01-01", "2010-01-31"), bounds | {"test": ("2010-01-07", "2010-01-09")}
        )


def test_a_split_outside_the_archive_raises_an_error():
    bounds = {"train": ("2010-01-01", "2010-01-05"), "validation": ("2010-01-06", "2010-01-06")}
    with pytest.raises(UsageError, match=r"'test' .* holds no frame"):
        splits_between(
            hours("2010-01-01", "2010-01-31"), bounds | {"test": ("2011-01-07", "2011-01-09")}
        )
