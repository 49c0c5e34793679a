"""Numbers that a look at a store needs: a bounded sample of its frames, and when frames lack."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.cf import AVAILABLE, OK
from pipelines.errors import UsageError
from pipelines.stores.reader import FrameReader
from pipelines.stores.store import Store

MAX_FRAMES = 48
MAX_BYTES = 64 * 1024**2
MAX_BINS = 360
STATES = tuple(AVAILABLE["flag_meanings"].split())


@dataclass(frozen=True, eq=False)
class FrameSample:
    """Some frames of one variable."""

    variable: str
    labels: tuple[str, ...]
    """(C,)"""
    period: tuple[str, str]
    """of which split, as people read it"""
    frames: np.ndarray
    """int64 (n,): which frames of the store, increasing"""
    values_nchw: np.ndarray
    """float32, physical units, NaN missing"""
    last: int
    """the last frame of the store that can be used"""
    last_chw: np.ndarray

    @property
    def mean_chw(self) -> np.ndarray:
        """Mean over the sampled frames, NaN where none has a value: float64 (C, H, W)."""
        held = ~np.isnan(self.values_nchw)
        total = np.where(held, self.values_nchw, 0.0).sum(axis=0, dtype=np.float64)
        count = held.sum(axis=0)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def sample_frames(
    store: Store, variable: str, *, frames: int = MAX_FRAMES, seed: int = 0
) -> FrameSample:
    """One frame, drawn from the seed, of each of ``frames`` equal parts of the train period.

    Even distances would take every frame at the same hour. Fewer frames are taken where so many
    would not fit :data:`MAX_BYTES`.

    Raises
    ------
    UsageError
        No frame of the store can be used.
    """
    usable = np.flatnonzero(store.available == OK)
    if not len(usable):
        raise UsageError(
            "no frame of the store can be used",
            where=store.uri,
            remedy="convert a source that has some",
        )
    first, last = store.splits["train"]
    train = usable[(store.times[usable] >= first) & (store.times[usable] <= last)]
    pool = train if len(train) else usable
    reader = FrameReader(store, [variable])
    count = min(frames, len(pool), max(1, MAX_BYTES // reader.frame_bytes))
    edges = np.linspace(0, len(pool), count + 1).astype(int)
    chosen = pool[np.random.default_rng(seed).integers(edges[:-1], edges[1:])]
    values = np.empty((count, *reader.frame_shape), np.float32)
    for row, frame in enumerate(chosen.tolist()):
        reader.read(frame, frame + 1, values[row : row + 1])
    last_frame = np.empty((1, *reader.frame_shape), np.float32)
    reader.read(int(usable[-1]), int(usable[-1]) + 1, last_frame)
    return FrameSample(
        variable=variable,
        labels=store.variables[variable].channel_labels,
        period=store.period("train"),
        frames=chosen,
        values_nchw=values,
        last=int(usable[-1]),
        last_chw=last_frame[0],
    )


@dataclass(frozen=True, eq=False)
class Timeline:
    """Which share of the frames of each stretch of time is in which state."""

    first: np.ndarray
    """int64 (bins,): first frame of each stretch"""
    frames: np.ndarray
    """int64 (bins,): frames in it"""
    shares: np.ndarray
    """float64 (states, bins): of the frames, by :data:`STATES`; a column adds up to 1"""
    missing_pixels: np.ndarray
    """float64 (bins,): mean share of pixels without a value over frames that are ok; NaN without"""


def timeline(store: Store, bins: int = MAX_BINS) -> Timeline:
    """The frames of a store in about ``bins`` stretches, none across a jump in time."""
    count = len(store.times)
    jumps = np.flatnonzero(np.diff(store.times) != store.cadence) + 1
    if store.clips is not None:
        jumps = np.empty(0, np.int64)
    length = max(1, -(-count // bins))
    starts = [
        np.arange(begin, end, length)
        for begin, end in zip([0, *jumps], [*jumps, count], strict=True)
    ]
    first = np.concatenate(starts).astype(np.int64)
    frames = np.diff([*first, count])
    shares = np.stack(
        [np.add.reduceat(store.available == flag, first) / frames for flag in range(len(STATES))]
    )
    fraction = np.asarray(store.dataset()["missing_fraction"]).reshape(-1).astype(np.float64)
    usable = store.available == OK
    held = np.add.reduceat(usable, first)
    total = np.add.reduceat(np.where(usable, fraction, 0.0), first)
    pixels = np.where(held > 0, total / np.maximum(held, 1), np.nan)
    return Timeline(first, frames, shares, pixels)
