"""What a conversion will cost, from a few chunks that are decoded and encoded here and now."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from pipelines.archives import load_archive
from pipelines.archives.sources.cache import kept_copies
from pipelines.archives.sources.reading import reading
from pipelines.conversion.metadata import compose
from pipelines.conversion.plan import Plan, Segment, ShardTask
from pipelines.errors import SourceError
from pipelines.progress import Progress, ignore
from pipelines.stores.moments import NoMoments
from pipelines.stores.shards import ShardEncoder
from pipelines.stores.statistics import frame_moments

SAMPLED_CHUNKS = 8
"""of the whole archive; with more variables one of each, up to twice as many"""
_SAMPLE_BYTES = 32 * 1024**2
"""decoded frames of one sampled chunk at most"""


@dataclass(frozen=True)
class Estimate:
    """What converting a plan will take; measured on this machine, one processor, and scaled."""

    chunks: int
    """that were decoded and encoded"""
    chunks_unreadable: int
    """that could not be decoded"""
    bytes_stored: int
    """of all shards, once all are written"""
    ratio: float
    """raw bytes for one stored"""
    objects: int
    """of the whole store, without the ledger"""
    processor_seconds: float
    """to decode, encode and summarise what is still to be written"""
    processors: int
    """of this machine, at most one for each shard that is due"""
    seconds: float
    """on all of them at once, without starting Ray and without the network"""

    def as_dict(self) -> dict[str, Any]:
        """A plain dictionary."""
        return asdict(self)


def estimate(plan: Plan, due: Sequence[ShardTask], progress: Progress = ignore) -> Estimate | None:
    """Decode and encode a few chunks spread over the archive.

    Parameters
    ----------
    due:
        The shards that are still to be written.

    Returns
    -------
    None where no sampled chunk could be read.
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


@dataclass(frozen=True)
class _Measured:
    """One chunk that was decoded and encoded."""

    file: str
    bytes_source: int
    bytes_raw: int
    bytes_stored: int
    seconds_opening: float
    """until the first frame was there, less the time of a frame"""
    seconds: float
    """to decode, encode and summarise"""


def _measure(plan: Plan, task: ShardTask, segment: Segment) -> _Measured:
    layout, positions = task.layout, segment.positions
    decoder = load_archive(plan.index.archive).opener(plan.index.options)
    # A version of its own: of scans of this file that planning made and a decoder keeps, there is
    # none, as there is none in a worker.
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
    """Chunks of shards that have frames, at even distances from the first to the last."""
    filled = [task for task in plan.tasks if task.segments]
    wanted = min(max(SAMPLED_CHUNKS, len(plan.layouts)), 2 * SAMPLED_CHUNKS, _chunks(filled))
    places = (np.arange(wanted) + 0.5) * len(filled) / wanted
    samples = []
    for place in places:
        task = filled[int(place)]
        # Where in the shard: as far as the place is between this shard and the next.
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
    """Metadata and coordinates, counted by composing them for a store without values."""
    empty = {layout.name: NoMoments(1, layout.pixels) for layout in plan.layouts}
    return len(compose(plan, empty))
