"""Windows are inside their split and between its gaps, at any stride."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import UsageError
from pipelines.stores.store import Store
from pipelines.stream.windows import WindowSpec, longest_run, split_starts, window_starts

HOUR = np.timedelta64(1, "h")


def hours(count: int) -> np.ndarray:
    return (np.datetime64("2020-01-01T00") + np.arange(count) * HOUR).astype("datetime64[ns]")


@given(
    st.integers(1, 60),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(0, 2**32),
    st.integers(0, 5),
)
def test_windows_are_exactly_those_without_a_gap(
    frames: int, input_frames: int, horizon: int, stride: int, seed: int, embargo: int
):
    rng = np.random.default_rng(seed)
    spec = WindowSpec(input_frames, horizon, stride)
    times = hours(2 * frames)[np.sort(rng.permutation(2 * frames)[:frames])]
    if rng.random() < 0.5:
        times = hours(frames)
    available = (rng.random(frames) < 0.15).astype("u1")
    period = times[frames // 6], times[-1 - frames // 6]
    found = window_starts(times, available, HOUR, spec, *period, embargo_frames=embargo)

    allowed = np.flatnonzero((times >= period[0]) & (times <= period[1]))[embargo:]
    expected = []
    for start in range(frames - spec.span + 1):
        touched = start + np.arange(spec.frames) * stride
        run = times[start : start + spec.span]
        if (
            set(range(start, start + spec.span)) <= set(allowed)
            and not available[touched].any()
            and (np.diff(run) == HOUR).all()
        ):
            expected.append(start)
    assert found.tolist() == expected


def test_a_window_whose_stride_steps_over_missing_frames_is_kept():
    available = np.array([0, 1, 0, 1, 0], "u1")
    strided = window_starts(hours(5), available, HOUR, WindowSpec(2, 1, stride=2))
    assert strided.tolist() == [0]
    assert not len(window_starts(hours(5), available, HOUR, WindowSpec(2, 1)))


def test_the_period_includes_its_first_and_last_frame():
    starts = window_starts(
        hours(24), np.zeros(24, "u1"), HOUR, WindowSpec(1, 1), "2020-01-01T05", "2020-01-01T08"
    )
    assert starts.tolist() == [5, 6, 7]


def test_a_series_shorter_than_a_window_has_no_windows():
    assert not len(window_starts(hours(3), np.zeros(3, "u1"), HOUR, WindowSpec(2, 2)))
    assert not len(window_starts(hours(0), np.zeros(0, "u1"), HOUR, WindowSpec(2, 2)))


def test_six_years_of_hours_have_as_many_windows_as_in_the_protocol():
    times = np.arange("2010-01-01T00", "2016-01-01T00", dtype="datetime64[h]")
    every = window_starts(
        times.astype("datetime64[ns]"), np.zeros(len(times), "u1"), HOUR, WindowSpec(12, 12)
    )
    assert len(every) == 52_561


@pytest.mark.parametrize(
    ("available", "expected"),
    [([0, 0, 0], 3), ([1, 1, 1], 0), ([1, 0, 0, 1, 0], 2), ([0], 1), ([], 0)],
)
def test_the_longest_run_counts_frames_without_a_gap(available: list[int], expected: int):
    flags = np.array(available, "u1")
    assert longest_run(hours(len(flags)), flags, HOUR) == expected


def test_a_jump_in_time_ends_a_run():
    times = np.concatenate([hours(4), hours(10)[7:]])
    assert longest_run(times, np.zeros(7, "u1"), HOUR) == 4


@pytest.mark.parametrize("field", ["input_frames", "horizon", "stride"])
def test_windows_without_frames_raise(field: str):
    with pytest.raises(UsageError, match=f"{field} must be at least 1"):
        WindowSpec(**{"input_frames": 2, "horizon": 2, field: 0})


SPLITS = {
    "train": ("2015-01-01T00", "2015-01-01T19"),
    "validation": ("2015-01-01T20", "2015-01-02T05"),
    "test": ("2015-01-02T06", "2015-01-02T15"),
}


def day_and_a_half(
    folder: Path, write_store: Callable[..., Store], missing: tuple[int, ...] = (), **options
) -> Store:
    available = np.zeros(40, "u1")
    available[list(missing)] = 1
    values = np.ones((40, 2, 2), "f4")
    return write_store(folder / "s", {"t2m": values}, available=available, splits=SPLITS, **options)


def test_the_windows_of_a_split_lie_inside_it(tmp_path: Path, write_store: Callable[..., Store]):
    store = day_and_a_half(tmp_path, write_store, missing=(15,))
    spec = WindowSpec(2, 2)
    assert split_starts(store, "train", spec).tolist() == [*range(12), 16]
    assert split_starts(store, "validation", spec).tolist() == list(range(20, 27))
    assert split_starts(store, "test", spec).tolist() == list(range(30, 37))


def test_windows_of_splits_by_fraction_share_no_frame_with_the_split_before(
    tmp_path: Path, write_store: Callable[..., Store]
):
    store = day_and_a_half(tmp_path, write_store, embargo=True)
    spec = WindowSpec(2, 2)
    assert split_starts(store, "train", spec).tolist() == list(range(17))
    assert split_starts(store, "validation", spec).tolist() == list(range(23, 27))
    assert split_starts(store, "test", spec).tolist() == list(range(33, 37))


@pytest.mark.parametrize(("hours_between", "first"), [(1, 13), (3, 11), (4, 10), (50, 10)])
def test_a_jump_in_time_counts_towards_the_embargo(
    tmp_path: Path, write_store: Callable[..., Store], hours_between: int, first: int
):
    begin = np.datetime64("2015-01-01T00", "h")
    times = begin + np.concatenate([np.arange(10), 9 + hours_between + np.arange(10)])
    splits = {"train": (str(times[0]), str(times[9])), "test": (str(times[10]), str(times[-1]))}
    values = {"t2m": np.ones((20, 2, 2), np.float32)}
    store = write_store(tmp_path / "s", values, times=times, splits=splits, embargo=True)
    starts = split_starts(store, "test", WindowSpec(2, 2))
    assert starts.tolist() == list(range(first, 17))


def test_openstl_counting_leaves_out_the_last_two_windows(
    tmp_path: Path, write_store: Callable[..., Store]
):
    store = day_and_a_half(tmp_path, write_store)
    frames, spec = 20, WindowSpec(3, 4)
    # Last input frames in range(input_frames - 1, N - horizon - 1) with N = frames - 1.
    counted = range(spec.input_frames - 1, frames - 1 - spec.horizon - 1)
    starts = split_starts(store, "train", spec, counting="openstl")
    assert (starts + spec.input_frames - 1).tolist() == list(counted)


def test_the_error_for_a_split_without_windows_names_its_longest_run(
    tmp_path: Path, write_store: Callable[..., Store]
):
    store = day_and_a_half(tmp_path, write_store, missing=(24,))
    with pytest.raises(UsageError) as caught:
        split_starts(store, "validation", WindowSpec(4, 4))
    message = str(caught.value)
    assert "split 'validation'" in message
    assert "spans 8 frames" in message
    assert "longest run without a gap has 5" in message
    assert "--splits" in message


def test_a_misspelt_split_raises_with_the_nearest_name(
    tmp_path: Path, write_store: Callable[..., Store]
):
    with pytest.raises(UsageError, match="did you mean 'train'"):
        split_starts(day_and_a_half(tmp_path, write_store), "trian", WindowSpec(1, 1))
