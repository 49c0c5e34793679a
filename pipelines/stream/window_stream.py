"""Stream the windows of an epoch from a store, in batches.

A worker reads and normalises the frames of each of its pools once, in whole chunks, and copies
windows out of them. Overlapping windows are never stored or sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pipelines.errors import UsageError
from pipelines.inputs.normalisation import NormalisedReader
from pipelines.inputs.static_fields import StaticFields
from pipelines.inputs.static_fields import static_fields as read_static_fields
from pipelines.stores.reader import FrameReader
from pipelines.stream.batches import Arena, Batch, Finish, Gatherer, Load, schedule
from pipelines.stream.order import (
    EpochOrder,
    FrameLayout,
    OrderConfig,
    Pool,
    pool_frames,
    steps_per_epoch,
)

if TYPE_CHECKING:
    from pipelines.inputs.augmentation import Augmentation
    from pipelines.inputs.normalisation import Normalisation
    from pipelines.stores.store import Store
    from pipelines.stream.windows import WindowSpec

# Frames that sequential reading reads at once: some chunks, so that decoding can be parallel.
_AHEAD_BYTES = 8 * 2**20

__all__ = ["Batch", "Transport", "WindowStream", "read_batches"]


class Transport(Protocol):
    """What brings the frames of pools into the memory of a worker."""

    readers: int
    """Threads that may load at once; 1 if pools must be loaded in order."""

    def loader(self, pools: Iterable[Pool]) -> Load:
        """Return what fills these pools, the rest of an epoch in the order of its steps."""
        ...

    def close(self) -> None:
        """Release what the epoch needs; a load that has begun may fail."""
        ...


class DirectTransport:
    """A transport that reads the store in the worker's own process."""

    def __init__(self, reader: NormalisedReader):
        self._reader = reader
        # Threads that read an object storage spend most of their time waiting.
        self.readers = 8 if reader.remote else 2

    def loader(self, pools: Iterable[Pool]) -> Load:
        """Return what reads a pool; any number of threads may call it, in any order."""
        return self._load

    def close(self) -> None:
        """Do nothing: a read ends with the thread that makes it."""

    def _load(self, pool: Pool, out_tchw: np.ndarray) -> None:
        load_pool(self._reader, pool.pieces, out_tchw)


