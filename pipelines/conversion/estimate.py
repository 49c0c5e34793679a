"""Describe a conversion before it runs: what it will make, and what it will cost."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from pipelines import cf
from pipelines.archives import load_archive
from pipelines.archives.contents import VariableIndex
from pipelines.archives.sources.cache import kept_copies
from pipelines.archives.sources.reading import reading
from pipelines.conversion.metadata import compose
from pipelines.conversion.plan import Plan, Segment, ShardTask, VariableLayout
from pipelines.conversion.resume import due_tasks
from pipelines.conversion.static_plan import StaticTask
from pipelines.errors import SourceError
from pipelines.progress import Progress, ignore
from pipelines.stores.moments import NoMoments, frame_moments
from pipelines.stores.shards import ShardEncoder
from pipelines.stores.store import Store
from pipelines.timeline.clips import Clips
from pipelines.timeline.intervals import iso

SAMPLED_CHUNKS = 8
"""chunks that are decoded; with more variables one of each, up to twice as many"""
_SAMPLE_BYTES = 32 * 1024**2
"""largest size of the decoded frames of one sampled chunk"""


@dataclass(frozen=True)
class Estimate:
    """What a conversion will cost, measured on one processor of this machine and scaled."""

    chunks: int
    """chunks that were decoded and encoded"""
    chunks_unreadable: int
    """chunks that could not be decoded"""
    bytes_stored: int
    """bytes of all shards, once all are written"""
    ratio: float
    """raw bytes per stored byte"""
    objects: int
    """objects of the whole store, without the ledger"""
    processor_seconds: float
    """time of one processor to decode, encode and summarise what is still to be written"""
    processors: int
    """processors of this machine, at most one per shard that is due"""
    seconds: float
    """time on all of these processors, without starting Ray and without the network"""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a plain dictionary."""
        return asdict(self)


def estimate(plan: Plan, due: Sequence[ShardTask], progress: Progress = ignore) -> Estimate | None:
    """Estimate the cost from a few chunks of the archive that are decoded and encoded now.

    Parameters
    ----------
    due:
        The shards that are still to be written.

    Returns
    -------
    Estimate or None
        None if no sampled chunk could be read.
    """
    samples = _spread(plan)
    measured: list[_Measured] = []
    with kept_copies():
        for done, (task, segment) in enumerate(samples):
            progress(done, len(samples))
            with contextlib.suppress(SourceError):
                measured.append(_measure(plan, task, segment))
        progress(len(samples), len(samples))
    if not measured:
        return None
    ratio = sum(m.bytes_raw for m in measured) / sum(m.bytes_stored for m in measured)
    a_byte = sum(m.seconds for m in measured) / sum(m.bytes_source for m in measured)
    first_visits = {m.file: m.seconds_opening for m in reversed(measured)}
    segments = [(task.layout, segment) for task in due for segment in task.segments]
    work = float(np.mean(list(first_visits.values()))) * len(segments)
    work += a_byte * sum(x.source_frame_bytes * segment.frames for x, segment in segments)
    present = sum(x.frame_bytes * int(plan.held[x.name].sum()) for x in plan.layouts)
    processors = max(1, min(os.cpu_count() or 1, len(due)))
    return Estimate(
        chunks=len(measured),
        chunks_unreadable=len(samples) - len(measured),
        bytes_stored=round(present / ratio),
        ratio=ratio,
        objects=len(plan.tasks) + len(plan.static) + _other_objects(plan),
        processor_seconds=work,
        processors=processors,
        seconds=work / processors,
    )


def planned_store(plan: Plan, uri: str) -> Store:
    """Return the store that a plan would make, without values: frames of the source are ok."""
    flags = np.full(len(plan.times), cf.OK, np.uint8)
    for held in plan.held.values():
        flags[~held] = cf.MISSING_IN_SOURCE
    step = plan.index.cadence_seconds if plan.index.clips is None else plan.index.clips.step
    return Store(
        uri=uri,
        attributes={"splits": plan.splits_record(), "splits_embargo": plan.splits.embargo},
        times=plan.times.astype("datetime64[s]").astype("datetime64[ns]"),
        available=flags,
        cadence=np.timedelta64(step, "s"),
        variables={},
        coordinates={},
        clips=plan.index.clips,
    )


