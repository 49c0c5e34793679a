"""Plan the average of an archive's grid to a coarser regular grid.

On latitude and longitude, a cell counts with its area on the sphere. Longitudes that go around the
earth are periodic, and the first coarse cell has the centre of the first fine cell, as in
WeatherBench. Cells at the poles end at the poles. The directions of the axes are kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from pipelines.archives.contents import ArchiveIndex, VariableIndex
from pipelines.area_average import AreaAverage, AxisOverlap, edges_between, overlaps
from pipelines.errors import UsageError

_OPTION = "--regrid"
_AROUND = 360.0
_TOLERANCE = 1e-4
"""degrees that coordinates may be off, because they may be float32"""


@dataclass(frozen=True)
class CoarseGrid:
    """The grid that was asked for: cells of some degrees, or a number of rows and columns."""

    degrees: float | None = None
    """size of a cell; None if `shape` is given"""
    shape: tuple[int, int] | None = None
    """rows and columns; None if `degrees` is given"""

    @classmethod
    def parse(cls, text: str) -> CoarseGrid:
        """Return a grid from its text on the command line; raise UsageError if it is not a grid.

        >>> CoarseGrid.parse("5.6250"), CoarseGrid.parse("32x64").shape
        (CoarseGrid(degrees=5.625, shape=None), (32, 64))
        """
        try:
            if "x" in text:
                rows, columns = map(int, text.split("x"))
                if min(rows, columns) >= 1:
                    return cls(shape=(rows, columns))
            elif 0 < float(text) <= 90:
                return cls(degrees=float(text))
        except ValueError:
            pass
        raise UsageError(
            f"'{text}' is not a grid",
            where=_OPTION,
            remedy="give degrees, such as 5.625, or rows x columns, such as 32x64",
        )

    def __str__(self) -> str:
        return f"{self.degrees:g}" if self.shape is None else f"{self.shape[0]}x{self.shape[1]}"


def regridded(index: ArchiveIndex, asked: str) -> tuple[ArchiveIndex, dict[str, AreaAverage]]:
    """Return the index of an archive on a coarser grid, and the average for each variable.

    Parameters
    ----------
    asked
        Degrees (`5.625`) or rows x columns (`32x64`).

    Raises
    ------
    UsageError
        The grid is finer than the source's, does not fit around the earth, or is in degrees while
        the source is not.
    """
    grid = CoarseGrid.parse(asked)
    averages = {}
    variables = []
    notes = list(index.notes)
    for variable in index.variables:
        rows, y, beyond_y = _axis(variable, -2, grid)
        columns, x, beyond_x = _axis(variable, -1, grid)
        averages[variable.name] = AreaAverage(rows, columns)
        methods = f"{variable.attributes.get('cell_methods', '')} area: mean".strip()
        variables.append(
            replace(
                variable,
                shape=(*variable.shape[:-2], rows.coarse, columns.coarse),
                coordinates={**variable.coordinates, **y, **x},
                attributes={**variable.attributes, "cell_methods": methods},
            )
        )
        for dim, beyond in zip(variable.dims[-2:], (beyond_y, beyond_x), strict=True):
            if beyond > _TOLERANCE:
                notes.append(
                    f"{variable.name}: {beyond:g} degrees at the end of {dim} fill no whole cell "
                    f"of {grid} degrees and are left out"
                )
    return replace(index, variables=tuple(variables), notes=tuple(notes)), averages


def _axis(
    variable: VariableIndex, axis: int, grid: CoarseGrid
) -> tuple[AxisOverlap, dict[str, np.ndarray], float]:
    """Return overlaps, coarse coordinate, and the degrees at the end that are left out."""
    dim, size = variable.dims[axis], variable.shape[axis]
    values = variable.coordinates.get(dim)
    if dim not in ("latitude", "longitude") or values is None or size < 2:
        return (*_plain_axis(variable, axis, grid), 0.0)
    centres = np.asarray(values, np.float64)
    if dim == "latitude":
        edges = np.clip(edges_between(centres), -90.0, 90.0)
        around = abs(abs(edges[-1] - edges[0]) - 180.0) < _TOLERANCE
    else:
        centres = np.unwrap(centres, period=_AROUND)
        edges = edges_between(centres)
        around = abs(abs(edges[-1] - edges[0]) - _AROUND) < _TOLERANCE * size
        if abs(edges[-1] - edges[0]) > _AROUND + _TOLERANCE * size:
            raise UsageError(
                f"the longitudes of '{variable.name}' cover more than {_AROUND:g} degrees",
                where=_OPTION,
                remedy="regridding needs each place once: cut the source to one turn",
            )
    cells, step = _cells(edges, around, grid, axis, dim)
    _check_coarser(cells, size, dim)
    direction = math.copysign(step, edges[-1] - edges[0])
    if dim == "longitude" and around:
        first = centres[0] - direction / 2
        coarse = first + direction * np.arange(cells + 1)
        axis_overlap = overlaps(edges, coarse, _AROUND)
    else:
        coarse = edges[0] + direction * np.arange(cells + 1)
        if dim == "latitude":
            coarse = np.clip(coarse, -90.0, 90.0)
            axis_overlap = overlaps(_sine(edges), _sine(coarse))
        else:
            axis_overlap = overlaps(edges, coarse)
    beyond = abs(edges[-1] - edges[0]) - cells * step
    return axis_overlap, {dim: np.round((coarse[1:] + coarse[:-1]) / 2, 9)}, float(beyond)


def _cells(
    edges: np.ndarray, around: bool, grid: CoarseGrid, axis: int, dim: str
) -> tuple[int, float]:
    """Return the number of coarse cells between the edges, and their size in degrees."""
    length = float(abs(edges[-1] - edges[0]))
    if grid.shape is not None:
        return grid.shape[axis], (round(length) if around else length) / grid.shape[axis]
    step = grid.degrees or 0.0
    if not around:
        return int((length + _TOLERANCE) // step), step
    cells = round(length / step)
    if cells < 1 or abs(cells * step - round(length)) > _TOLERANCE:
        fitting = round(length) / max(1, cells)
        raise UsageError(
            f"cells of {step:g} degrees do not fill the {length:g} degrees of {dim}",
            where=_OPTION,
            remedy=f"give a whole part of it, such as {fitting:g}, or rows x columns",
        )
    return cells, step


def _plain_axis(
    variable: VariableIndex, axis: int, grid: CoarseGrid
) -> tuple[AxisOverlap, dict[str, np.ndarray]]:
    """Return overlaps and coarse coordinate of an axis in metres or pixels."""
    dim, size = variable.dims[axis], variable.shape[axis]
    if grid.shape is None:
        raise UsageError(
            f"'{variable.name}' has no regular {dim} in degrees",
            where=_OPTION,
            remedy="give rows x columns, such as 32x64",
        )
    cells = grid.shape[axis]
    _check_coarser(cells, size, dim)
    values = variable.coordinates.get(dim)
    known = values is not None and size > 1
    edges = edges_between(values) if values is not None and known else np.arange(size + 1.0)
    coarse = np.linspace(edges[0], edges[-1], cells + 1)
    centres = {dim: (coarse[1:] + coarse[:-1]) / 2} if known else {}
    return overlaps(edges, coarse), centres


def _check_coarser(cells: int, size: int, dim: str) -> None:
    if cells < 1:
        raise UsageError(
            f"no cell fits along {dim}",
            where=_OPTION,
            remedy="give smaller cells, or rows x columns",
        )
    if cells > size:
        raise UsageError(
            f"the grid has {cells} cells along {dim}, the source {size}",
            where=_OPTION,
            remedy="an area average makes grids coarser only: ask for at most the source's cells",
        )


def _sine(latitudes: np.ndarray) -> np.ndarray:
    """Return the sine of latitudes, which is proportional to the area up to the equator."""
    return np.sin(np.deg2rad(latitudes))
