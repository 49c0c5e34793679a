"""Moments of single frames (count, sum, spread, extremes), and a table of them on disk.

Sums of squares are of deviations from the frame's own mean. A field far from zero with little
spread (surface pressure, geopotential) therefore loses no digits.
`pipelines.stores.statistics` reduces moments over a period.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

MOMENTS = ("count", "nan_count", "sum", "squares", "min", "max")
"""columns of moments: float64 (frames, channels, 6)"""
COUNT, NANS, SUM, SQUARES, MIN, MAX = range(len(MOMENTS))

_BLOCK_VALUES = 131_072
"""values that are worked on at once: 1 MiB as float64, which stays in the cache"""
_BLOCK_ROWS = 8192
"""rows of moments, frames times channels, that are read at once: 384 KiB"""


def frame_moments(frames: np.ndarray) -> np.ndarray:
    """Return the moments of every frame and channel.

    Parameters
    ----------
    frames
        float32 `(n, *extra, y, x)`. NaN is missing.

    Returns
    -------
    np.ndarray
        float64 `(n, channels, 6)`: the columns `MOMENTS`. Channels are the extra dimensions,
        flattened. Minimum and maximum are NaN where a frame has no value.
    """
    n, height, width = len(frames), frames.shape[-2], frames.shape[-1]
    rows = frames.reshape(-1, height * width)
    moments = np.empty((len(rows), len(MOMENTS)))
    step = max(1, _BLOCK_VALUES // rows.shape[1])
    for begin in range(0, len(rows), step):
        _row_moments(rows[begin : begin + step], moments[begin : begin + step])
    return moments.reshape(n, -1, len(MOMENTS))


def _row_moments(rows: np.ndarray, out: np.ndarray) -> None:
    pixels = rows.shape[1]
    values = rows.astype(np.float64)
    total = values.sum(axis=1)
    # The common case: no pixel is missing, and no mask is needed.
    if np.isfinite(total).all():
        out[:, COUNT], out[:, NANS], out[:, SUM] = pixels, 0, total
        values -= (total / pixels)[:, None]
        np.einsum("ij,ij->i", values, values, out=out[:, SQUARES])
        out[:, MIN], out[:, MAX] = rows.min(axis=1), rows.max(axis=1)
        return
    missing = np.isnan(rows)
    count = pixels - missing.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        total = np.where(missing, 0.0, values).sum(axis=1)
        deviations = np.where(missing, 0.0, values - (total / np.maximum(count, 1))[:, None])
        out[:, SQUARES] = np.einsum("ij,ij->i", deviations, deviations)
    out[:, COUNT], out[:, NANS], out[:, SUM] = count, pixels - count, total
    empty = count == 0
    out[:, MIN] = np.where(empty, np.nan, np.where(missing, np.inf, rows).min(axis=1))
    out[:, MAX] = np.where(empty, np.nan, np.where(missing, -np.inf, rows).max(axis=1))


def missing_moments(frames: int, channels: int, pixels: int) -> np.ndarray:
    """Return the moments of frames without any value, float64 (frames, channels, 6).

    Parameters
    ----------
    pixels
        Pixels of one channel of one frame.
    """
    moments = np.zeros((frames, channels, len(MOMENTS)))
    moments[..., NANS] = pixels
    moments[..., MIN:] = np.nan
    return moments


class Moments(Protocol):
    """The moments of every frame of a variable, in memory or on disk."""

    @property
    def channels(self) -> int:
        """The number of extra entries (levels x members), or 1."""
        ...

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the moments of frames [start, stop), float64 (stop - start, channels, 6)."""
        ...


def blocks(moments: Moments, start: int, stop: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield the moments of frames [start, stop) in order of time, a block at a time.

    Yields
    ------
    part : slice
        Which frames the block has.
    block : np.ndarray
        Their moments, float64 (n, channels, 6).
    """
    step = max(1, _BLOCK_ROWS // moments.channels)
    for begin in range(start, stop, step):
        end = min(begin + step, stop)
        yield slice(begin, end), moments.read(begin, end)


class MomentsTable:
    """The moments of one variable, in a temporary file of 48 bytes per frame and channel.

    The table is filled shard by shard in any order, and read in order of time as often as the
    reductions need it. It keeps the memory of a conversion independent of the length of the store.
    The file has no name, so that it disappears with the process.
    """

    def __init__(self, channels: int):
        self.channels = channels
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  closed by close()
        self._frame_bytes = 8 * channels * len(MOMENTS)

    def write(self, start: int, moments: np.ndarray) -> None:
        """Write the moments (n, channels, 6) of the frames from `start` on."""
        left = np.ascontiguousarray(moments, np.float64).data.cast("B")
        place = start * self._frame_bytes
        while left:
            written = os.pwrite(self._file.fileno(), left, place)
            left, place = left[written:], place + written

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the moments of frames [start, stop), which must have been written."""
        moments = np.empty((stop - start, self.channels, len(MOMENTS)))
        left, place = moments.data.cast("B"), start * self._frame_bytes
        while left:
            count = os.preadv(self._file.fileno(), [left], place)
            if not count:
                raise EOFError(f"the moments of frames {start} to {stop - 1} were never written")
            left, place = left[count:], place + count
        return moments

    def close(self) -> None:
        """Remove the file."""
        self._file.close()


@dataclass(frozen=True)
class NoMoments:
    """The moments of frames that are all without any value."""

    channels: int
    pixels: int
    """pixels of one channel of one frame"""

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the moments of frames [start, stop), float64 (stop - start, channels, 6)."""
        return missing_moments(stop - start, self.channels, self.pixels)


@contextmanager
def moments_tables(channels: Mapping[str, int]) -> Iterator[dict[str, MomentsTable]]:
    """Give a table for each variable while the block runs.

    Parameters
    ----------
    channels
        Number of channels by variable.
    """
    with ExitStack() as ending:
        tables = {}
        for name, count in channels.items():
            tables[name] = MomentsTable(count)
            ending.callback(tables[name].close)
        yield tables