class WindowStream:
    """Normalised batches of windows: this worker's share of every global batch.

    Parameters
    ----------
    store:
        The store to read.
    variables:
        Names in channel order.
    spec:
        The shape of a window in time.
    starts:
        (n,) int64, ascending: all windows of the split, not only this worker's
        (`pipelines.stream.windows.split_starts`).
    order:
        Global batch, seed and pool size.
    normalisation:
        Turns physical values into a model's inputs.
    lanes:
        The lanes of the global batch that this worker serves (`pipelines.stream.order.rank_lanes`).
    prefetch_batches:
        Batches made ahead of the consumer.
    transport:
        Makes, of the stream's reader, what fills the pools. `DirectTransport` reads the store in
        this process; `pipelines.stream.ray_transport.RayTransport` lets Ray Data tasks read it.
    augmentation:
        Changes whole windows at random; `order.seed`, epoch, step and lane decide how.
    static_fields:
        Names of static fields of the store, or the fields themselves
        (`pipelines.inputs.static_fields`). Each batch has them as `static`, normalised: once, or
        once per window if an augmentation moves them with the windows.

    The stream needs `nbytes` of memory, whatever the size of the store: 5/4 pools of
    `order.pool_bytes` per lane, and `prefetch_batches + 2` batches.

    Examples
    --------
    >>> stream = WindowStream(
    ...     store, ("t2m",), spec, starts, order, normalisation, rank_lanes(64, world, rank)
    ... )  # doctest: +SKIP
    >>> for batch in stream.epoch(0, first_step=120):  # doctest: +SKIP
    ...     frames = torch.from_numpy(batch.frames_btchw).to(device)
    """

    def __init__(
        self,
        store: Store,
        variables: Sequence[str],
        spec: WindowSpec,
        starts: np.ndarray,
        order: OrderConfig,
        normalisation: Normalisation,
        lanes: Sequence[int],
        prefetch_batches: int = 2,
        transport: Callable[[NormalisedReader], Transport] = DirectTransport,
        augmentation: Augmentation | None = None,
        static_fields: Sequence[str] | StaticFields = (),
    ):
        if prefetch_batches < 1:
            raise UsageError(f"prefetch_batches must be at least 1, not {prefetch_batches}")
        self.lanes = sorted(lanes)
        if not self.lanes or not 0 <= self.lanes[0] <= self.lanes[-1] < order.global_batch:
            raise UsageError(
                f"lanes {list(lanes)} are not in a global batch of {order.global_batch}",
                remedy="take them from rank_lanes(global_batch, world, rank)",
            )
        reader = NormalisedReader(FrameReader(store, variables), normalisation)
        if augmentation is not None:
            longitudes = store.coordinates.get("longitude")
            augmentation.check(*store.spatial_shape, longitudes=longitudes)
        self._augmentation = augmentation
        if not isinstance(static_fields, StaticFields):
            names = tuple(static_fields)
            static_fields = read_static_fields(store, names, normalisation.kind)
        self._static = static_fields.values_shw if static_fields.names else None
        self._transport = transport(reader)
        self._starts, self._config = starts, order
        self._layout = frame_layout(reader, spec)
        self._offsets = np.arange(spec.frames, dtype=np.int64) * spec.stride
        self._arena = Arena(
            slots=len(self.lanes) + max(len(self.lanes) // 4, 2),
            slot_frames=pool_frames(order, self._layout),
            batch=len(self.lanes),
            window_frames=spec.frames,
            frame_shape=reader.frame_shape,
            # The consumer may hold the batch that it works on and the one before.
            buffers=prefetch_batches + 2,
        )
        self._assembly: Gatherer | None = None
        self._waited = 0.0

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch; the last one may have fewer windows."""
        return steps_per_epoch(len(self._starts), self._config.global_batch)

    @property
    def nbytes(self) -> int:
        """Bytes of all pools and batches in memory."""
        return self._arena.nbytes

    @property
    def wait_seconds(self) -> float:
        """Seconds that the consumer has waited for batches, in all epochs."""
        return self._waited + (self._assembly.wait_seconds if self._assembly else 0.0)

    def order(self, epoch: int) -> EpochOrder:
        """Return the order of an epoch over all lanes."""
        return EpochOrder(self._starts, self._config, epoch, self._layout)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from `first_step` on; reading begins at the first draw.

        A stream serves one epoch at a time: drawing from a second iterator ends the first.

        Raises
        ------
        StoreError
            A chunk cannot be read; the error names the store, the variable and the frames.
        """
        order = self.order(epoch)
        self.close()
        assembly = self._assembly = Gatherer(
            order,
            self.lanes,
            first_step,
            self._offsets,
            self._arena,
            self._transport.loader(schedule(order, self.lanes, first_step)),
            self._transport.readers,
            self._finish(epoch),
        )
        try:
            while (batch := assembly.draw()) is not None:
                yield batch
        finally:
            if self._assembly is assembly:
                self.close()

    def _finish(self, epoch: int) -> Finish | None:
        augmentation, static = self._augmentation, self._static
        if augmentation is None or not augmentation.active:
            return None if static is None else lambda batch: replace(batch, static=static)
        draws = {"seed": self._config.seed, "epoch": epoch}

        def finish(batch: Batch) -> Batch:
            augmentation.apply(batch.frames_btchw, batch.lanes, **draws, step=batch.step)
            if static is None:
                return batch
            moved = augmentation.moved(static, batch.lanes, **draws, step=batch.step)
            return replace(batch, static=moved)

        return finish

    def close(self) -> None:
        """End the current epoch and its threads."""
        if self._assembly is not None:
            # The transport first: a thread of the assembly may be waiting for it.
            self._transport.close()
            self._assembly.close()
            self._waited += self._assembly.wait_seconds
            self._assembly = None


def frame_layout(reader: NormalisedReader, spec: WindowSpec) -> FrameLayout:
    """Return the sizes of a store and its windows that the order needs."""
    return FrameLayout(reader.chunk_frames, spec.span, reader.frame_bytes)


def load_pool(
    reader: NormalisedReader, pieces: Sequence[tuple[int, int]], out_tchw: np.ndarray
) -> None:
    """Read ranges of frames [first, last), end to end, into (frames, C, H, W) float32."""
    head = 0
    for first, last in pieces:
        reader.read(first, last, out_tchw[head : head + last - first])
        head += last - first


def read_batches(
    store: Store,
    variables: Sequence[str],
    spec: WindowSpec,
    starts: np.ndarray,
    batch_size: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield windows in the order of `starts`, in physical units, NaN where missing.

    For evaluation. If `starts` ascend, each chunk is read about once, and a batch, a window and a
    few chunks are in memory.

    Yields
    ------
    starts:
        (b,) int64; b is `batch_size`, or less in the last batch.
    frames_btchw:
        (b, T, C, H, W) float32; the caller may keep it.
    """
    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, not {batch_size}")
    frames = _SlidingFrames(FrameReader(store, variables), len(store.times), spec.span)
    for head in range(0, len(starts), batch_size):
        chosen = np.asarray(starts[head : head + batch_size], np.int64)
        frames_btchw = np.empty((len(chosen), spec.frames, *frames.shape), np.float32)
        for window_tchw, start in zip(frames_btchw, chosen.tolist(), strict=True):
            np.copyto(window_tchw, frames.window(start)[:: spec.stride])
        yield chosen, frames_btchw


class _SlidingFrames:
    """A range of frames in memory that slides forward over the store, a few chunks at a time."""

    def __init__(self, reader: FrameReader, total: int, span: int):
        self.shape = reader.frame_shape
        self._reader, self._total, self._span = reader, total, span
        chunk = reader.chunk_frames
        ahead = max(_AHEAD_BYTES // reader.frame_bytes // chunk, 1) * chunk
        self._ahead = max(ahead, chunk)
        self._frames_tchw = np.empty(
            (2 * chunk + span + self._ahead, *reader.frame_shape), np.float32
        )
        self._first = self._last = 0

    def window(self, start: int) -> np.ndarray:
        """Return a (span, C, H, W) view of the frames from `start` on."""
        if not self._first <= start <= self._last:
            self._first = self._last = (
                start // self._reader.chunk_frames * (self._reader.chunk_frames)
            )
        if start + self._span > self._last:
            self._slide(start)
        return self._frames_tchw[start - self._first : start - self._first + self._span]

    def _slide(self, start: int) -> None:
        chunk = self._reader.chunk_frames
        drop = min(start, self._last) - self._first
        kept = self._last - self._first - drop
        self._frames_tchw[:kept] = self._frames_tchw[drop : drop + kept].copy()
        self._first += drop
        needed = max(start + self._span, self._last + self._ahead)
        last = min(-(-needed // chunk) * chunk, self._total)
        self._reader.read(self._last, last, self._frames_tchw[kept : last - self._first])
        self._last = last