@dataclass(frozen=True)
class ClipsDescription:
    """The clips of an archive."""

    count: int
    frames: int
    """frames per clip"""
    offsets: tuple[int, ...]
    """time of each frame of a clip, see `pipelines.timeline.clips.Clips`"""


@dataclass(frozen=True)
class Gap:
    """A run of frames that cannot be used."""

    first: str
    last: str
    """time of a frame, or its clip and its place there"""
    frames: int
    why: str
    """one of `pipelines.cf.FLAG_MEANINGS`"""


@dataclass(frozen=True)
class PlannedVariable:
    """One variable of a planned store."""

    long_name: str
    units: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    shards: int
    missing_frames: int
    """frames that the source does not have"""


@dataclass(frozen=True)
class PlannedStaticField:
    """One static field of a planned store."""

    long_name: str
    units: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    file: str
    """URI of the file that holds the field"""
    missing_pixels_set_to: float | None
    """value for missing pixels; None: a missing pixel is an error"""


@dataclass(frozen=True)
class PlanDescription:
    """What a conversion would do. The JSON of `reprocess.py plan` has these fields."""

    archive: str
    title: str
    synthetic: bool
    """whether the source says that its data are made up"""
    store: str
    files: int
    """files of the source"""
    files_bytes: int
    periods: tuple[tuple[str, str], ...]
    """first and last time of each run of frames without a jump"""
    samples: ClipsDescription | None
    """the clips, if the archive is one of clips"""
    cadence_seconds: int | None
    """time between frames; None for clips without a time"""
    frames: int
    variables: Mapping[str, PlannedVariable]
    static_fields: Mapping[str, PlannedStaticField]
    chunk_frames: int | None
    """frames per chunk"""
    shard_frames: int | None
    """frames per shard"""
    shards: int
    shards_due: int
    """shards that are still to be written"""
    bytes_raw: int
    """bytes of all values as float32"""
    splits: Mapping[str, list[Any]]
    """first and last of each split: times, or numbers of clips"""
    splits_origin: str
    splits_embargo: bool
    gaps: tuple[Gap, ...]
    notes: tuple[str, ...]
    estimate: Estimate | None
    """cost of the conversion; None if no chunk could be read, or if it was not estimated"""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a plain dictionary."""
        return asdict(self)


def describe_plan(plan: Plan, store: str, cost: Estimate | None = None) -> PlanDescription:
    """Return what converting `plan` to `store` would do.

    Parameters
    ----------
    cost
        What `estimate` returned.
    """
    due, _ = due_tasks(plan, store)
    index = plan.index
    why = cf.FLAG_MEANINGS[cf.MISSING_IN_SOURCE]
    return PlanDescription(
        archive=index.archive,
        title=index.title,
        synthetic=index.synthetic,
        store=store,
        files=len(index.files),
        files_bytes=sum(file.size for file in index.files),
        periods=tuple((iso(first), iso(last)) for first, last in index.periods),
        samples=describe_clips(index.clips),
        cadence_seconds=plan.cadence_seconds,
        frames=len(plan.times),
        variables={
            variable.name: _describe_variable(plan, variable, layout)
            for variable, layout in zip(index.variables, plan.layouts, strict=True)
        },
        static_fields={task.name: _describe_static(task) for task in plan.static},
        chunk_frames=plan.options.chunk_frames,
        shard_frames=plan.options.shard_frames,
        shards=len(plan.tasks),
        shards_due=len(due),
        bytes_raw=plan.raw_bytes,
        splits=plan.splits_record(),
        splits_origin=plan.splits.origin,
        splits_embargo=plan.splits.embargo,
        gaps=tuple(
            Gap(plan.label(first), plan.label(last), frames, why)
            for first, last, frames in plan.gaps()
        ),
        notes=tuple(index.notes),
        estimate=cost,
    )


def _describe_variable(
    plan: Plan, variable: VariableIndex, layout: VariableLayout
) -> PlannedVariable:
    attributes = cf.variable_attributes(variable.name, variable.attributes)
    return PlannedVariable(
        long_name=attributes.get("long_name", variable.name),
        units=str(attributes.get("units", "")),
        dims=layout.array_dims,
        shape=layout.array_shape(layout.frames),
        shards=layout.shards,
        missing_frames=int((~plan.held[variable.name]).sum()),
    )


def _describe_static(task: StaticTask) -> PlannedStaticField:
    return PlannedStaticField(
        long_name=task.attributes.get("long_name", task.name),
        units=str(task.attributes.get("units", "")),
        dims=tuple(task.variable.dims),
        shape=task.shape,
        file=task.variable.file.uri,
        missing_pixels_set_to=task.fill,
    )


def describe_clips(clips: Clips | None) -> ClipsDescription | None:
    """Return number, length and frame offsets of clips; None if there are no clips."""
    if clips is None:
        return None
    return ClipsDescription(len(clips.ids), clips.frames, tuple(clips.offsets.tolist()))


@dataclass(frozen=True)
class _Measured:
    """The cost of one chunk that was decoded and encoded."""

    file: str
    bytes_source: int
    bytes_raw: int
    bytes_stored: int
    seconds_opening: float
    """time to open the file and reach its first frame"""
    seconds: float
    """time to decode, encode and summarise the frames"""


def _measure(plan: Plan, task: ShardTask, segment: Segment) -> _Measured:
    layout, positions = task.layout, segment.positions
    decoder = load_archive(plan.index.archive).opener(plan.index.options)
    # A different etag makes the decoder ignore what planning already read of this file, so that the
    # timing is that of a fresh worker.
    fresh = replace(segment.file, etag=f"{segment.file.etag} estimate")
    began = time.perf_counter()
    with reading(segment.file) as path, decoder(path, fresh) as decode:
        decode(layout.name, positions[:1])
        opened = time.perf_counter()
        frames = decode(layout.name, positions)
    if layout.average is not None:
        frames = layout.average(frames).astype(np.float32)
    encoder = ShardEncoder(layout.frame_shape, len(frames), len(frames))
    encoder.add(frames)
    stored = sum(map(len, encoder.finish()))
    frame_moments(frames)
    seconds = time.perf_counter() - opened
    return _Measured(
        file=segment.file.uri,
        bytes_source=layout.source_frame_bytes * len(positions),
        bytes_raw=frames.nbytes,
        bytes_stored=stored,
        seconds_opening=max(0.0, opened - began - seconds / len(positions)),
        seconds=seconds,
    )


def _spread(plan: Plan) -> list[tuple[ShardTask, Segment]]:
    """Return chunks that have frames, at even distances from the first shard to the last."""
    filled = [task for task in plan.tasks if task.segments]
    wanted = min(max(SAMPLED_CHUNKS, len(plan.layouts)), 2 * SAMPLED_CHUNKS, _chunks(filled))
    places = (np.arange(wanted) + 0.5) * len(filled) / wanted
    samples = []
    for place in places:
        task = filled[int(place)]
        # The fraction of the place says where in the shard the chunk is.
        segment = task.segments[int((place % 1.0) * len(task.segments))]
        layout = task.layout
        fitting = max(1, _SAMPLE_BYTES // layout.source_frame_bytes)
        frames = min(layout.chunk_frames, fitting, segment.frames)
        first = int((place % 1.0) * (segment.frames - frames))
        samples.append((task, segment.part(first, first + frames)))
    return samples


def _chunks(tasks: Sequence[ShardTask]) -> int:
    return sum(-(-(task.stop - task.start) // task.layout.chunk_frames) for task in tasks)


def _other_objects(plan: Plan) -> int:
    """Return the number of other objects: compose them for a store without values, and count."""
    empty = {layout.name: NoMoments(1, layout.pixels) for layout in plan.layouts}
    return len(compose(plan, empty))
