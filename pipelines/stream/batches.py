"""Gather batches from pools of frames, in a background thread, by memory copies.

All memory is allocated once and reused: an arena with one slot per pool, and a ring of batch
buffers. Page faults of fresh memory would cost more than the copies themselves.
"""

from __future__ import annotations

import heapq
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from pipelines.stream.order import EpochOrder, Pool

Load = Callable[[Pool, np.ndarray], None]
"""Fills (pool.frames, C, H, W) float32 with the frames of the pool's pieces, end to end."""

Finish = Callable[["Batch"], "Batch"]
"""Turns a gathered batch into what the consumer sees; may change its frames in place."""


@dataclass(frozen=True)
class Batch:
    """The windows of one step on one worker."""

    frames_btchw: np.ndarray
    """(b, T, C, H, W) float32, C-contiguous, normalised. Its memory is reused: it is valid until
    the batch after the next one is drawn."""
    lanes: np.ndarray
    """(b,) int64, ascending: lanes of the global batch that the windows belong to. The last step of
    an epoch may have fewer than the worker's lanes, or no lane."""
    starts: np.ndarray
    """(b,) int64: first frame of each window in the store."""
    step: int
    """Step of the epoch."""
    static: np.ndarray | None = None
    """float32 (S, H, W): the normalised static fields of all windows; or (b, S, H, W) if an
    augmentation moved them with each window. None without static fields."""


class Arena:
    """The memory of a stream: slots for pools and a ring of batch buffers.

    Parameters
    ----------
    slots:
        Largest number of pools in memory.
    slot_frames:
        Frames of the largest pool.
    batch:
        Windows of the largest batch.
    window_frames:
        Frames per window.
    frame_shape:
        (C, H, W).
    buffers:
        Batch buffers: those that the consumer holds and those that wait for it.
    """

    def __init__(
        self,
        slots: int,
        slot_frames: int,
        batch: int,
        window_frames: int,
        frame_shape: tuple[int, int, int],
        buffers: int,
    ):
        self.slot_frames = slot_frames
        self.frames_nchw = np.empty((slots * slot_frames, *frame_shape), np.float32)
        self.slots = slots
        self.ring = [
            np.empty((batch, window_frames, *frame_shape), np.float32) for _ in range(buffers)
        ]

    def slot(self, number: int, frames: int) -> np.ndarray:
        """Return a (frames, C, H, W) view of a slot."""
        head = number * self.slot_frames
        return self.frames_nchw[head : head + frames]

    @property
    def nbytes(self) -> int:
        """Bytes of slots and buffers."""
        return self.frames_nchw.nbytes + sum(buffer.nbytes for buffer in self.ring)


