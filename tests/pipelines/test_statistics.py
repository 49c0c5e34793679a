"""Moments of frames, and their reduction."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.statistics import (
    COUNT,
    MAX,
    MIN,
    NANS,
    describe_period,
    fingerprint,
    frame_moments,
    reduce_moments,
)


def test_the_statistics_are_those_of_the_values_in_double_precision():
    frames = np.random.default_rng(0).normal(280, 10, (300, 3, 9, 11)).astype(np.float32)
    summary = reduce_moments(frame_moments(frames))
    exact = frames.astype(np.float64)
    assert summary["count"] == frames.size
    assert summary["mean"] == pytest.approx(exact.mean(), rel=1e-13)
    assert summary["std"] == pytest.approx(exact.std(), rel=1e-12)
    assert (summary["min"], summary["max"]) == (frames.min(), frames.max())


def test_a_tiny_spread_far_from_zero_keeps_its_digits():
    frames = (1e5 + np.random.default_rng(1).normal(0, 0.05, (50, 8, 8))).astype(np.float32)
    summary = reduce_moments(frame_moments(frames))
    assert summary["std"] == pytest.approx(frames.astype(np.float64).std(), rel=1e-9)


def test_missing_pixels_are_counted_and_left_out():
    frames = np.random.default_rng(2).normal(size=(20, 6, 6)).astype(np.float32)
    frames[3, :2] = np.nan
    frames[7] = np.nan
    moments = frame_moments(frames)
    summary = reduce_moments(moments)
    exact = frames.astype(np.float64)
    assert (summary["count"], summary["nan_count"]) == (20 * 36 - 48, 48)
    assert summary["mean"] == pytest.approx(np.nanmean(exact), rel=1e-13)
    assert summary["std"] == pytest.approx(np.nanstd(exact), rel=1e-12)
    assert moments[7, 0, COUNT] == 0
    assert moments[7, 0, NANS] == 36
    assert np.isnan(moments[7, 0, MIN])


def test_an_infinite_value_shows_as_the_maximum():
    frames = np.zeros((2, 3, 3), np.float32)
    frames[1, 1, 1] = np.inf
    assert frame_moments(frames)[1, 0, MAX] == np.inf


def test_without_any_value_there_is_no_mean():
    summary = reduce_moments(frame_moments(np.full((2, 3, 3), np.nan, np.float32)))
    assert summary == {"count": 0, "nan_count": 18, "mean": None, "std": None} | {
        "min": None,
        "max": None,
    }


@settings(max_examples=30, deadline=None)
@given(cut=st.integers(1, 199), seed=st.integers(0, 100))
def test_where_shards_are_cut_does_not_change_a_bit(cut: int, seed: int):
    frames = np.random.default_rng(seed).normal(280, 5, (200, 5, 7)).astype(np.float32)
    whole = reduce_moments(frame_moments(frames))
    parts = np.concatenate([frame_moments(frames[:cut]), frame_moments(frames[cut:])])
    assert reduce_moments(parts) == whole


def test_statistics_cover_the_chosen_frames_and_describe_each_level():
    rng = np.random.default_rng(3)
    levels = rng.normal(0, 1, (40, 2, 4, 4)).astype(np.float32) + np.float32([[[[0]], [[9]]]])
    plain = rng.normal(5, 1, (40, 4, 4)).astype(np.float32)
    chosen = np.arange(40) < 25
    described = describe_period(
        {"t": frame_moments(levels), "tp": frame_moments(plain)},
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


def test_the_fingerprint_changes_with_any_number_and_not_with_the_order_of_keys():
    statistics = {"split": "train", "variables": {"t2m": {"mean": 280.0, "std": 5.0}}}
    reordered = {"variables": {"t2m": {"std": 5.0, "mean": 280.0}}, "split": "train"}
    changed = {"split": "train", "variables": {"t2m": {"mean": 280.0, "std": 5.0000000001}}}
    assert fingerprint(statistics) == fingerprint(reordered)
    assert fingerprint(statistics) != fingerprint(changed)
