"""The order of windows in an epoch: a pure function of seed and epoch.

The windows are grouped by their first frames into *slabs*: whole chunks of the store in a row. The
slabs are permuted, laid end to end and cut into G contiguous *lanes*, where G is the global batch.
Step `s` of the epoch takes the `s`-th window of every lane. Inside a lane, pieces of slabs are
gathered into *pools* of limited size, and the windows of a pool are shuffled.

The order does not depend on the number of workers. A worker serves a range of lanes (`rank_lanes`)
and reads only their pools, so any number of workers up to G serves the same global batches. An
epoch resumes at any step: only the pools of that step are opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipelines.errors import UsageError


@dataclass(frozen=True)
class OrderConfig:
    """What decides the order of an epoch, besides the store and its windows."""

    global_batch: int
    """Windows in one optimisation step, over all workers: the number of lanes."""
    seed: int = 0
    """Seed of the permutations."""
    slab_frames: int = 256
    """Largest number of frames in a slab. It is rounded down to whole chunks, and lowered if a
    split is so short that a slab would be in more than two lanes."""
    pool_bytes: int = 4 * 2**20
    """Largest size of one lane's pool, decoded as float32. It is raised to twice the span of a
    window if necessary: smaller pools would read every frame many times."""

    def __post_init__(self) -> None:
        for name in ("global_batch", "slab_frames", "pool_bytes"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.seed < 0:
            raise UsageError(f"seed must not be negative, not {self.seed}")


@dataclass(frozen=True)
class FrameLayout:
    """The sizes of a store and a window that the order needs."""

    chunk_frames: int
    """Frames per chunk of the store."""
    span: int
    """Frames of the store from a window's first to its last, both included."""
    frame_bytes: int
    """Bytes of one frame: all channels, float32."""


@dataclass(frozen=True)
class Pool:
    """Windows of one lane that are in memory together."""

    lane: int
    """The lane that draws from it."""
    first_step: int
    """The step that draws its first window."""
    starts: np.ndarray
    """(n,) int64: first frames of its windows, in the order of the steps."""
    pieces: tuple[tuple[int, int], ...]
    """Ranges of frames [first, last) to read; each window lies inside one of them."""

    @property
    def frames(self) -> int:
        """Frames of all its pieces."""
        return sum(last - first for first, last in self.pieces)

    @cached_property
    def positions(self) -> np.ndarray:
        """(n,) int64: where each window starts in the pool's frames, laid end to end."""
        firsts = np.array([first for first, _ in self.pieces], np.int64)
        lengths = np.array([last - first for first, last in self.pieces], np.int64)
        heads = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        # Pieces may share frames (a window of one reaches into the next), but no starts.
        order = np.argsort(firsts)
        owner = order[np.searchsorted(firsts[order], self.starts, side="right") - 1]
        return heads[owner] + self.starts - firsts[owner]


