"""Average fields from a grid to a coarser one, weighted by area.

A grid is a pair of axes. An axis is a row of edges in a unit that is proportional to area: pixels,
metres, degrees of longitude, the sine of latitude. A coarse cell is the mean of the fine cells that
it overlaps, each weighted with the area that the two share (first-order conservative: Jones, 1999,
doi:10.1175/1520-0493(1999)127<2204:FASOCR>2.0.CO;2).

The project has its own code for this because a store must hold the same bits however its frames
are grouped into blocks, and because regridding libraries need a compiled dependency.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.errors import UsageError

LEAST_VALID = 0.5
"""smallest fraction of a coarse cell that must have values; otherwise the cell is missing"""

_BLOCK_BYTES = 4 * 1024**2
"""bytes of float64 that are averaged at once"""
_ROUNDING = 1e-10
"""fraction of a cell: smaller overlaps are rounding errors of edges that should be equal"""


@dataclass(frozen=True, eq=False)
class AxisOverlap:
    """The overlap of the fine and the coarse cells of one axis."""

    fine: int
    """number of fine cells"""
    extent: np.ndarray
    """float64 (coarse,): length of each coarse cell"""
    taps: tuple[tuple[np.ndarray, np.ndarray, np.ndarray], ...]
    """Each tap has coarse cells, one fine cell of each, and the length that the two share. The
    first tap has the first fine cell of every coarse cell, the second tap the second fine cell of
    those that have one, and so on"""

    @property
    def coarse(self) -> int:
        """Number of coarse cells."""
        return len(self.extent)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Return the sums of values (n, fine, m) weighted with their overlaps: (n, coarse, m)."""
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
    """Averages fields from one grid to a coarser one.

    >>> halve = AreaAverage(equal_parts(2, 1), equal_parts(4, 2))
    >>> halve(np.array([[1.0, 3.0, 5.0, np.nan], [1.0, 3.0, 7.0, np.nan]]))
    array([[2., 6.]])
    """

    rows: AxisOverlap
    columns: AxisOverlap

    @property
    def fine_shape(self) -> tuple[int, int]:
        """Shape (y, x) of the fine grid."""
        return self.rows.fine, self.columns.fine

    @property
    def coarse_shape(self) -> tuple[int, int]:
        """Shape (y, x) of the coarse grid."""
        return self.rows.coarse, self.columns.coarse

    def __call__(self, values: np.ndarray, least_valid: float = LEAST_VALID) -> np.ndarray:
        """Return fields averaged to the coarse grid.

        Parameters
        ----------
        values:
            (..., y, x) on the fine grid; NaN is missing and does not count.
        least_valid:
            Fraction of a coarse cell's area that must have values; otherwise the cell is NaN.

        Returns
        -------
        float64 (..., y, x) on the coarse grid. The result of a field does not depend on the other
        fields that are averaged with it.
        """
        fields = values.reshape(-1, *self.fine_shape)
        result = np.empty((len(fields), *self.coarse_shape))
        step = max(1, _BLOCK_BYTES // (8 * self.rows.fine * self.columns.fine))
        for begin in range(0, len(fields), step):
            block = fields[begin : begin + step].astype(np.float64)
            result[begin : begin + step] = self._averages(block, least_valid)
        return result.reshape(*values.shape[:-2], *self.coarse_shape)

    def digest(self) -> str:
        """Return the sha256 of both grids."""
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
        # The tolerance keeps cells that are covered to exactly this fraction, up to rounding.
        means[np.broadcast_to(covered < (least_valid - 1e-9) * extent, means.shape)] = np.nan
        return means

    def _sums(self, fields: np.ndarray) -> np.ndarray:
        by_row = self.rows.sums(fields)
        return self.columns.sums(by_row.swapaxes(1, 2)).swapaxes(1, 2)


def overlaps(
    fine_edges: np.ndarray, coarse_edges: np.ndarray, period: float | None = None
) -> AxisOverlap:
    """Return how the fine and the coarse cells of an axis overlap.

    Parameters
    ----------
    fine_edges, coarse_edges:
        (cells + 1,): increasing or decreasing, independently of each other.
    period:
        Length of an axis that is periodic, such as 360 for longitude; None if it is not.

    Raises
    ------
    UsageError
        A coarse cell overlaps no fine cell.

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
            f"cell {int(np.argmin(counts))} of the coarse grid is outside the fine grid",
            where="area average",
            remedy="choose a coarse grid inside the source's",
        )
    # For each coarse cell: the fine cells that overlap it, in their order, and then all others.
    order = np.argsort(shared == 0, axis=1, kind="stable")
    taps = []
    for number in range(int(counts.max())):
        chosen = np.flatnonzero(counts > number)
        cells = order[chosen, number]
        taps.append((chosen, cells, shared[chosen, cells]))
    return AxisOverlap(len(fine), extent, tuple(taps))


def equal_parts(fine: int, coarse: int) -> AxisOverlap:
    """Return the overlap of an axis of equal cells, such as pixels, with fewer equal cells."""
    return overlaps(np.arange(fine + 1.0), np.linspace(0.0, fine, coarse + 1))


def edges_between(centres: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return edges half-way between neighbouring centres, and equally far outside the outer two.

    >>> edges_between([0.0, 2.0, 4.0])
    array([-1.,  1.,  3.,  5.])
    """
    values = np.asarray(centres, np.float64)
    middle = (values[1:] + values[:-1]) / 2
    return np.concatenate(
        [[values[0] - (middle[0] - values[0])], middle, [2 * values[-1] - middle[-1]]]
    )


def _cells(edges: np.ndarray) -> np.ndarray:
    """Return the lower and the upper edge of each cell, (cells, 2)."""
    edges = np.asarray(edges, np.float64)
    return np.sort(np.stack([edges[:-1], edges[1:]], axis=1), axis=1)


def _shifts(fine: np.ndarray, coarse: np.ndarray, period: float | None) -> list[float]:
    """Return the shifts of a periodic fine axis whose copies together cover the coarse axis."""
    if period is None:
        return [0.0]
    first = int(np.floor((coarse.min() - fine.max()) / period))
    last = int(np.ceil((coarse.max() - fine.min()) / period))
    return [period * number for number in range(first, last + 1)]
