"""Averages over areas: fields on one grid to a coarser one whose cells overlap the first's.

A grid is a pair of axes and an axis a row of edges in a measure of area: pixels, metres, degrees of
longitude, the sine of latitude. A coarse cell is the mean of the cells that it overlaps, each
weighted with the area that the two share (first-order conservative: Jones, 1999,
doi:10.1175/1520-0493(1999)127<2204:FASOCR>2.0.CO;2).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.errors import UsageError

LEAST_VALID = 0.5
"""a coarse cell of which less than this fraction has values is missing"""

_BLOCK_BYTES = 4 * 1024**2
"""bytes of float64 that are worked on at once"""
_ROUNDING = 1e-10
"""of a cell: overlaps below it come from the rounding of edges that were meant to be equal"""


@dataclass(frozen=True, eq=False)
class AxisOverlap:
    """How much of every fine cell of one axis lies in each coarse one."""

    fine: int
    """fine cells"""
    extent: np.ndarray
    """float64 (coarse,): length of each coarse cell"""
    taps: tuple[tuple[np.ndarray, np.ndarray, np.ndarray], ...]
    """coarse cells, a fine cell of each, and the length that they share; the first tap has the
    first fine cell of every coarse one, the second the second of those that have one ..."""

    @property
    def coarse(self) -> int:
        """Coarse cells."""
        return len(self.extent)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Values ``(n, fine, m)`` weighted with their overlaps and added: ``(n, coarse, m)``."""
        total = np.zeros((len(values), self.coarse, values.shape[2]))
        for coarse, fine, length in self.taps:
            part = values[:, fine] * length[:, None]
            if len(coarse) == self.coarse:
                total += part
            else:
                total[:, coarse] += part
        return total


