"""Plans: time axis, layout, and which shards change with the source."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.archives.contents import ArchiveIndex, SourceFile, VariableIndex
from pipelines.conversion.options import ConversionOptions
from pipelines.conversion.plan import Plan, make_plan
from pipelines.errors import UsageError
from pipelines.timeline.intervals import as_runs, from_runs

HOUR = 3600
SMALL = ConversionOptions(chunk_frames=4, shard_frames=8)


def index(
    files: dict[str, list[int]], *, shape: tuple[int, ...] = (4, 6), changed: str = ""
) -> ArchiveIndex:
    """Return the index of an archive whose files hold the given hours."""
    sources = tuple(
        SourceFile(f"/archive/{name}", 100, "new" if name == changed else "old") for name in files
    )
    rows = sorted(
        (hour * HOUR, number, position)
        for number, hours in enumerate(files.values())
        for position, hour in enumerate(hours)
    )
    times, numbers, positions = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    variable = VariableIndex(
        "t2m", ("y", "x"), shape, {}, {}, times, numbers.astype(np.int32), positions
    )
    period = (int(times[0]), int(times[-1]))
    return ArchiveIndex("era5", "title", sources, (variable,), HOUR, (period,))


def plan(files: dict[str, list[int]], **options) -> Plan:
    return make_plan(index(files, **options), SMALL, None)


def keys(planned: Plan) -> list[str]:
    return [task.key for task in planned.tasks]


def test_every_frame_of_the_source_has_exactly_one_place():
    planned = plan({"a": [0, 1, 2, 5], "b": [12, 11, 10], "c": [20]})
    found = []
    for task in planned.tasks:
        assert task.start == task.shard * 8
        for segment in task.segments:
            for offset, position in zip(segment.offset, segment.positions, strict=True):
                time = planned.times[task.start + offset]
                found.append((int(time) // HOUR, segment.file.name, int(position)))
    assert sorted(found) == [
        *((0, "a", 0), (1, "a", 1), (2, "a", 2), (5, "a", 3)),
        *((10, "b", 2), (11, "b", 1), (12, "b", 0), (20, "c", 0)),
    ]


def test_gaps_are_frames_that_are_missing_in_the_source():
    planned = plan({"a": [0, 1, 2, 5], "b": [6, 7]})
    assert len(planned.times) == 8
    assert planned.gaps() == [(3, 4, 2)]


def test_a_longer_archive_changes_only_the_last_shard():
    before = plan({"a": list(range(20))})
    after = plan({"a": list(range(20)), "b": list(range(20, 40))})
    assert keys(after)[:2] == keys(before)[:2]
    assert keys(after)[2] != keys(before)[2]
    assert len(keys(after)) == 5


def test_a_late_file_changes_only_the_shards_with_its_frames():
    days = {"a": list(range(8)), "c": list(range(16, 24)), "d": list(range(24, 32))}
    before, after = plan(days), plan(days | {"b": list(range(8, 16))})
    differing = [
        i
        for i, pair in enumerate(zip(keys(before), keys(after), strict=True))
        if pair[0] != pair[1]
    ]
    assert differing == [1]


def test_a_file_that_changed_changes_its_shards():
    days = {"a": list(range(8)), "b": list(range(8, 16))}
    assert keys(plan(days, changed="b"))[0] == keys(plan(days))[0]
    assert keys(plan(days, changed="b"))[1] != keys(plan(days))[1]


def test_moving_an_archive_does_not_change_the_keys():
    here = index({"a": list(range(8))})
    moved = tuple(SourceFile("/elsewhere/a", f.size, f.etag) for f in here.files)
    there = ArchiveIndex("era5", "title", moved, here.variables, HOUR, here.periods)
    assert keys(make_plan(here, SMALL, None)) == keys(make_plan(there, SMALL, None))


@pytest.mark.parametrize(
    ("shape", "chunk", "shard"),
    [
        ((32, 64), 64, 4096),
        ((2, 16, 8), 64, 4096),
        ((721, 1440), 1, 8),
        ((10, 2, 61, 120), 4, 56),
    ],
)
def test_chunks_and_shards_are_sized_for_object_storage(shape, chunk: int, shard: int):
    planned = make_plan(index({"a": [0, 1, 2]}, shape=shape), ConversionOptions(), None)
    assert (planned.options.chunk_frames, planned.options.shard_frames) == (chunk, shard)


def test_a_given_shard_size_is_kept_and_chunks_divide_it():
    planned = make_plan(index({"a": [0, 1, 2]}), ConversionOptions(shard_frames=96), None)
    assert (planned.options.chunk_frames, planned.options.shard_frames) == (32, 96)


def test_a_shard_of_a_fractional_number_of_chunks_is_an_error():
    with pytest.raises(UsageError, match="not a multiple") as refused:
        ConversionOptions(chunk_frames=48, shard_frames=100)
    assert "144" in str(refused.value.remedy)


@pytest.mark.parametrize("name", ["chunk_frames", "shard_frames"])
def test_sizes_below_one_are_an_error(name: str):
    with pytest.raises(UsageError, match=name):
        ConversionOptions(**{name: 0})


@settings(max_examples=50, deadline=None)
@given(st.sets(st.integers(0, 200)))
def test_runs_stand_for_the_same_numbers(values: set[int]):
    ordered = np.array(sorted(values), np.int64)
    np.testing.assert_array_equal(from_runs(as_runs(ordered)), ordered)
