"""Time axes of very many frames, processed a part at a time."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from pipelines.archives import time_axis
from pipelines.archives.contents import ArchiveIndex, SourceFile, VariableIndex
from pipelines.conversion.options import ConversionOptions
from pipelines.conversion.plan import make_plan
from pipelines.errors import SourceError

FILE = SourceFile("/archive/a.nc", 100, "e")


def variable(times: np.ndarray, name: str = "t2m") -> VariableIndex:
    times, files, positions = time_axis.joined([(0, times)])
    return VariableIndex(name, ("y", "x"), (4, 4), {}, {}, times, files, positions)


def test_the_cadence_is_the_most_common_step_across_all_parts(
    monkeypatch: pytest.MonkeyPatch,
):
    times = np.cumsum([0, 1, 1, 3, 3, 3, 1, 3, 1, 1])
    monkeypatch.setattr(time_axis, "_PART", 4)
    assert time_axis.most_common_step(times, "a") == 1


def test_a_time_off_the_cadence_is_found_beyond_the_first_part(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(time_axis, "_PART", 4)
    times = np.array([0, 60, 120, 180, 240, 301])
    with pytest.raises(SourceError, match="1970-01-01T00:05:01 does not lie") as raised:
        time_axis.check_regular([variable(times)], [FILE], [(0, 301)], 60)
    assert raised.value.where == FILE.uri


def test_a_time_that_several_variables_have_is_listed_once():
    one, two = variable(np.array([0, 60, 120])), variable(np.array([60, 180]))
    assert time_axis.all_times([one, two]).tolist() == [0, 60, 120, 180]
    assert time_axis.all_times([one, one]) is one.times


def test_joined_times_keep_their_file_and_their_position():
    times, files, positions = time_axis.joined([(3, np.array([5, 6])), (1, np.array([9]))])
    assert (times.tolist(), files.tolist(), positions.tolist()) == ([5, 6, 9], [3, 3, 1], [0, 1, 0])


def test_a_plan_needs_few_bytes_per_frame():
    frames = 1_000_000
    index = ArchiveIndex(
        "era5",
        "title",
        (FILE,),
        (variable(np.arange(frames, dtype=np.int64) * 3600),),
        3600,
        ((0, (frames - 1) * 3600),),
    )
    splits = {"train": (0, 9), "validation": (10, 19), "test": (20, 29)}
    tracemalloc.start()
    try:
        plan = make_plan(index, ConversionOptions(chunk_frames=64, shard_frames=4096), splits)
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(segment.frames for task in plan.tasks for segment in task.segments) == frames
    # The times (8 bytes each) belong to the index; the plan adds one byte that marks held frames.
    assert kept < 4 * frames
    assert most < 10 * frames
