"""Make shards in a worker: decode the frames, encode them, write the shard, then its record.

Field values exist only here. The driver gets the ledger records.
"""

from __future__ import annotations

import datetime
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np

from pipelines.archives import load_archive
from pipelines.archives.contents import Decode, SourceFile
from pipelines.archives.sources.cache import SourceCache
from pipelines.archives.sources.reading import reading
from pipelines.conversion.plan import Segment, ShardTask
from pipelines.errors import SourceError, UnreadableError
from pipelines.storage import places
from pipelines.storage.lease import Permit
from pipelines.storage.retry import Retry, retrying
from pipelines.stores.ledger import Ledger, ShardRecord
from pipelines.stores.moments import frame_moments
from pipelines.stores.shards import CONVERTER_VERSION, ShardEncoder

T = TypeVar("T")

_log = logging.getLogger(__name__)
_UPLOADS = 16
"""largest number of shards that a worker uploads at the same time"""
_UPLOAD_BYTES = 320 * 1024**2
"""largest size of these shards together, unless a single shard is larger"""
_RUN_BYTES = 2 * 1024**2
"""bytes of float32 frames that are decoded at a time: they stay in the cache until they are
encoded, and the allocator reuses their memory instead of asking the system for more"""


@dataclass(frozen=True)
class Destination:
    """Where shards are written to, and by whom."""

    store: str
    archive: str
    """name of the archive"""
    owner: str
    """user, host and process, for the records"""
    options: Mapping[str, Any] = field(default_factory=dict)
    """options of the archive, with its defaults filled in"""
    cache: SourceCache = field(default_factory=lambda: SourceCache(limit_bytes=0))
    """local copies of remote sources, which are kept from shard to shard"""
    storage_wait: float = 0.0
    """seconds that an object storage may be away before a shard fails"""
    permit: Permit | None = None
    """checked before the first shard is written; None: the caller already holds the lease"""


def convert_shards(
    tasks: Sequence[ShardTask], destination: Destination
) -> Iterator[ShardRecord | Exception]:
    """Make shards: write each of them in one request, then its ledger record.

    For a remote store, the next shards are decoded while earlier ones are uploaded. A worker holds
    one compressed shard, and uploads of at most 16 shards with 320 MiB together.

    Yields
    ------
    ShardRecord or Exception
        The outcome of each task, in order: its record, or the error. A SourceError: a file is
        missing, changed or cannot be decoded, and nothing was written. A StorageError: a storage
        was away for longer than `destination.storage_wait`.
    """
    with closing(_Sources(destination)) as sources:
        if places.is_local(destination.store):
            for task in tasks:
                made = partial(_make, task, sources, destination)
                yield _outcome(lambda made=made: _publish(*made(), destination))
            return
        yield from _uploaded(tasks, sources, destination)


def _uploaded(
    tasks: Sequence[ShardTask], sources: _Sources, destination: Destination
) -> Iterator[ShardRecord | Exception]:
    with ThreadPoolExecutor(_UPLOADS) as uploads:
        permitted = uploads.submit(_permitted, destination)
        under_way: deque[tuple[Future[ShardRecord | Exception], int]] = deque()
        bytes_under_way = 0
        for task in tasks:
            made = _outcome(partial(_make, task, sources, destination))
            size = 0 if isinstance(made, Exception) else made[0].bytes
            while under_way and (
                len(under_way) == _UPLOADS or bytes_under_way + size > _UPLOAD_BYTES
            ):
                outcome, sent = under_way.popleft()
                bytes_under_way -= sent
                yield outcome.result()
            under_way.append((uploads.submit(_upload, made, permitted, destination), size))
            bytes_under_way += size
            del made
        while under_way:
            yield under_way.popleft()[0].result()


def _permitted(destination: Destination) -> None:
    if destination.permit is not None:
        with retrying(Retry(destination.storage_wait, _log.warning)):
            destination.permit.confirm()


def _upload(
    made: tuple[ShardRecord, list[bytes]] | Exception,
    permitted: Future[None],
    destination: Destination,
) -> ShardRecord | Exception:
    if isinstance(made, Exception):
        return made

    def publish() -> ShardRecord:
        permitted.result()
        return _publish(*made, destination)

    return _outcome(publish)


def _outcome(action: Callable[[], T]) -> T | Exception:
    try:
        return action()
    except Exception as error:
        return error


class _Sources:
    """The source files of some shards. The last one stays open: many shards lie in one file."""

    def __init__(self, destination: Destination):
        self._opener = load_archive(destination.archive).opener(destination.options)
        self._file: tuple[SourceFile, str] | None = None
        self._decode: Decode | None = None
        self._opened = ExitStack()

    @contextmanager
    def decoder(self, file: SourceFile) -> Iterator[Decode]:
        """Give the decoder of a file; check before and after that it is the planned version."""
        with reading(file) as path:
            if self._decode is None or self._file != (file, path):
                self.close()
                self._decode = self._opened.enter_context(self._opener(path, file))
                self._file = file, path
            try:
                yield self._decode
            except BaseException:
                self.close()
                raise
        if not os.path.exists(path):
            self.close()

    def close(self) -> None:
        """Close the open file."""
        self._file = self._decode = None
        self._opened.close()


