"""Pure planning: an archive's index and options to a time axis, a layout and a table of shards.

Nothing here reads, writes or knows Ray. A shard's ``key`` names everything that its bytes depend
on, so that "is this shard still right?" is a comparison of two strings.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from pipelines.archives.archive import ArchiveIndex, SourceFile, Splits, VariableIndex
from pipelines.area_average import AreaAverage
from pipelines.errors import UsageError
from pipelines.regrid import CoarseGrid, regridded
from pipelines.shard import COMPRESSION
from pipelines.splits import Bounds, SplitChoice, choose_splits

CONVERTER_VERSION = "1"
"""raised when the same source and options give other bytes; older shards are then converted anew"""

MAX_CHUNK_FRAMES = 64
MAX_CHUNK_BYTES = 4 * 1024**2
MAX_SHARD_FRAMES = 4096
MAX_SHARD_BYTES = 32 * 1024**2


@dataclass(frozen=True)
class ConversionOptions:
    """What decides the content of a store, besides the source."""

    variables: tuple[str, ...] | None = None
    """kept variables, in this order; None: all"""
    chunk_frames: int | None = None
    """frames a chunk; None: at most 64 frames and 4 MiB"""
    shard_frames: int | None = None
    """frames a shard, a multiple of ``chunk_frames``; None: at most 4096 frames and 32 MiB"""
    splits: Bounds | None = None
    """first and last time of each split; None: the archive's protocol, or 70/10/20 by time"""
    slots_per_day: int | None = None
    """TaxiBJ layout only: slots of a day; None: found from the slots"""
    regrid: str | None = None
    """coarser grid by area average: degrees (``5.625``) or rows x columns (``32x64``); None: the
    source's own"""

    def __post_init__(self) -> None:
        if self.regrid is not None:
            CoarseGrid.parse(self.regrid)
        for name in ("chunk_frames", "shard_frames", "slots_per_day"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}", where=f"--{name}", remedy="give 1 or more")
        if self.chunk_frames and self.shard_frames and self.shard_frames % self.chunk_frames:
            raise UsageError(
                f"shard_frames {self.shard_frames} is no multiple of "
                f"chunk_frames {self.chunk_frames}",
                where="--shard_frames",
                remedy="a shard is a whole number of chunks: give for example "
                f"{math.ceil(self.shard_frames / self.chunk_frames) * self.chunk_frames}",
            )


@dataclass(frozen=True)
class VariableLayout:
    """One variable as an array of the store."""

    name: str
    dims: tuple[str, ...]
    """after time"""
    frame_shape: tuple[int, ...]
    """``(*extra, y, x)``"""
    frames: int
    chunk_frames: int
    shard_frames: int
    average: AreaAverage | None = None
    """from the source's grid to the store's; None: they are the same"""

    @property
    def shards(self) -> int:
        """Shards along time."""
        return math.ceil(self.frames / self.shard_frames)

    @property
    def channels(self) -> int:
        """Extra dimensions flattened: levels x members, or 1."""
        return math.prod(self.frame_shape[:-2])

    @property
    def pixels(self) -> int:
        """Pixels of one channel of one frame."""
        return math.prod(self.frame_shape[-2:])

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame as float32."""
        return 4 * math.prod(self.frame_shape)

    @property
    def source_frame_bytes(self) -> int:
        """Bytes of one frame as float32 on the source's grid."""
        grid = self.frame_shape[-2:] if self.average is None else self.average.fine_shape
        return 4 * math.prod((*self.frame_shape[:-2], *grid))

    def object_name(self, shard: int) -> str:
        """The shard's place in the store.

        >>> VariableLayout("t2m", ("y", "x"), (8, 8), 100, 16, 64).object_name(1)
        't2m/c/1/0/0'
        """
        return "/".join([self.name, "c", str(shard), *["0"] * len(self.frame_shape)])


@dataclass(frozen=True, eq=False)
class Segment:
    """Frames of a shard that come from one file."""

    file: SourceFile
    offset: np.ndarray
    """int64: place of each frame in the shard, increasing"""
    positions: np.ndarray
    """int64: index of each along the file's time axis"""

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary; indices as runs."""
        return {
            "file": self.file.to_json(),
            "offset": as_runs(self.offset),
            "positions": as_runs(self.positions),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Segment:
        """The inverse of :meth:`to_json`."""
        return cls(
            SourceFile(**data["file"]), from_runs(data["offset"]), from_runs(data["positions"])
        )


@dataclass(frozen=True, eq=False)
class ShardTask:
    """One unit of work: one output shard of one variable."""

    layout: VariableLayout
    shard: int
    start: int
    stop: int
    """frames of the time axis, half open"""
    segments: tuple[Segment, ...]
    key: str
    """sha256 of all that the shard's bytes depend on"""