class Gatherer:
    """The batches of one epoch for some lanes, gathered ahead of the consumer.

    Parameters
    ----------
    order:
        The order of the epoch.
    lanes:
        Lanes of the global batch to serve.
    first_step:
        Step of the epoch to begin with.
    offsets:
        (T,) int64: frames of a window relative to its first.
    load:
        Fills a pool. Called from `readers` threads, in the order of the pools if there is one.
    finish:
        Called on each batch in the background; None changes nothing.
    """

    def __init__(
        self,
        order: EpochOrder,
        lanes: Sequence[int],
        first_step: int,
        offsets: np.ndarray,
        arena: Arena,
        load: Load,
        readers: int,
        finish: Finish | None = None,
    ):
        self.wait_seconds = 0.0
        self._finish = finish
        self._order, self._lanes, self._first_step = order, lanes, first_step
        self._offsets, self._arena, self._load = offsets, arena, load
        self._pools = schedule(order, lanes, first_step)
        self._stopped = threading.Event()
        self._requests: queue.SimpleQueue[tuple[Pool, int, Future[None]] | None] = (
            queue.SimpleQueue()
        )
        self._requested: deque[tuple[Pool, int, Future[None]]] = deque()
        self._free_slots = list(range(arena.slots))
        self._free_buffers: queue.SimpleQueue[np.ndarray | None] = queue.SimpleQueue()
        for buffer in arena.ring:
            self._free_buffers.put(buffer)
        self._ready: queue.SimpleQueue[tuple[Batch, np.ndarray] | BaseException | None] = (
            queue.SimpleQueue()
        )
        self._held: deque[np.ndarray] = deque()
        self._assembler = threading.Thread(
            target=self._assemble, name="batch assembly", daemon=True
        )
        self._readers = [
            threading.Thread(target=self._read, name=f"pool reader {i}", daemon=True)
            for i in range(readers)
        ]
        for thread in (self._assembler, *self._readers):
            thread.start()

    def draw(self) -> Batch | None:
        """Return the next batch, or None after the last; raise what a thread failed with."""
        if self._stopped.is_set():
            return None
        if len(self._held) > 1:
            self._free_buffers.put(self._held.popleft())
        began = time.perf_counter()
        item = self._ready.get()
        self.wait_seconds += time.perf_counter() - began
        if item is None:
            return None
        if isinstance(item, BaseException):
            raise item
        batch, buffer = item
        self._held.append(buffer)
        return batch

    def close(self) -> None:
        """Stop the threads and wait for them; a read that has begun is finished first."""
        self._stopped.set()
        self._free_buffers.put(None)
        # The readers must outlive the assembly, which may wait for an answer of theirs.
        self._assembler.join()
        for _ in self._readers:
            self._requests.put(None)
        for reader in self._readers:
            reader.join()
        self._ready.put(None)

    def _read(self) -> None:
        while (request := self._requests.get()) is not None:
            pool, slot, done = request
            if self._stopped.is_set():
                done.cancel()
                continue
            try:
                self._load(pool, self._arena.slot(slot, pool.frames))
                done.set_result(None)
            except BaseException as error:
                done.set_exception(error)

    def _assemble(self) -> None:
        try:
            for batch in self._batches():
                self._ready.put(batch)
            self._ready.put(None)
        except BaseException as error:
            self._ready.put(error)

    def _batches(self) -> Iterator[tuple[Batch, np.ndarray]]:
        lanes = len(self._lanes)
        number = {lane: i for i, lane in enumerate(self._lanes)}
        # Per lane: arena positions and starts of the current pool's windows, and its first step.
        positions: list[list[int]] = [[] for _ in range(lanes)]
        starts: list[list[int]] = [[] for _ in range(lanes)]
        opened = [0] * lanes
        ending: dict[int, list[int]] = {}
        lengths = [self._order.length(lane) for lane in self._lanes]
        for step in range(self._first_step, self._order.steps):
            self._request()
            while self._requested and self._requested[0][0].first_step <= step:
                pool, slot, done = self._requested.popleft()
                done.result()
                i = number[pool.lane]
                positions[i] = (pool.positions + slot * self._arena.slot_frames).tolist()
                starts[i], opened[i] = pool.starts.tolist(), pool.first_step
                ending.setdefault(pool.first_step + len(pool.starts) - 1, []).append(slot)
                self._request()
            buffer = self._free_buffers.get()
            if buffer is None or self._stopped.is_set():
                return
            live = [i for i in range(lanes) if step < lengths[i]]
            yield self._gather(
                buffer,
                step,
                [self._lanes[i] for i in live],
                [positions[i][step - opened[i]] for i in live],
                [starts[i][step - opened[i]] for i in live],
            )
            self._free_slots.extend(ending.pop(step, ()))

    def _request(self) -> None:
        """Request the pools that are needed next, while there is memory for them."""
        while self._free_slots and not self._stopped.is_set():
            pool = next(self._pools, None)
            if pool is None:
                return
            request = (pool, self._free_slots.pop(), Future[None]())
            self._requested.append(request)
            self._requests.put(request)

    def _gather(
        self, buffer: np.ndarray, step: int, lanes: list[int], heads: list[int], starts: list[int]
    ) -> tuple[Batch, np.ndarray]:
        frames_btchw = buffer[: len(lanes)]
        if lanes:
            rows = np.asarray(heads, np.int64)[:, None] + self._offsets
            size = int(np.prod(buffer.shape[2:]))
            # One call per batch releases the interpreter lock once. No row is out of range: "clip"
            # only lets NumPy write directly into the buffer.
            np.take(
                self._arena.frames_nchw.reshape(-1, size),
                rows.ravel(),
                axis=0,
                out=frames_btchw.reshape(-1, size),
                mode="clip",
            )
        batch = Batch(frames_btchw, np.asarray(lanes, np.int64), np.asarray(starts, np.int64), step)
        return (batch if self._finish is None else self._finish(batch)), buffer


def schedule(order: EpochOrder, lanes: Sequence[int], first_step: int = 0) -> Iterator[Pool]:
    """Yield the pools of some lanes in the order in which their first windows are drawn."""
    return heapq.merge(
        *(order.pools(lane, first_step) for lane in lanes),
        key=lambda pool: (max(pool.first_step, first_step), pool.lane),
    )
