"""Sums of numbers that come in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

_LEAF = 8192
"""numbers that are added up at once; any multiple of numpy's own 128 gives the same sum"""


class PairwiseSum:
    """The sum of ``length`` numbers that come in pieces, bit for bit that of all of them at once.

    Halves are added to halves, and where the halves lie depends on ``length`` alone: the error
    grows with its logarithm, and where the pieces are cut changes nothing. The cuts are those of
    numpy's own sum.
    """

    def __init__(self, length: int):
        self.length = length
        self._leaves = _leaves(length)
        self._size, self._joins = next(self._leaves)
        self._buffer = np.empty(min(length, _LEAF))
        self._filled = 0
        self._sums: list[Any] = []

    def add(self, values: np.ndarray) -> None:
        """The next numbers."""
        while len(values):
            part = values[: self._size - self._filled]
            self._buffer[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            values = values[len(part) :]
            if self._filled == self._size:
                total = np.add.reduce(self._buffer[: self._size])
                for _ in range(self._joins):
                    total = self._sums.pop() + total
                self._sums.append(total)
                self._filled = 0
                self._size, self._joins = next(self._leaves, (_LEAF, 0))

    def result(self) -> Any:
        """The sum; ValueError where numbers are still to come."""
        if not self.length:
            return np.float64(0.0)
        if len(self._sums) != 1 or self._filled:
            raise ValueError(f"fewer or more than {self.length} numbers were added")
        return self._sums[0]


def _leaves(length: int) -> Iterator[tuple[int, int]]:
    """Runs that are summed at once, and with how many earlier sums each is joined then."""
    if length <= _LEAF:
        yield length, 0
        return
    half = length // 2
    half -= half % 8
    yield from _leaves(half)
    *rest, (size, joins) = _leaves(length - half)
    yield from rest
    yield size, joins + 1