def _make(
    task: ShardTask, sources: _Sources, destination: Destination
) -> tuple[ShardRecord, list[bytes]]:
    """Return the record and the bytes of one shard."""
    layout = task.layout
    encoder = ShardEncoder(layout.frame_shape, layout.chunk_frames, layout.shard_frames)
    moments = []
    unreadable: list[dict[str, Any]] = []
    with (
        retrying(Retry(destination.storage_wait, _log.warning)),
        destination.cache.active(),
    ):
        for frames in _frames(task, sources, unreadable):
            moments.append(frame_moments(frames))
            encoder.add(frames)
    data = encoder.finish()
    read = {segment.file.uri: segment.file.as_dict() for segment in task.segments}
    record = ShardRecord(
        variable=layout.name,
        shard=task.shard,
        start=task.start,
        stop=task.stop,
        key=task.key,
        object_name=layout.object_name(task.shard),
        bytes=sum(map(len, data)),
        checksum=checksum(*data),
        sources=tuple(read.values()),
        moments=np.concatenate(moments),
        converter_version=CONVERTER_VERSION,
        owner=destination.owner,
        written_at=utc_now(),
        unreadable=tuple(unreadable),
    )
    return record, data


def _publish(record: ShardRecord, data: list[bytes], destination: Destination) -> ShardRecord:
    """Write the shard, then its record."""
    place = places.join(destination.store, *record.object_name.split("/"))
    with retrying(Retry(destination.storage_wait, _log.warning)):
        # Waiting for the disk would take as long as everything else together. If a power cut takes
        # a shard away, its size is not the recorded one, and the next run writes it again.
        places.write_bytes(place, data, durable=False)
        Ledger(destination.store).commit(record)
    return record


def checksum(*pieces: bytes) -> str:
    """xxh3-128 of the pieces one after the other, in hexadecimal."""
    import xxhash

    digest = xxhash.xxh3_128()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def utc_now() -> str:
    """The time now, for records only."""
    return datetime.datetime.fromtimestamp(time.time(), datetime.UTC).isoformat("T", "seconds")


def _frames(
    task: ShardTask, sources: _Sources, unreadable: list[dict[str, Any]]
) -> Iterator[np.ndarray]:
    """Yield the frames of the shard in order of time, in runs; missing frames are NaN.

    If the archive goes on without frames that cannot be read, they are NaN too, and their run is
    added to `unreadable`.
    """
    layout = task.layout
    run = max(1, _RUN_BYTES // max(layout.frame_bytes, layout.source_frame_bytes))
    done = 0
    for file, offset, rows in _pieces(task.segments):
        yield from _missing(task, done, offset)
        done = offset
        with sources.decoder(file) as decode:
            for begin in range(0, len(rows), run):
                positions = rows[begin : begin + run]
                try:
                    frames = decode(layout.name, positions)
                except UnreadableError as error:
                    where = {"frame": done + begin, "frames": len(positions)}
                    unreadable.append(where | {"file": file.name, "reason": error.what})
                    yield np.full((len(positions), *layout.frame_shape), np.nan, np.float32)
                    continue
                _check_shape(frames.shape[1:], task, file)
                if layout.average is not None:
                    frames = layout.average(frames).astype(np.float32)
                yield frames
        done += len(rows)
    yield from _missing(task, done, task.stop - task.start)


def _check_shape(shape: tuple[int, ...], task: ShardTask, file: SourceFile) -> None:
    """Raise SourceError if frames do not have the size that the plan expects."""
    planned = task.layout.source_frame_shape
    if shape != planned:
        raise SourceError(
            f"frames of '{task.layout.name}' are {' x '.join(map(str, shape))}, "
            f"those of the archive {' x '.join(map(str, planned))}",
            where=file.uri,
            remedy="leave the file out of the source, or repair it",
        )


def _pieces(segments: tuple[Segment, ...]) -> Iterator[tuple[SourceFile, int, np.ndarray]]:
    """Yield runs of frames without a gap: file, place of the first in the shard, rows in the
    file."""
    for segment in segments:
        rows, taken = segment.positions, 0
        for offset, count in segment.offset_runs.tolist():
            yield segment.file, offset, rows[taken : taken + count]
            taken += count


def _missing(task: ShardTask, first: int, end: int) -> Iterator[np.ndarray]:
    """Yield frames [first, end) of the shard without a value, in runs."""
    run = max(1, _RUN_BYTES // task.layout.frame_bytes)
    for begin in range(first, end, run):
        yield np.full((min(run, end - begin), *task.layout.frame_shape), np.nan, np.float32)