@dataclass(frozen=True, eq=False)
class AreaAverage:
    """From one grid to a coarser one.

    >>> halve = AreaAverage(equal_parts(2, 1), equal_parts(4, 2))
    >>> halve(np.array([[1.0, 3.0, 5.0, np.nan], [1.0, 3.0, 7.0, np.nan]]))
    array([[2., 6.]])
    """

    rows: AxisOverlap
    columns: AxisOverlap

    @property
    def fine_shape(self) -> tuple[int, int]:
        """(y, x) of what comes in."""
        return self.rows.fine, self.columns.fine

    @property
    def coarse_shape(self) -> tuple[int, int]:
        """(y, x) of what goes out."""
        return self.rows.coarse, self.columns.coarse

    def __call__(self, values: np.ndarray, least_valid: float = LEAST_VALID) -> np.ndarray:
        """Average fields.

        Parameters
        ----------
        values:
            ``(..., y, x)`` on the fine grid; NaN is missing and counts for nothing.
        least_valid:
            Fraction of a coarse cell's area that must have values; the cell is NaN below it.

        Returns
        -------
        float64 ``(..., y, x)`` on the coarse grid. A field's result does not depend on the others
        that are averaged with it.
        """
        fields = values.reshape(-1, *self.fine_shape)
        result = np.empty((len(fields), *self.coarse_shape))
        step = max(1, _BLOCK_BYTES // (8 * self.rows.fine * self.columns.fine))
        for begin in range(0, len(fields), step):
            block = fields[begin : begin + step].astype(np.float64)
            result[begin : begin + step] = self._averages(block, least_valid)
        return result.reshape(*values.shape[:-2], *self.coarse_shape)

    def digest(self) -> str:
        """sha256 of both grids."""
        digest = hashlib.sha256()
        for axis in (self.rows, self.columns):
            digest.update(f"{axis.fine} {axis.coarse}".encode())
            for coarse, fine, length in axis.taps:
                digest.update(coarse.astype("<i8").tobytes() + fine.astype("<i8").tobytes())
                digest.update(np.round(length / axis.extent[coarse], 6).astype("<f8").tobytes())
        return digest.hexdigest()

    def _averages(self, block: np.ndarray, least_valid: float) -> np.ndarray:
        extent = np.outer(self.rows.extent, self.columns.extent)
        missing = np.isnan(block)
        if not missing.any():
            covered = self._sums(np.ones((1, *self.fine_shape)))
        else:
            block[missing] = 0.0
            covered = self._sums((~missing).astype(np.float64))
        with np.errstate(invalid="ignore", divide="ignore"):
            means = self._sums(block) / covered
        # Half a cell is half a cell, whatever the last digit says.
        means[np.broadcast_to(covered < (least_valid - 1e-9) * extent, means.shape)] = np.nan
        return means

    def _sums(self, fields: np.ndarray) -> np.ndarray:
        by_row = self.rows.sums(fields)
        return self.columns.sums(by_row.swapaxes(1, 2)).swapaxes(1, 2)


def overlaps(
    fine_edges: np.ndarray, coarse_edges: np.ndarray, period: float | None = None
) -> AxisOverlap:
    """How the cells between some edges overlap those between others.

    Parameters
    ----------
    fine_edges, coarse_edges:
        (cells + 1,): rising or falling, each in its own direction.
    period:
        Of an axis that closes on itself: 360 for longitude.

    Raises
    ------
    UsageError
        A coarse cell overlaps no fine one.

    >>> overlaps(np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.0, 1.5, 3.0])).taps[1][2]
    array([0.5, 1. ])
    """
    fine, coarse = _cells(fine_edges), _cells(coarse_edges)
    shared = np.zeros((len(coarse), len(fine)))
    for shift in _shifts(fine, coarse, period):
        low = np.maximum(coarse[:, None, 0], fine[None, :, 0] + shift)
        high = np.minimum(coarse[:, None, 1], fine[None, :, 1] + shift)
        shared += np.maximum(high - low, 0.0)
    extent = coarse[:, 1] - coarse[:, 0]
    smaller = np.minimum(extent[:, None], (fine[:, 1] - fine[:, 0])[None, :])
    shared[shared < _ROUNDING * smaller] = 0.0
    counts = (shared > 0).sum(axis=1)
    if not counts.all():
        raise UsageError(
            f"cell {int(np.argmin(counts))} of the coarse grid lies outside the fine one",
            where="area average",
            remedy="choose a coarse grid inside the source's",
        )
    # Fine cells of each coarse one in their own order, the overlapping ones first.
    order = np.argsort(shared == 0, axis=1, kind="stable")
    taps = []
    for number in range(int(counts.max())):
        chosen = np.flatnonzero(counts > number)
        cells = order[chosen, number]
        taps.append((chosen, cells, shared[chosen, cells]))
    return AxisOverlap(len(fine), extent, tuple(taps))


def equal_parts(fine: int, coarse: int) -> AxisOverlap:
    """``fine`` equal cells, such as pixels, to ``coarse`` equal cells of the same whole."""
    return overlaps(np.arange(fine + 1.0), np.linspace(0.0, fine, coarse + 1))


def edges_between(centres: Sequence[float] | np.ndarray) -> np.ndarray:
    """Edges half-way between neighbouring centres, and as far outside the first and the last.

    >>> edges_between([0.0, 2.0, 4.0])
    array([-1.,  1.,  3.,  5.])
    """
    values = np.asarray(centres, np.float64)
    middle = (values[1:] + values[:-1]) / 2
    return np.concatenate(
        [[values[0] - (middle[0] - values[0])], middle, [2 * values[-1] - middle[-1]]]
    )


def _cells(edges: np.ndarray) -> np.ndarray:
    """(cells, 2): the lower and the upper edge of each."""
    edges = np.asarray(edges, np.float64)
    return np.sort(np.stack([edges[:-1], edges[1:]], axis=1), axis=1)


def _shifts(fine: np.ndarray, coarse: np.ndarray, period: float | None) -> list[float]:
    """By how much the fine axis is repeated until it covers the coarse one."""
    if period is None:
        return [0.0]
    first = int(np.floor((coarse.min() - fine.max()) / period))
    last = int(np.ceil((coarse.max() - fine.min()) / period))
    return [period * number for number in range(first, last + 1)]
