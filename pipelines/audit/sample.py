"""Data for pictures of a store: a bounded sample of its frames, and when frames are missing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.cf import FLAG_MEANINGS, OK
from pipelines.errors import UsageError
from pipelines.stores.reader import FrameReader
from pipelines.stores.store import Store

MAX_FRAMES = 48
"""Frames of a sample."""
MAX_BYTES = 64 * 1024**2
"""Bytes of a sample at most; large frames make it smaller."""
MAX_BINS = 360
"""Stretches of a timeline: about one per pixel column of its figure."""


@dataclass(frozen=True, eq=False)
class FrameSample:
    """Some frames of one variable."""

    variable: str
    """name of the variable"""
    labels: tuple[str, ...]
    """(C,) names of its channels"""
    period: tuple[str, str]
    """first and last time of the train period, or its first and last clip"""
    frames: np.ndarray
    """int64 (n,): the sampled frames of the store, increasing"""
    values_nchw: np.ndarray
    """float32, physical units, NaN where missing"""
    last: int
    """the last frame of the store that can be used"""
    last_chw: np.ndarray
    """its values, float32, physical units"""

    @property
    def mean_chw(self) -> np.ndarray:
        """Mean over the sampled frames, float64 (C, H, W); NaN where no frame has a value."""
        held = ~np.isnan(self.values_nchw)
        total = np.where(held, self.values_nchw, 0.0).sum(axis=0, dtype=np.float64)
        count = held.sum(axis=0)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def sample_frames(
    store: Store, variable: str, *, frames: int = MAX_FRAMES, seed: int = 0
) -> FrameSample:
    """Return one random frame from each of `frames` equal parts of the train period.

    Even distances could take every frame at the same hour. Fewer frames are returned if `frames` of
    them exceed `MAX_BYTES`.

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
            remedy="convert a source that has readable frames",
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
    """The states of frames over time, in stretches of time."""

    first: np.ndarray
    """int64 (bins,): first frame of each stretch"""
    frames: np.ndarray
    """int64 (bins,): number of frames in each stretch"""
    shares: np.ndarray
    """float64 (states, bins): fraction of frames in each state of `cf.FLAG_MEANINGS`; a column adds
    up to 1"""
    missing_pixels: np.ndarray
    """float64 (bins,): mean fraction of missing pixels over the usable frames; NaN without any"""


def timeline(store: Store, bins: int = MAX_BINS) -> Timeline:
    """Return the states of a store's frames in about `bins` stretches of time.

    No stretch crosses a jump in time.
    """
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
        [
            np.add.reduceat(store.available == flag, first) / frames
            for flag in range(len(FLAG_MEANINGS))
        ]
    )
    fraction = np.asarray(store.dataset()["missing_fraction"]).reshape(-1).astype(np.float64)
    usable = store.available == OK
    held = np.add.reduceat(usable, first)
    total = np.add.reduceat(np.where(usable, fraction, 0.0), first)
    pixels = np.where(held > 0, total / np.maximum(held, 1), np.nan)
    return Timeline(first, frames, shares, pixels)
