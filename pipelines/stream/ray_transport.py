"""Pools over Ray Data: frames are read and decoded by tasks on any node of the cluster.

The batches are those of the direct transport, bit for bit. Each worker runs one ordered dataset per
epoch: its rows are the frames of the worker's pools, in the order in which the stream opens them.
The tasks read, decode and normalise, so that a node with accelerators only cuts windows. A frame
travels once, however many windows it is in::

    stream = WindowStream(..., transport=RayTransport)
    for batch in stream.epoch(epoch, first_step):
        ...
"""

from __future__ import annotations

import contextlib
import copy
import logging
import pickle
import queue
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import ray.data
import ray.exceptions

from pipelines.errors import PlatformError, StorageError
from pipelines.inputs.normalisation import NormalisedReader
from pipelines.storage.retry import passes
from pipelines.stores.reader import FrameReader
from pipelines.stream.batches import Load
from pipelines.stream.window_stream import load_pool

if TYPE_CHECKING:
    from pipelines.inputs.normalisation import Normalisation
    from pipelines.stores.store import Store
    from pipelines.stream.order import Pool

CPUS_PER_TASK = 1.0
"""CPUs that Ray reserves for one reading task, beside those of the workers."""
TASK_BYTES = 16 * 2**20
"""Approximate size of the decoded frames that one task returns."""
FRAMES_WAIT_SECONDS = 1800.0
"""Seconds without a frame after which an epoch fails, as long as a training waits for nodes."""
AGAIN_SECONDS = 60.0
"""Seconds between two warnings that no frame has arrived."""
POLL_SECONDS = 0.2
"""How soon a thread that waits notices that the epoch was left."""
OPEN_READERS = 8
"""Readers that a task process keeps open: those of all workers whose tasks it runs."""

_log = logging.getLogger(__name__)


