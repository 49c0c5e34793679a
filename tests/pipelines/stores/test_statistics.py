"""Moments of frames, and statistics of a period."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.stores.moments import COUNT, MAX, MIN, NANS, MomentsTable, frame_moments
from pipelines.stores.pairwise_sum import PairwiseSum
from pipelines.stores.statistics import describe_period, fingerprint, reduce_moments


def summary_of(*moments: np.ndarray) -> dict[str, Any]:
    """Return the summary of moments that come in blocks."""
    return reduce_moments(lambda: iter(moments))


def kept(frames: np.ndarray) -> MomentsTable:
    """Return the moments of frames in a table, as a conversion keeps them."""
    moments = frame_moments(frames)
    table = MomentsTable(moments.shape[1])
    table.write(0, moments)
    return table


def test_statistics_are_those_of_the_values_in_double_precision():
    frames = np.random.default_rng(0).normal(280, 10, (300, 3, 9, 11)).astype(np.float32)
    summary = summary_of(frame_moments(frames))
    exact = frames.astype(np.float64)
    assert summary["count"] == frames.size
    assert summary["mean"] == pytest.approx(exact.mean(), rel=1e-13)
    assert summary["std"] == pytest.approx(exact.std(), rel=1e-12)
    assert (summary["min"], summary["max"]) == (frames.min(), frames.max())


def test_a_tiny_spread_far_from_zero_keeps_its_digits():
    frames = (1e5 + np.random.default_rng(1).normal(0, 0.05, (50, 8, 8))).astype(np.float32)
    summary = summary_of(frame_moments(frames))
    assert summary["std"] == pytest.approx(frames.astype(np.float64).std(), rel=1e-9)


def test_missing_pixels_are_counted_and_left_out():
    frames = np.random.default_rng(2).normal(size=(20, 6, 6)).astype(np.float32)
    frames[3, :2] = np.nan
    frames[7] = np.nan
    moments = frame_moments(frames)
    summary = summary_of(moments)
    exact = frames.astype(np.float64)
    assert (summary["count"], summary["nan_count"]) == (20 * 36 - 48, 48)
    assert summary["mean"] == pytest.approx(np.nanmean(exact), rel=1e-13)
    assert summary["std"] == pytest.approx(np.nanstd(exact), rel=1e-12)
    assert moments[7, 0, COUNT] == 0
    assert moments[7, 0, NANS] == 36
    assert np.isnan(moments[7, 0, MIN])


def test_an_infinite_value_becomes_the_maximum():
    frames = np.zeros((2, 3, 3), np.float32)
    frames[1, 1, 1] = np.inf
    assert frame_moments(frames)[1, 0, MAX] == np.inf


def test_the_mean_of_no_values_is_missing():
    summary = summary_of(frame_moments(np.full((2, 3, 3), np.nan, np.float32)))
    assert summary == {"count": 0, "nan_count": 18, "mean": None, "std": None} | {
        "min": None,
        "max": None,
    }


@settings(max_examples=30, deadline=None)
@given(cut=st.integers(1, 199), seed=st.integers(0, 100))
def test_statistics_do_not_depend_on_where_shards_are_cut(cut: int, seed: int):
    frames = np.random.default_rng(seed).normal(280, 5, (200, 5, 7)).astype(np.float32)
    whole = summary_of(frame_moments(frames))
    assert summary_of(frame_moments(frames[:cut]), frame_moments(frames[cut:])) == whole


@settings(max_examples=20, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 70_000), max_size=20),
    length=st.sampled_from([0, 1, 7, 8191, 8192, 8193, 50_001, 65_536, 70_000]),
    seed=st.integers(0, 100),
)
def test_a_sum_of_pieces_has_the_bits_of_the_sum_of_all_numbers(
    cuts: list[int], length: int, seed: int
):
    numbers = np.random.default_rng(seed).normal(1e5, 1e3, length)
    total = PairwiseSum(length)
    for piece in np.split(numbers, sorted(cut for cut in cuts if cut < length)):
        total.add(piece)
    assert total.result() == numbers.sum()


def test_a_sum_with_missing_numbers_is_an_error():
    total = PairwiseSum(10)
    total.add(np.ones(9))
    with pytest.raises(ValueError, match="10 numbers"):
        total.result()


def test_a_table_may_be_written_in_any_order():
    moments = frame_moments(np.random.default_rng(4).normal(size=(50, 3, 2, 2)).astype(np.float32))
    table = MomentsTable(3)
    for start, stop in ((40, 50), (0, 16), (16, 40)):
        table.write(start, moments[start:stop])
    np.testing.assert_array_equal(table.read(10, 45), moments[10:45])


def test_reading_moments_that_were_never_written_is_an_error():
    table = MomentsTable(1)
    table.write(0, np.ones((4, 1, 6)))
    with pytest.raises(EOFError, match="frames 2 to 5"):
        table.read(2, 6)


def test_statistics_of_a_period_cover_its_frames_and_describe_each_level():
    rng = np.random.default_rng(3)
    levels = rng.normal(0, 1, (40, 2, 4, 4)).astype(np.float32) + np.float32([[[[0]], [[9]]]])
    plain = rng.normal(5, 1, (40, 4, 4)).astype(np.float32)
    chosen = np.arange(40) < 25
    described = describe_period(
        {"t": kept(levels), "tp": kept(plain)},
        {"t"},
        chosen,
        "train",
        ["a", "b"],
    )
    t = described["variables"]["t"]
    assert t["count"] == 25 * 32
    assert t["channels"][1]["mean"] == pytest.approx(levels[:25, 1].astype(float).mean())
    assert "channels" not in described["variables"]["tp"]
    assert described["period"] == ["a", "b"]


def test_the_fingerprint_depends_on_numbers_but_not_on_the_order_of_keys():
    statistics = {"split": "train", "variables": {"t2m": {"mean": 280.0, "std": 5.0}}}
    reordered = {"variables": {"t2m": {"std": 5.0, "mean": 280.0}}, "split": "train"}
    changed = {"split": "train", "variables": {"t2m": {"mean": 280.0, "std": 5.0000000001}}}
    assert fingerprint(statistics) == fingerprint(reordered)
    assert fingerprint(statistics) != fingerprint(changed)
