"""Moments of whole time axes, outside of memory: a store of any length is summed up in the same.

A table lies in a nameless temporary file, which ends with it. It is filled shard by shard in any
order and read in the order of time, as often as the reductions need to pass over it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np

from pipelines.stores.statistics import MOMENTS, missing_moments


class MomentsTable:
    """Moments of one variable, in a temporary file of 48 bytes a frame and channel."""

    def __init__(self, channels: int):
        self.channels = channels
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  closed by close()
        self._frame_bytes = 8 * channels * len(MOMENTS)

    def write(self, start: int, moments: np.ndarray) -> None:
        """Keep moments (n, channels, 6) of the frames from ``start`` on."""
        left = np.ascontiguousarray(moments, np.float64).data.cast("B")
        place = start * self._frame_bytes
        while left:
            written = os.pwrite(self._file.fileno(), left, place)
            left, place = left[written:], place + written

    def read(self, start: int, stop: int) -> np.ndarray:
        """See :class:`pipelines.stores.statistics.Moments`; the frames must have been written."""
        moments = np.empty((stop - start, self.channels, len(MOMENTS)))
        left, place = moments.data.cast("B"), start * self._frame_bytes
        while left:
            count = os.preadv(self._file.fileno(), [left], place)
            if not count:
                raise EOFError(f"no moments of frames {start} to {stop - 1} were written")
            left, place = left[count:], place + count
        return moments

    def close(self) -> None:
        """End the file."""
        self._file.close()


@dataclass(frozen=True)
class NoMoments:
    """Moments of frames that all hold nothing."""

    channels: int
    pixels: int
    """of one channel of one frame"""

    def read(self, start: int, stop: int) -> np.ndarray:
        """See :class:`pipelines.stores.statistics.Moments`."""
        return missing_moments(stop - start, self.channels, self.pixels)


@contextmanager
def moments_tables(channels: Mapping[str, int]) -> Iterator[dict[str, MomentsTable]]:
    """A table for each variable, given its number of channels, for the length of the block."""
    with ExitStack() as ending:
        tables = {}
        for name, count in channels.items():
            tables[name] = MomentsTable(count)
            ending.callback(tables[name].close)
        yield tables
