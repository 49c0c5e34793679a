"""The sample and the timeline from which a store's figures are drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from pipelines.audit.sample import sample_frames, timeline
from pipelines.cf import FLAG_MEANINGS
from pipelines.errors import UsageError
from pipelines.stores.store import Store

HOURS = 240
SPLITS = {
    "train": ("2015-01-01T00", "2015-01-07T23"),
    "test": ("2015-01-08T00", "2015-01-10T23"),
}


def hours(
    folder: Path, write_store: Callable[..., Store], flags: dict[int, int] | None = None, **options
) -> Store:
    """Write ten days of hours; every pixel of a frame is the number of its hour."""
    available = np.zeros(HOURS, "u1")
    for frame, flag in (flags or {}).items():
        available[frame] = flag
    values = np.broadcast_to(np.arange(HOURS, dtype="f4")[:, None, None], (HOURS, 3, 4))
    options = {"available": available, "splits": SPLITS} | options
    return write_store(folder / "s", {"t2m": values.copy()}, **options)


def test_sampled_frames_are_usable_and_in_the_train_period(
    tmp_path: Path, write_store: Callable[..., Store]
):
    missing = dict.fromkeys(range(20, 60), 1)
    store = hours(tmp_path, write_store, missing)
    sample = sample_frames(store, "t2m", frames=30)
    assert len(sample.frames) == 30
    assert set(sample.frames).isdisjoint(missing)
    assert sample.frames.max() < 168
    assert (np.diff(sample.frames) > 0).all()
    np.testing.assert_array_equal(sample.values_nchw[:, 0, 0, 0], sample.frames)
    np.testing.assert_allclose(sample.mean_chw, sample.frames.mean())
    assert (sample.last, sample.last_chw[0, 0, 0]) == (239, 239.0)


def test_a_sample_has_different_hours_of_the_day(tmp_path: Path, write_store: Callable[..., Store]):
    # Seven even distances over seven days would all be midnight.
    sample = sample_frames(hours(tmp_path, write_store), "t2m", frames=7)
    assert (sample.frames // 24).tolist() == list(range(7))
    assert len(set(sample.frames % 24)) > 3


def test_the_same_seed_gives_the_same_sample(tmp_path: Path, write_store: Callable[..., Store]):
    store = hours(tmp_path, write_store)
    first, again = (sample_frames(store, "t2m", frames=9).frames.tolist() for _ in range(2))
    assert first == again
    assert sample_frames(store, "t2m", frames=9, seed=1).frames.tolist() != first


def test_the_last_frame_is_the_last_usable_one(tmp_path: Path, write_store: Callable[..., Store]):
    store = hours(tmp_path, write_store, {238: 1, 239: 2})
    assert sample_frames(store, "t2m", frames=3).last == 237


def test_a_store_without_a_usable_frame_raises(tmp_path: Path, write_store: Callable[..., Store]):
    store = hours(tmp_path, write_store, dict.fromkeys(range(HOURS), 1))
    with pytest.raises(UsageError, match="no frame of the store can be used"):
        sample_frames(store, "t2m")


def test_a_timeline_counts_every_frame_once_by_its_state(
    tmp_path: Path, write_store: Callable[..., Store]
):
    store = hours(tmp_path, write_store, {24: 1, 25: 1, 26: 2, 200: 3})
    found = timeline(store, bins=10)
    assert found.frames.tolist() == [24] * 10
    counts = found.shares * found.frames
    by_state = {state: counts[number].tolist() for number, state in enumerate(FLAG_MEANINGS)}
    assert by_state["missing_in_source"][1] == pytest.approx(2)
    assert by_state["unreadable"][1] == pytest.approx(1)
    assert by_state["out_of_range"][8] == pytest.approx(1)
    assert counts.sum() == pytest.approx(HOURS)
    np.testing.assert_allclose(found.shares.sum(axis=0), 1)


def test_no_stretch_of_a_timeline_crosses_a_jump_in_time(
    tmp_path: Path, write_store: Callable[..., Store]
):
    times = np.datetime64("2015-01-01T00", "s") + np.arange(HOURS) * np.timedelta64(3600, "s")
    times[100:] += np.timedelta64(365, "D")
    found = timeline(hours(tmp_path, write_store, times=times), bins=4)
    assert found.first.tolist() == [0, 60, 100, 160, 220]
    assert found.frames.tolist() == [60, 40, 60, 60, 20]


def test_missing_pixels_of_a_timeline_are_those_of_usable_frames(
    tmp_path: Path, write_store: Callable[..., Store]
):
    store = hours(tmp_path, write_store, dict.fromkeys(range(24, 48), 1))
    fractions = zarr.open_group(tmp_path / "s")["missing_fraction"]
    assert isinstance(fractions, zarr.Array)
    fractions[:48] = 0.5
    found = timeline(store, bins=10).missing_pixels
    assert found[0] == pytest.approx(0.5)
    assert np.isnan(found[1])
    assert found[2] == 0