@dataclass(frozen=True, eq=False)
class Plan:
    """What a conversion would make."""

    index: ArchiveIndex
    options: ConversionOptions
    """as resolved: nothing is None but splits, slots_per_day and regrid"""
    times: np.ndarray
    """int64 (frames,): regular inside each period"""
    layouts: tuple[VariableLayout, ...]
    tasks: tuple[ShardTask, ...]
    """in plan order: variable by variable, shard by shard"""
    held: Mapping[str, np.ndarray]
    """variable -> bool (frames,): the source has the frame"""
    splits: SplitChoice

    @property
    def raw_bytes(self) -> int:
        """Bytes of all values as float32."""
        return sum(layout.frame_bytes * layout.frames for layout in self.layouts)

    def configuration(self) -> dict[str, Any]:
        """The resolved options as the store keeps them."""
        data = asdict(self.options)
        data["variables"] = list(self.options.variables or ())
        if self.options.splits is not None:
            data["splits"] = {name: list(bounds) for name, bounds in self.options.splits.items()}
        return data

    def gaps(self) -> list[tuple[int, int, int]]:
        """Runs of frames that some variable lacks: first time, last time (seconds), frames."""
        return missing_runs(self.times, ~np.logical_and.reduce(list(self.held.values())))


def make_plan(
    index: ArchiveIndex, options: ConversionOptions, protocol_splits: Splits | None
) -> Plan:
    """The plan of a whole archive; the same index and options give the same plan."""
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
        )
        layouts.append(layout)
        rows = np.searchsorted(times, variable.times)
        held[variable.name] = np.zeros(len(times), bool)
        held[variable.name][rows] = True
        tasks.extend(_shard_tasks(layout, variable, rows, times, index))
    splits = choose_splits(times, protocol_splits, options.splits)
    return Plan(index, resolved, times, tuple(layouts), tuple(tasks), held, splits)


def time_axis(index: ArchiveIndex) -> np.ndarray:
    """Every step of every period, whether the source has it or not: int64 seconds."""
    step = index.cadence_seconds
    return np.concatenate([np.arange(a, b + 1, step, dtype=np.int64) for a, b in index.periods])


def resolve_frames(index: ArchiveIndex, options: ConversionOptions) -> tuple[int, int]:
    """Frames a chunk and a shard, the same for every variable and for any length of the archive."""
    frame_bytes = max(4 * math.prod(variable.shape) for variable in index.variables)
    chunk, shard = options.chunk_frames, options.shard_frames
    if chunk is None:
        chunk = min(MAX_CHUNK_FRAMES, _power_of_two(MAX_CHUNK_BYTES // frame_bytes))
        chunk = math.gcd(chunk, shard) if shard else chunk
    if shard is None:
        frames = min(MAX_SHARD_FRAMES, MAX_SHARD_BYTES // frame_bytes)
        shard = max(1, frames // chunk) * chunk
    return chunk, shard


def missing_runs(times: np.ndarray, missing: np.ndarray) -> list[tuple[int, int, int]]:
    """Runs of True in ``missing``: first time, last time, frames.

    >>> missing_runs(np.array([0, 60, 120, 180]), np.array([False, True, True, False]))
    [(60, 120, 2)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], missing.astype(np.int8), [0]])))
    return [
        (int(times[first]), int(times[end - 1]), int(end - first))
        for first, end in edges.reshape(-1, 2)
    ]


def as_runs(values: np.ndarray) -> list[list[int]]:
    """Increasing steps of one as ``[first, count]``.

    >>> as_runs(np.array([3, 4, 5, 9]))
    [[3, 3], [9, 1]]
    """
    breaks = np.flatnonzero(np.diff(values) != 1) + 1
    return [[int(run[0]), len(run)] for run in np.split(values, breaks) if len(run)]


def from_runs(runs: list[list[int]]) -> np.ndarray:
    """The inverse of :func:`as_runs`."""
    if not runs:
        return np.empty(0, np.int64)
    return np.concatenate([np.arange(first, first + n, dtype=np.int64) for first, n in runs])


def _power_of_two(value: int) -> int:
    return 1 << max(0, value.bit_length() - 1)


def _shard_tasks(
    layout: VariableLayout,
    variable: VariableIndex,
    rows: np.ndarray,
    times: np.ndarray,
    index: ArchiveIndex,
) -> list[ShardTask]:
    tasks = []
    for shard in range(layout.shards):
        start = shard * layout.shard_frames
        stop = min(start + layout.shard_frames, layout.frames)
        first, end = np.searchsorted(rows, [start, stop])
        files = variable.files[first:end]
        cuts = np.flatnonzero(np.diff(files)) + 1
        segments = tuple(
            Segment(
                index.files[int(files[run[0]])],
                rows[first:end][run] - start,
                variable.positions[first:end][run],
            )
            for run in np.split(np.arange(end - first), cuts)
            if len(run)
        )
        key = _key(layout, times[start:stop], segments)
        tasks.append(ShardTask(layout, shard, start, stop, segments, key))
    return tasks


def _key(layout: VariableLayout, times: np.ndarray, segments: tuple[Segment, ...]) -> str:
    sources = [segment.to_json() for segment in segments]
    for source in sources:
        # Where the archive lies is no part of its content: it may be mounted elsewhere tomorrow.
        source["file"]["uri"] = source["file"]["uri"].rsplit("/", 1)[-1]
    content = {
        "version": CONVERTER_VERSION,
        "compression": COMPRESSION,
        "variable": layout.name,
        "frame_shape": layout.frame_shape,
        "chunk_frames": layout.chunk_frames,
        "shard_frames": layout.shard_frames,
        "times": hashlib.sha256(times.astype("<i8").tobytes()).hexdigest(),
        "sources": sources,
    }
    if layout.average is not None:
        content["average"] = layout.average.digest()
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
