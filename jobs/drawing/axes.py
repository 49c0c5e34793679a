"""Axes of maps, whose rows and columns are degrees, kilometres of a projection, or cells."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from pipelines.stores.store import Store

Kind = Literal["degrees", "kilometres", "cells"]
_DEGREES = {"degrees_north", "degrees_east", "degree_north", "degree_east"}
_NO_UNIT = {"", "1", "pixel", "cell", "cells"}
_GLOBAL = 90.0
"""Largest span of latitude, in degrees, of a map that is drawn true to scale at its middle."""
_DRAWN_CELLS = 1000
"""Most cells that are drawn along one side of a map."""


@dataclass(frozen=True)
class GridAxes:
    """The coordinates of a field's rows and columns, and how they are drawn."""

    kind: Kind
    rows: np.ndarray
    """(H,) centres of the cells: degrees north, kilometres, or indices from 0."""
    columns: np.ndarray
    """(W,) centres of the cells: degrees east, kilometres, or indices from 0."""
    row_label: str
    column_label: str
    downwards: bool
    """Whether rows are counted downwards, as in an image."""

    @property
    def aspect(self) -> float:
        """Drawn length of one unit of the rows, divided by that of one unit of the columns.

        A region in degrees is true to scale at its middle latitude. On a map of the globe a
        degree has the same length in both directions.
        """
        if self.kind != "degrees" or np.ptp(self.rows) > _GLOBAL:
            return 1.0
        return 1 / max(0.2, float(np.cos(np.deg2rad(self.rows.mean()))))

    @property
    def cell_km(self) -> float | None:
        """Side of a cell in kilometres, or None unless the grid has square cells in kilometres."""
        if self.kind != "kilometres":
            return None
        sides = [_step(self.rows), _step(self.columns)]
        if None in sides:
            return None
        down, across = (float(side or 0.0) for side in sides)
        return (down + across) / 2 if abs(down - across) < 0.05 * across else None

    @property
    def ratio(self) -> float:
        """Height of a map divided by its width, limited to a range that fits on a page."""
        sides = np.ptp(self.rows) or 1.0, np.ptp(self.columns) or 1.0
        return float(np.clip(self.aspect * sides[0] / sides[1], 0.35, 1.6))

    def draw(self, axes: Any, values: np.ndarray, colours: Any, norm: Any) -> Any:
        """Draw a field (H, W) as a map and return the matplotlib mesh.

        Of a large field, only every n-th row and column is drawn.
        """
        step = math.ceil(max(values.shape) / _DRAWN_CELLS)
        image = axes.pcolormesh(
            self.columns[::step],
            self.rows[::step],
            values[::step, ::step],
            cmap=colours,
            norm=norm,
            shading="nearest",
        )
        self.decorate(axes)
        return image

    def decorate(self, axes: Any, ticks: int = 5) -> None:
        """Set the ticks, labels, direction and scale of the axes of a map."""
        from matplotlib.ticker import FuncFormatter, MaxNLocator

        for axis, values in ((axes.xaxis, self.columns), (axes.yaxis, self.rows)):
            wide = self.kind == "degrees" and 60 < np.ptp(values) <= 360
            steps = [1, 3, 4.5, 6, 9, 10] if wide else [1, 2, 2.5, 5, 10]
            axis.set_major_locator(
                MaxNLocator(nbins=ticks, steps=steps, integer=self.kind == "cells")
            )
        if self.kind == "degrees":
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: longitude(x)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: latitude(y)))
        axes.set(xlabel=self.column_label, ylabel=self.row_label, aspect=self.aspect)
        if self.downwards:
            axes.set_ylim(*sorted(axes.get_ylim(), reverse=True))


def grid_axes(store: Store, variable: str) -> GridAxes:
    """Return the axes of a variable's grid, from the coordinates of the store and their units.

    Rows without coordinates are counted downwards, as in an image.
    """
    dims, sizes = store.variables[variable].dims[-2:], store.variables[variable].shape[-2:]
    known = [dim in store.coordinates for dim in dims]
    dataset = store.dataset() if any(known) else {}
    values, units = [], []
    for dim, size, has in zip(dims, sizes, known, strict=True):
        values.append(np.asarray(store.coordinates[dim], float) if has else np.arange(float(size)))
        attributes: Mapping[Any, Any] = dataset[dim].attrs if has else {}
        units.append(str(attributes.get("units", "")))
    if units == ["m", "m"]:
        values, units = [value / 1000 for value in values], ["km", "km"]
    rows, columns = values
    if dims == ("latitude", "longitude") or set(units) <= _DEGREES:
        return GridAxes("degrees", rows, columns, "latitude", "longitude", False)
    if units == ["km", "km"]:
        return GridAxes("kilometres", rows, columns, f"{dims[0]} (km)", f"{dims[1]} (km)", False)
    shown = [unit if unit not in _NO_UNIT else "pixel" for unit in units]
    labels = [f"{dim} ({unit})" for dim, unit in zip(dims, shown, strict=True)]
    return GridAxes("cells", rows, columns, labels[0], labels[1], not known[0])


def latitude(degrees: float) -> str:
    """Return a latitude as text.

    >>> latitude(52.5), latitude(-30), latitude(0)
    ('52.5°N', '30°S', '0°')
    """
    return f"{abs(degrees):.4g}°{'N' if degrees > 0 else 'S' if degrees < 0 else ''}"


def longitude(degrees: float) -> str:
    """Return a longitude as text, from 180° west to 180° east. Any number of degrees is valid.

    >>> longitude(10), longitude(350), longitude(-0.25), longitude(180), longitude(360)
    ('10°E', '10°W', '0.25°W', '180°', '0°')
    """
    turned = round((degrees + 180) % 360 - 180, 6)
    side = "" if turned in (0, -180) else "E" if turned > 0 else "W"
    return f"{abs(turned):.4g}°{side}"


def _step(values: np.ndarray) -> float | None:
    """Return the distance between neighbours, or None if it is not the same for all.

    >>> _step(np.array([4.0, 2.0, 0.0])), _step(np.array([1.0, 2.0, 4.0]))
    (2.0, None)
    """
    steps = np.abs(np.diff(values))
    if not len(steps) or np.ptp(steps) > 0.01 * steps.mean():
        return None
    return float(steps.mean())