class EpochOrder:
    """The order of one epoch.

    >>> layout = FrameLayout(chunk_frames=4, span=3, frame_bytes=4)
    >>> order = EpochOrder(np.arange(10), OrderConfig(global_batch=3), epoch=0, layout=layout)
    >>> order.steps, [len(order.lane(lane)) for lane in range(3)]
    (4, [3, 3, 4])

    Parameters
    ----------
    starts:
        (n,) int64, ascending: the windows of the epoch.
    """

    def __init__(self, starts: np.ndarray, config: OrderConfig, epoch: int, layout: FrameLayout):
        if not len(starts):
            raise UsageError("an epoch needs at least one window")
        self.config, self.epoch, self.layout = config, epoch, layout
        self._starts = np.asarray(starts, np.int64)
        self._slab_frames = slab_frames(config, layout, len(starts))
        # Where each slab begins among the starts; the last entry closes the last slab. A search for
        # the borders needs less memory than a slab number per start.
        borders = np.arange(self._starts[0], self._starts[-1], self._slab_frames)
        borders = borders // self._slab_frames * self._slab_frames + self._slab_frames
        heads = np.searchsorted(self._starts, borders)
        self._edges = np.unique(np.concatenate([[0], heads, [len(self._starts)]]))
        self._slabs = _permutation(len(self._edges) - 1, config.seed, epoch)
        lengths = np.diff(self._edges)[self._slabs]
        self._slab_heads = np.concatenate([[0], np.cumsum(lengths)])
        lanes = config.global_batch
        self._lane_heads = np.arange(lanes + 1, dtype=np.int64) * len(self._starts) // lanes

    @property
    def steps(self) -> int:
        """Steps of the epoch; the last one may have fewer windows than lanes."""
        return steps_per_epoch(len(self._starts), self.config.global_batch)

    @property
    def slabs(self) -> int:
        """Slabs with at least one window."""
        return len(self._slabs)

    def length(self, lane: int) -> int:
        """Return the windows of a lane; lanes differ by at most one."""
        return int(self._lane_heads[lane + 1] - self._lane_heads[lane])

    def lane(self, lane: int) -> np.ndarray:
        """Return the first frame of the lane's window at each step: (n,) int64."""
        pools = [pool.starts for pool in self.pools(lane)]
        return np.concatenate(pools) if pools else np.empty(0, np.int64)

    def pools(self, lane: int, first_step: int = 0) -> Iterator[Pool]:
        """Yield the pools of a lane in order, from the one that `first_step` draws from."""
        step = 0
        for number, pieces in enumerate(self._gather(lane)):
            starts = np.concatenate(pieces)
            if step + len(starts) > first_step:
                shuffled = starts[
                    _permutation(len(starts), self.config.seed, self.epoch, lane, number)
                ]
                frames = tuple(
                    (int(piece[0]), int(piece[-1]) + self.layout.span) for piece in pieces
                )
                yield Pool(lane, step, shuffled, frames)
            step += len(starts)

    def _gather(self, lane: int) -> Iterator[list[np.ndarray]]:
        """Yield the lane's pieces in groups of at most `pool_bytes`."""
        capacity = pool_frames(self.config, self.layout)
        group: list[np.ndarray] = []
        held = 0
        for piece in self._pieces(lane, capacity):
            frames = int(piece[-1] - piece[0]) + self.layout.span
            if group and held + frames > capacity:
                yield group
                group, held = [], 0
            group.append(piece)
            held += frames
        if group:
            yield group

    def _pieces(self, lane: int, capacity: int) -> Iterator[np.ndarray]:
        """Yield the lane's starts, slab by slab and ascending, in pieces that fit a pool."""
        begin, end = self._lane_heads[lane], self._lane_heads[lane + 1]
        slab = int(np.searchsorted(self._slab_heads, begin, side="right")) - 1
        while begin < end:
            head, tail = self._slab_heads[slab], min(self._slab_heads[slab + 1], end)
            first = self._edges[self._slabs[slab]]
            starts = self._starts[first + begin - head : first + tail - head]
            while len(starts):
                fitting = np.searchsorted(starts, starts[0] + capacity - self.layout.span, "right")
                yield starts[:fitting]
                starts = starts[fitting:]
            begin, slab = tail, slab + 1


def steps_per_epoch(windows: int, global_batch: int) -> int:
    """Return the steps of an epoch: every window is drawn once, so the last step may be short."""
    return -(-windows // global_batch)


def rank_lanes(global_batch: int, world: int, rank: int) -> range:
    """Return the lanes that a rank serves: contiguous ranges of nearly equal length.

    Raises
    ------
    UsageError
        There are more workers than lanes: some would have nothing to do.

    Examples
    --------
    >>> [rank_lanes(8, 3, rank) for rank in range(3)]
    [range(0, 2), range(2, 5), range(5, 8)]
    """
    if world > global_batch:
        raise UsageError(
            f"{world} workers cannot share a global batch of {global_batch}",
            remedy=f"use at most {global_batch} workers or raise the global batch",
        )
    return range(rank * global_batch // world, (rank + 1) * global_batch // world)


def slab_frames(config: OrderConfig, layout: FrameLayout, windows: int) -> int:
    """Return the frames of a slab: whole chunks, at most `config.slab_frames` and a lane's length.

    A slab that is not longer than a lane is in at most two lanes. The windows of a batch then come
    from at least half as many slabs as there are lanes.
    """
    wanted = min(config.slab_frames, windows // config.global_batch)
    return max(wanted // layout.chunk_frames, 1) * layout.chunk_frames


def pool_frames(config: OrderConfig, layout: FrameLayout) -> int:
    """Return the largest number of frames in a pool."""
    return max(config.pool_bytes // layout.frame_bytes, 2 * layout.span)


def _permutation(length: int, *key: int) -> np.ndarray:
    """Return a permutation that depends only on the key.

    It sorts the raw words of a counter-based generator: NumPy guarantees that stream in all
    versions, but not `Generator.permutation`.
    """
    words = np.random.Philox(np.random.SeedSequence(key)).random_raw(length)
    return np.argsort(words, kind="stable")