class RayTransport:
    """A transport that fills pools with frames which Ray Data tasks have read.

    Parameters
    ----------
    reader:
        The reader of the stream. Tasks open one like it.
    wait_seconds:
        Seconds without a frame after which the epoch fails, for example because the workers use
        every CPU of the cluster; 0: no limit.
    task_bytes:
        Approximate size of the decoded frames that one task returns.
    """

    readers = 1

    def __init__(
        self,
        reader: NormalisedReader,
        wait_seconds: float = FRAMES_WAIT_SECONDS,
        task_bytes: int = TASK_BYTES,
    ):
        self._source = _Source(
            uuid.uuid4().hex, reader.store, reader.variables, reader.normalisation
        )
        self._frame_bytes = reader.frame_bytes
        self._wait_seconds, self._task_bytes = wait_seconds, task_bytes
        self._frames: _Frames | None = None

    def loader(self, pools: Iterable[Pool]) -> Load:
        """Return what fills these pools, one after the other."""
        self.close()
        frames = self._frames = _Frames(self.dataset(list(pools)), self._wait_seconds)

        def load(pool: Pool, out_tchw: np.ndarray) -> None:
            frames.take(out_tchw)

        return load

    def dataset(self, pools: Sequence[Pool]) -> ray.data.Dataset:
        """Return rows `frame`, (C, H, W) float32: the frames of the pools, end to end."""
        decoded = sum(pool.frames for pool in pools) * self._frame_bytes
        tasks = min(max(-(-decoded // self._task_bytes), 1), max(len(pools), 1))
        dataset = ray.data.range(len(pools), override_num_blocks=tasks)
        options = copy.deepcopy(dataset.context.execution_options)
        options.preserve_order = True
        dataset.context.execution_options = options
        dataset.context.enable_progress_bars = False
        dataset.context.print_on_execution_start = False
        source, pieces = self._source, [pool.pieces for pool in pools]
        return dataset.map_batches(
            lambda batch: source.rows([pieces[i] for i in batch["id"].tolist()]),
            batch_size=None,
            num_cpus=CPUS_PER_TASK,
        )

    def close(self) -> None:
        """End the reading tasks of the epoch; a load that waits for them fails."""
        if self._frames is not None:
            self._frames.close()
            self._frames = None


class _Frames:
    """The rows of a dataset as one sequence of frames.

    A thread asks Ray Data for blocks, because Ray Data waits without a limit while no node has room
    for a task, and neither an error nor the end of the epoch could interrupt that.
    """

    def __init__(self, dataset: ray.data.Dataset, wait_seconds: float):
        self._wait_seconds = wait_seconds
        self._block = np.empty(0, np.float32)
        self._blocks: queue.Queue[np.ndarray | BaseException] = queue.Queue(maxsize=1)
        self._closed = threading.Event()
        self._fetcher = threading.Thread(
            target=self._fetch, args=(dataset,), name="reading tasks", daemon=True
        )
        self._fetcher.start()

    def take(self, out_tchw: np.ndarray) -> None:
        """Copy the next frames; raise what a reading task failed with."""
        taken = 0
        while taken < len(out_tchw):
            if not len(self._block):
                self._block = self._next_block()
            part = self._block[: len(out_tchw) - taken]
            out_tchw[taken : taken + len(part)] = part
            taken += len(part)
            # The object store holds a block until its last view is dropped.
            self._block = self._block[len(part) :]

    def close(self) -> None:
        """End the tasks and the thread."""
        self._closed.set()
        # A thread that Ray Data keeps waiting ends with the process.
        self._fetcher.join(timeout=10 * POLL_SECONDS)

    def _next_block(self) -> np.ndarray:
        began = warned = time.monotonic()
        while not self._closed.is_set():
            with contextlib.suppress(queue.Empty):
                item = self._blocks.get(timeout=POLL_SECONDS)
                if isinstance(item, BaseException):
                    raise item
                return item
            now = time.monotonic()
            if 0 < self._wait_seconds <= now - began:
                raise PlatformError(
                    _stalled(now - began),
                    remedy="give fewer --workers, add nodes, or read in the workers "
                    "(--data.transport direct)",
                )
            if now - warned >= AGAIN_SECONDS:
                _log.warning(_stalled(now - began))
                warned = now
        raise RuntimeError("the epoch was left while a pool was being filled")

    def _fetch(self, dataset: ray.data.Dataset) -> None:
        blocks = _blocks(dataset)
        try:
            for block in blocks:
                self._put(block)
                if self._closed.is_set():
                    return
        except BaseException as error:
            self._put(error)
        finally:
            blocks.close()

    def _put(self, item: np.ndarray | BaseException) -> None:
        while not self._closed.is_set():
            with contextlib.suppress(queue.Full):
                self._blocks.put(item, timeout=POLL_SECONDS)
                return


def _stalled(seconds: float) -> str:
    has = ray.cluster_resources().get("CPU", 0)
    free = ray.available_resources().get("CPU", 0)
    return (
        f"no frame has arrived from the reading tasks for {seconds:.0f} s: a task needs "
        f"{CPUS_PER_TASK:g} CPU, and the cluster has {has:g}, of which {free:g} are free"
    )


def _blocks(dataset: ray.data.Dataset) -> Generator[np.ndarray, None, None]:
    """Yield (n, C, H, W) float32 frames, block by block.

    Raises
    ------
    PlatformError
        A task could not read the store. Its cause tells whether a retry can help.
    RuntimeError
        A node or a process with a task ended, more often than Ray starts the task again.
    """
    try:
        for batch in dataset.iter_batches(
            batch_size=None, batch_format="numpy", prefetch_batches=2
        ):
            check_row(cast(dict[str, np.ndarray], batch))
            yield np.asarray(batch["frame"])
    except ray.exceptions.RayTaskError:
        raise
    except ray.exceptions.RayError as error:
        raise RuntimeError(f"the reading tasks failed: {error}") from error


def check_row(row: Mapping[str, np.ndarray]) -> None:
    """Raise the error that a reading task returned in place of frames."""
    if "error" in row:
        error: PlatformError = pickle.loads(row["error"][0])
        raise error from (StorageError(error.what) if row["passes"][0] else None)


_readers: OrderedDict[str, NormalisedReader] = OrderedDict()


@dataclass(frozen=True, eq=False)
class _Source:
    """What a reading task is given; a process opens the store once, not once per task."""

    token: str
    """Names the transport in the processes that read for it."""
    store: Store
    variables: tuple[str, ...]
    normalisation: Normalisation

    def rows(self, pools: Sequence[Sequence[tuple[int, int]]]) -> dict[str, np.ndarray]:
        """Return `frame`, (frames, C, H, W) float32: some pools, end to end.

        If the store cannot be read, return one row with the `error` and whether it `passes`: Ray
        Data would keep only the text of an exception, and print it many times.
        """
        try:
            reader = self._reader()
            pieces = [piece for pool in pools for piece in pool]
            shape = (sum(last - first for first, last in pieces), *reader.frame_shape)
            frames_tchw = np.empty(shape, np.float32)
            load_pool(reader, pieces, frames_tchw)
        except PlatformError as error:
            return {
                "error": np.array([pickle.dumps(error)], object),
                "passes": np.array([passes(error)]),
            }
        return {"frame": frames_tchw}

    def _reader(self) -> NormalisedReader:
        if self.token not in _readers:
            reader = FrameReader(self.store, self.variables)
            _readers[self.token] = NormalisedReader(reader, self.normalisation)
        _readers.move_to_end(self.token)
        while len(_readers) > OPEN_READERS:
            _readers.popitem(last=False)
        return _readers[self.token]
