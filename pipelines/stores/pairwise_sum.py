"""Pairwise sums of numbers that come in pieces.

The statistics of a store must not depend on how its frames were cut into blocks, to the last digit:
their fingerprint ties checkpoints to the store.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

_LEAF = 8192
"""numbers that are summed at once; any multiple of 128, as NumPy has it, gives the same bits"""


class PairwiseSum:
    """The sum of `length` numbers that come in pieces.

    The result has the same bits as `np.sum` of all numbers at once, wherever the pieces are cut.
    Halves are added to halves, and where the halves lie depends on `length` alone. The rounding
    error grows with the logarithm of `length`.

    Examples
    --------
    >>> total = PairwiseSum(3)
    >>> total.add(np.array([1.0, 2.0]))
    >>> total.add(np.array([4.0]))
    >>> float(total.result())
    7.0
    """

    def __init__(self, length: int):
        self.length = length
        self._leaves = _leaves(length)
        self._size, self._joins = next(self._leaves)
        self._buffer = np.empty(min(length, _LEAF))
        self._filled = 0
        self._sums: list[Any] = []

    def add(self, values: np.ndarray) -> None:
        """Add the next numbers."""
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
        """Return the sum; raise ValueError unless exactly `length` numbers were added."""
        if not self.length:
            return np.float64(0.0)
        if len(self._sums) != 1 or self._filled:
            raise ValueError(f"fewer or more than {self.length} numbers were added")
        return self._sums[0]


def _leaves(length: int) -> Iterator[tuple[int, int]]:
    """Yield the size of each run, and the number of earlier sums that its sum is added to."""
    if length <= _LEAF:
        yield length, 0
        return
    half = length // 2
    half -= half % 8
    yield from _leaves(half)
    *rest, (size, joins) = _leaves(length - half)
    yield from rest
    yield size, joins + 1
