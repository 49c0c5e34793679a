"""Plan a conversion: from an archive's index and options to a time axis, a layout and shards.

Planning is pure: nothing here reads, writes or knows Ray. The `key` of a shard is a digest of
everything that its bytes depend on, so that comparing two strings tells whether a shard is still
right.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from pipelines.archives.contents import ArchiveIndex, SourceFile, VariableIndex
from pipelines.area_average import AreaAverage
from pipelines.conversion.options import ConversionOptions
from pipelines.conversion.regrid import regridded
from pipelines.conversion.static_plan import StaticTask
from pipelines.errors import UsageError
from pipelines.stores.shards import COMPRESSION, CONVERTER_VERSION, object_name
from pipelines.timeline.intervals import from_runs, iso, run_table, true_runs
from pipelines.timeline.splits import SplitChoice, Splits, choose_splits

# A random window reads whole chunks, so chunks are small. A shard is one object, one ledger record
# and the unit of resuming, so shards are as large as a worker can hold in memory.
MAX_CHUNK_FRAMES = 64
MAX_CHUNK_BYTES = 4 * 1024**2
MAX_SHARD_FRAMES = 4096
MAX_SHARD_BYTES = 32 * 1024**2


@dataclass(frozen=True)
class VariableLayout:
    """One variable as an array of the store."""

    name: str
    dims: tuple[str, ...]
    """dimensions after time"""
    frame_shape: tuple[int, ...]
    """`(*extra, y, x)`"""
    frames: int
    """frames of the time axis"""
    chunk_frames: int
    """frames per chunk"""
    shard_frames: int
    """frames per shard"""
    average: AreaAverage | None = None
    """average from the source's grid to the store's; None: the grids are the same"""
    clip_frames: int | None = None
    """frames per clip, if the array is `(sample, time, ...)`; the sizes above are whole clips then,
    but still counted in frames"""

    @property
    def shards(self) -> int:
        """The number of shards along time."""
        return math.ceil(self.frames / self.shard_frames)

    @property
    def channels(self) -> int:
        """The number of extra entries (levels x members), or 1."""
        return math.prod(self.frame_shape[:-2])

    @property
    def pixels(self) -> int:
        """The number of pixels of one channel of one frame."""
        return math.prod(self.frame_shape[-2:])

    @property
    def frame_bytes(self) -> int:
        """The bytes of one frame as float32."""
        return 4 * math.prod(self.frame_shape)

    @property
    def source_frame_shape(self) -> tuple[int, ...]:
        """`(*extra, y, x)` on the source's grid."""
        grid = self.frame_shape[-2:] if self.average is None else self.average.fine_shape
        return (*self.frame_shape[:-2], *grid)

    @property
    def source_frame_bytes(self) -> int:
        """The bytes of one frame as float32 on the source's grid."""
        return 4 * math.prod(self.source_frame_shape)

    @property
    def array_dims(self) -> tuple[str, ...]:
        """The dimensions of the array in the store."""
        return (*(("time",) if self.clip_frames is None else ("sample", "time")), *self.dims)

    def array_shape(self, frames: int) -> tuple[int, ...]:
        """Return the shape of that many frames in the array; whole clips if there are clips."""
        clip = self.clip_frames
        head = (frames,) if clip is None else (frames // clip, clip)
        return (*head, *self.frame_shape)

    def object_name(self, shard: int) -> str:
        """Return the name of a shard in the store.

        >>> VariableLayout("t2m", ("y", "x"), (8, 8), 100, 16, 64).object_name(1)
        't2m/c/1/0/0'
        """
        return object_name(self.name, shard, len(self.array_dims))


@dataclass(frozen=True, eq=False)
class Segment:
    """The frames of a shard that come from one file, kept as runs because they are many."""

    file: SourceFile
    offset_runs: np.ndarray
    position_runs: np.ndarray
    """int64 (runs, 2), see `pipelines.timeline.intervals.run_table`"""

    @classmethod
    def of(cls, file: SourceFile, offset: np.ndarray, positions: np.ndarray) -> Segment:
        """Return a segment: frames at `offset` in the shard and at `positions` in the file."""
        return cls(file, run_table(offset), run_table(positions))

    @property
    def frames(self) -> int:
        """The number of frames."""
        return int(self.offset_runs[:, 1].sum())

    @property
    def offset(self) -> np.ndarray:
        """The place of each frame in the shard, int64 (frames,), increasing."""
        return from_runs(self.offset_runs)

    @property
    def positions(self) -> np.ndarray:
        """The index of each frame along the file's time axis, int64 (frames,)."""
        return from_runs(self.position_runs)

    def part(self, first: int, end: int) -> Segment:
        """Return frames [first, end) of the segment, counted from its own first frame."""
        return Segment.of(self.file, self.offset[first:end], self.positions[first:end])

    def as_dict(self) -> dict[str, Any]:
        """Return a plain dictionary, with the indices as runs."""
        return {
            "file": self.file.as_dict(),
            "offset": self.offset_runs.tolist(),
            "positions": self.position_runs.tolist(),
        }


@dataclass(frozen=True, eq=False)
class ShardTask:
    """One unit of work: one output shard of one variable."""

    layout: VariableLayout
    shard: int
    start: int
    stop: int
    """frames [start, stop) of the time axis"""
    segments: tuple[Segment, ...]
    key: str
    """sha256 of everything that the shard's bytes depend on"""


@dataclass(frozen=True, eq=False)
class Plan:
    """What a conversion will make."""

    index: ArchiveIndex
    options: ConversionOptions
    """the options with all defaults filled in; only splits and regrid may be None"""
    times: np.ndarray
    """int64 (frames,) seconds since 1970, regular inside each period"""
    layouts: tuple[VariableLayout, ...]
    tasks: tuple[ShardTask, ...]
    """in plan order: variable by variable, shard by shard"""
    held: Mapping[str, np.ndarray]
    """variable -> bool (frames,): whether the source has the frame"""
    splits: SplitChoice
    static: tuple[StaticTask, ...] = ()
    """fields that do not change with time"""

    @property
    def raw_bytes(self) -> int:
        """The bytes of all values as float32."""
        return sum(layout.frame_bytes * layout.frames for layout in self.layouts)

    def configuration(self) -> dict[str, Any]:
        """Return the options as the store keeps them."""
        data = asdict(self.options)
        data["variables"] = list(self.options.variables or ())
        if not self.options.static_fields:
            del data["static_fields"]
        if self.options.splits is not None:
            data["splits"] = {name: list(bounds) for name, bounds in self.options.splits.items()}
        return data

    @property
    def cadence_seconds(self) -> int | None:
        """The time between frames (of a clip: its first two); None for clips without a time."""
        clips = self.index.clips
        return None if clips is not None and not clips.timed else self.index.cadence_seconds

    def splits_record(self) -> dict[str, list[Any]]:
        """Return first and last of each split for the store: ISO times, or numbers of clips."""
        shown: Callable[[int], Any] = iso if self.index.clips is None else int
        return {name: [shown(a), shown(b)] for name, (a, b) in self.splits.splits.items()}

    @property
    def train_frames(self) -> np.ndarray:
        """Whether each frame is in the train split, bool (frames,)."""
        if self.index.clips is not None:
            begin, end = self.index.clips.frame_range("train")
            rows = np.arange(len(self.times))
            return (rows >= begin) & (rows < end)
        first, last = self.splits.splits["train"]
        return (self.times >= first) & (self.times <= last)

    def label(self, frame: int) -> str:
        """Return the name of a frame for messages: its time, or its clip and its place there."""
        clips = self.index.clips
        return iso(int(self.times[frame])) if clips is None else clips.label(frame)

    def gaps(self) -> list[tuple[int, int, int]]:
        """Return runs of frames that are missing for some variable: first, last and length."""
        return true_runs(~np.logical_and.reduce(list(self.held.values())))


def make_plan(
    index: ArchiveIndex, options: ConversionOptions, protocol_splits: Splits | None
) -> Plan:
    """Return the plan of a whole archive; the same index and options give the same plan.

    Parameters
    ----------
    protocol_splits
        Splits that the archive's protocol prescribes; None if it prescribes none.
    """
    averages: Mapping[str, AreaAverage] = {}
    if options.regrid is not None:
        index, averages = regridded(index, options.regrid)
    times = time_axis(index)
    chunk_frames, shard_frames = resolve_frames(index, options)
    resolved = replace(
        options,
        variables=tuple(variable.name for variable in index.variables),
        chunk_frames=chunk_frames,
        shard_frames=shard_frames,
        archive_options=dict(index.options),
    )
    layouts, tasks, held = [], [], {}
    for variable in index.variables:
        layout = VariableLayout(
            variable.name,
            variable.dims,
            variable.shape,
            len(times),
            chunk_frames,
            shard_frames,
            averages.get(variable.name),
            index.clips.frames if index.clips is not None else None,
        )
        layouts.append(layout)
        held[variable.name] = np.zeros(len(times), bool)
        tasks.extend(_shard_tasks(layout, variable, held[variable.name], times, index))
    splits = _splits(index, times, protocol_splits, options)
    # From here on the tasks say where each frame lies, as runs.
    index = replace(index, variables=tuple(v.without_frames() for v in index.variables))
    return Plan(index, resolved, times, tuple(layouts), tuple(tasks), held, splits)


def time_axis(index: ArchiveIndex) -> np.ndarray:
    """Return every step of every period, int64 seconds, including steps without a frame."""
    if index.clips is not None:
        return index.clips.axis()
    step = index.cadence_seconds
    frames = [(last - first) // step + 1 for first, last in index.periods]
    complete = (
        variable.times for variable in index.variables if len(variable.times) == sum(frames)
    )
    if (times := next(complete, None)) is not None:
        return times
    return np.concatenate([np.arange(a, b + 1, step, dtype=np.int64) for a, b in index.periods])


def resolve_frames(index: ArchiveIndex, options: ConversionOptions) -> tuple[int, int]:
    """Return frames per chunk and per shard.

    They are the same for every variable, and do not depend on the length of the archive: a store
    that grows keeps them.
    """
    frame_bytes = max(4 * math.prod(variable.shape) for variable in index.variables)
    chunk, shard = options.chunk_frames, options.shard_frames
    if index.clips is not None:
        index.clips.check_sizes(chunk_frames=chunk, shard_frames=shard)
    if chunk is None:
        clip = index.clips.frames if index.clips is not None else 1
        chunk = min(MAX_CHUNK_FRAMES, _power_of_two(MAX_CHUNK_BYTES // frame_bytes))
        chunk = max(1, chunk // clip) * clip
        chunk = math.gcd(chunk, shard) if shard else chunk
    if shard is None:
        frames = min(MAX_SHARD_FRAMES, MAX_SHARD_BYTES // frame_bytes)
        shard = max(1, frames // chunk) * chunk
    return chunk, shard


def _splits(
    index: ArchiveIndex, times: np.ndarray, protocol: Splits | None, options: ConversionOptions
) -> SplitChoice:
    if index.clips is None:
        return choose_splits(times, protocol, options.splits)
    if options.splits is not None:
        raise UsageError(
            "clips have no times to split by",
            where="--splits",
            remedy="leave it out: the archive's own lists and options say which clips are held out",
        )
    return SplitChoice(dict(index.clips.splits), "protocol")


def _power_of_two(value: int) -> int:
    return 1 << max(0, value.bit_length() - 1)


def _shard_tasks(
    layout: VariableLayout,
    variable: VariableIndex,
    held: np.ndarray,
    times: np.ndarray,
    index: ArchiveIndex,
) -> list[ShardTask]:
    """Return the variable's shards, and set `held` where the source has a frame of `times`."""
    tasks = []
    for shard in range(layout.shards):
        start = shard * layout.shard_frames
        stop = min(start + layout.shard_frames, layout.frames)
        first = np.searchsorted(variable.times, times[start])
        end = np.searchsorted(variable.times, times[stop - 1], side="right")
        rows = np.searchsorted(times[start:stop], variable.times[first:end])
        held[start:stop][rows] = True
        files, positions = variable.files[first:end], variable.positions[first:end]
        cuts = np.flatnonzero(np.diff(files)) + 1
        segments = tuple(
            Segment.of(index.files[int(files[run[0]])], rows[run], positions[run])
            for run in np.split(np.arange(end - first), cuts)
            if len(run)
        )
        key = _key(layout, times[start:stop], segments, index.options)
        tasks.append(ShardTask(layout, shard, start, stop, segments, key))
    return tasks


def _key(
    layout: VariableLayout,
    times: np.ndarray,
    segments: tuple[Segment, ...],
    options: Mapping[str, Any],
) -> str:
    sources = [segment.as_dict() for segment in segments]
    for source, segment in zip(sources, segments, strict=True):
        # The place of the archive is not part of its content: it may be mounted elsewhere tomorrow.
        source["file"]["uri"] = segment.file.name
    content = {
        "version": CONVERTER_VERSION,
        "compression": COMPRESSION,
        "variable": layout.name,
        "frame_shape": layout.frame_shape,
        "chunk_frames": layout.chunk_frames,
        "shard_frames": layout.shard_frames,
        "times": hashlib.sha256(np.ascontiguousarray(times, "<i8").data).hexdigest(),
        "sources": sources,
    }
    if layout.average is not None:
        content["average"] = layout.average.digest()
    if options:
        content["options"] = dict(options)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
