"""The order of an epoch: a pure function of (seed, epoch), cut into one lane a sample of a batch.

The valid window starts are grouped into *slabs*, runs of whole chunks of the store. The slabs are
permuted, laid end to end and cut into G contiguous *lanes*, G being the global batch; step ``s``
of the epoch takes the ``s``-th window of every lane. Inside a lane the pieces of its slabs are
gathered into *pools* bounded in bytes, and the windows of a pool are shuffled.

Nothing here depends on how many workers there are: a worker serves a range of lanes
(:func:`rank_lanes`) and reads those lanes' pools only, so any number of workers up to G serves the
same global batches, and an epoch resumes at any step by opening the pools that the step is in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipelines.errors import UsageError


@dataclass(frozen=True)
class OrderConfig:
    """What, beside the store and its windows, decides the order of an epoch."""

    global_batch: int
    """Windows in one optimisation step over all workers: the number of lanes."""
    seed: int = 0
    """Seed of the permutations."""
    slab_frames: int = 256
    """Frames in a slab at most; rounded down to whole chunks, and lowered where a split is so
    short that a slab would serve more lanes than two."""
    pool_bytes: int = 4 * 2**20
    """Decoded float32 bytes that the pool of one lane may hold; raised to twice the span of a
    window where that is more, since smaller pools would read every frame many times."""

    def __post_init__(self) -> None:
        for name in ("global_batch", "slab_frames", "pool_bytes"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.seed < 0:
            raise UsageError(f"seed must not be negative, not {self.seed}")


@dataclass(frozen=True)
class FrameLayout:
    """What the order needs to know of the store and the window."""

    chunk_frames: int
    """Frames in a chunk of the store."""
    span: int
    """Frames from the first of a window to its last, both counted."""
    frame_bytes: int
    """Bytes of one frame of all channels in float32."""


@dataclass(frozen=True)
class Pool:
    """Windows of one lane that are in memory together."""

    lane: int
    """The lane that draws from it."""
    first_step: int
    """The step that draws its first window."""
    starts: np.ndarray
    """(n,) int64 first frames of its windows, in the order of the steps."""
    pieces: tuple[tuple[int, int], ...]
    """Runs of frames [first, last) to read; ascending inside a piece, no window crosses two."""

    @property
    def frames(self) -> int:
        """Frames that it holds."""
        return sum(last - first for first, last in self.pieces)

    @cached_property
    def positions(self) -> np.ndarray:
        """(n,) int64: where each window starts among the pool's frames laid end to end."""
        firsts = np.array([first for first, _ in self.pieces], np.int64)
        lengths = np.array([last - first for first, last in self.pieces], np.int64)
        heads = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        # Pieces may overlap in frames (a window of one reaches into the next), never in starts.
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
        # Where each slab's starts begin among the starts; the last entry closes the last slab. One
        # search a slab: numbers for all starts would take several times their memory.
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
        """Steps of the epoch; the last may have fewer windows than lanes."""
        return steps_per_epoch(len(self._starts), self.config.global_batch)

    @property
    def slabs(self) -> int:
        """Slabs that hold a window."""
        return len(self._slabs)

    def length(self, lane: int) -> int:
        """Windows of a lane; lanes differ by one at most."""
        return int(self._lane_heads[lane + 1] - self._lane_heads[lane])

    def lane(self, lane: int) -> np.ndarray:
        """(n,) int64: the first frame of the window that the lane serves at each step."""
        pools = [pool.starts for pool in self.pools(lane)]
        return np.concatenate(pools) if pools else np.empty(0, np.int64)

    def pools(self, lane: int, first_step: int = 0) -> Iterator[Pool]:
        """The pools of a lane in order, from the one that ``first_step`` draws from."""
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
        """The lane's pieces in groups of at most ``pool_bytes``."""
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
        """Ascending starts of the lane, slab by slab; a piece's frames fit a pool."""
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
    """Steps of an epoch: every window is drawn once, so the last step may be short."""
    return -(-windows // global_batch)


def rank_lanes(global_batch: int, world: int, rank: int) -> range:
    """The lanes that a rank serves: contiguous, near equal.

    Raises
    ------
    UsageError
        There are more workers than lanes, so that some would have nothing to do.

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
    """Frames of a slab: whole chunks, at most ``config.slab_frames`` and at most a lane's length.

    While a slab is no longer than a lane, two lanes at most draw on it, so that the windows of a
    batch come from at least half as many slabs as there are lanes.
    """
    wanted = min(config.slab_frames, windows // config.global_batch)
    return max(wanted // layout.chunk_frames, 1) * layout.chunk_frames


def pool_frames(config: OrderConfig, layout: FrameLayout) -> int:
    """Frames that one pool holds at most."""
    return max(config.pool_bytes // layout.frame_bytes, 2 * layout.span)


def _permutation(length: int, *key: int) -> np.ndarray:
    """A permutation that depends on the key alone.

    It sorts the raw words of a counter-based generator, whose stream NumPy guarantees from one
    version to the next (it does not guarantee ``Generator.permutation``).
    """
    words = np.random.Philox(np.random.SeedSequence(key)).random_raw(length)
    return np.argsort(words, kind="stable")
