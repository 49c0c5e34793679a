"""Maps of fields as PNG: a colour bar, axes with units, missing pixels hatched, motion arrows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from jobs.drawing.axes import GridAxes
from jobs.drawing.palettes import ERROR, MISSING, SIZE, Palette
from jobs.drawing.style import STYLE, png

WIDTH = 4.4
"""Width of a map with its margins, in inches."""
_LEFT, _RIGHT, _TOP, _BELOW, _BAR = 0.92, 0.12, 0.08, 0.52, 0.68
_DPI = 130
_DRAWN_PIXELS = 600
"""Most pixels that are drawn along one side of a map. Larger grids are averaged."""
_LINES = (("dotted", 0.9), ("dashed", 1.0), ("solid", 1.3))


@dataclass(frozen=True)
class Arrows:
    """Arrows of motion over a field."""

    rows: np.ndarray
    """(n,) rows of the middles of the arrows, as indices of the grid from 0."""
    columns: np.ndarray
    """(m,) columns of the middles of the arrows, as indices of the grid from 0."""
    down: np.ndarray
    """(n, m) motion towards the last row, in cells per frame."""
    right: np.ndarray
    """(n, m) motion towards the last column, in cells per frame."""


@dataclass(frozen=True)
class MapStyle:
    """The style that the maps of one quantity share."""

    axes: GridAxes
    palette: Palette
    low: float
    high: float
    label: str
    """The label of the colour bar: quantity and unit."""
    width: float = WIDTH
    """The width of a map with its margins, in inches."""


def field_map(
    values_hw: np.ndarray, style: MapStyle, arrows: Arrows | None = None, key: str = ""
) -> bytes:
    """Draw one field as a map and return it as PNG.

    `key` is the unit of the arrow in the legend.
    """
    import matplotlib

    with matplotlib.rc_context(_context()):
        figure, (axes,) = panels(style, 1, head=0.28 if arrows is not None else 0.0)
        draw_field(axes, values_hw, style)
        if arrows is not None:
            _arrows(axes, arrows, style.axes, key)
        colour_bar(figure, style)
        return png(figure, _DPI, style.palette.scale(0, 1)[0])


def error_map(values_hw: np.ndarray, axes: GridAxes, largest: float, label: str) -> bytes:
    """Draw forecast minus truth as a map centred on zero and return it as PNG.

    A dashed contour encloses where the forecast is too low by a third of `largest`, a solid one
    where it is too high by as much.
    """
    import matplotlib

    style = MapStyle(axes, ERROR, -largest, largest, label)
    with matplotlib.rc_context(_context()):
        figure, (panel,) = panels(style, 1)
        values, shown = _averaged(values_hw, axes)
        draw_field(panel, values_hw, style)
        for level, dashes in ((-largest / 3, "--"), (largest / 3, "-")):
            _contour(panel, shown, values, level, dashes, 0.9)
        colour_bar(figure, style)
        return png(figure, _DPI, style.palette.scale(0, 1)[0])


def panels(style: MapStyle, count: int, head: float = 0.0) -> tuple[Any, list[Any]]:
    """Return a figure, and axes for `count` maps side by side above room for one colour bar.

    `head` is the room for titles above the maps, in inches.

    The positions are computed here because a page has hundreds of maps, for which the layout engine
    of matplotlib is too slow.
    """
    from matplotlib.figure import Figure

    rows, columns = (_extent(x) for x in (style.axes.rows, style.axes.columns))
    widest = style.width - _LEFT - _RIGHT
    ratio = style.axes.aspect * rows / columns
    height = min(widest * ratio, 1.15 * widest)
    across = height / ratio
    room = style.width * count
    total = head + _TOP + height + _BELOW + _BAR
    figure = Figure(figsize=(room, total))
    made = []
    for place in range(count):
        left = place * style.width + _LEFT + (widest - across) / 2
        box = (left / room, (_BELOW + _BAR) / total, across / room, height / total)
        made.append(figure.add_axes(box))
    return figure, made


def draw_field(axes: Any, values_hw: np.ndarray, style: MapStyle) -> Any:
    """Draw a field into the axes of a map and return the matplotlib mesh."""
    values, grid = _averaged(values_hw, style.axes)
    colours, norm = style.palette.scale(style.low, style.high)
    # Missing pixels are transparent and show the hatching.
    axes.patch.set(**MISSING)
    image = axes.pcolormesh(
        grid.columns, grid.rows, values, cmap=colours, norm=norm, shading="nearest", rasterized=True
    )
    for level, (dashes, width) in zip(style.palette.lines, _LINES, strict=False):
        _contour(axes, grid, values, level, dashes, width)
    style.axes.decorate(axes, ticks=4)
    return image


def colour_bar(figure: Any, style: MapStyle) -> None:
    """Draw the colour bar below the maps. An arrow marks an end that values may exceed."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.ticker import MaxNLocator

    width, height = figure.get_size_inches()
    length = min(width, 6.0) - _LEFT - _RIGHT
    left = (width - length + _LEFT - _RIGHT) / 2
    place = figure.add_axes((left / width, 0.48 / height, length / width, 0.13 / height))
    colours, norm = style.palette.scale(style.low, style.high)
    bar = figure.colorbar(
        ScalarMappable(norm, colours),
        cax=place,
        orientation="horizontal",
        extend="max" if style.palette.stepped else "neither",
        spacing="uniform",
    )
    if style.palette.stepped:
        levels = style.palette.levels
        shown = levels[1::2] if len(levels) > 8 else levels
        bar.set_ticks(list(shown), labels=[f"{level:g}" for level in shown])
        bar.ax.minorticks_off()
        for level, (dashes, weight) in zip(style.palette.lines, _LINES, strict=False):
            bar.ax.axvline(level, color="#000000", linestyle=dashes, linewidth=weight + 0.4)
    else:
        bar.ax.xaxis.set_major_locator(MaxNLocator(6))
        bar.ax.ticklabel_format(axis="x", scilimits=(-3, 4), useOffset=False)
    bar.set_label(style.label, labelpad=1)
    bar.outline.set_linewidth(0.6)


def limits(values: np.ndarray) -> tuple[float, float]:
    """Return the lowest and the highest value for a colour scale.

    Missing values are ignored. A range of one value is widened.
    """
    held = values[np.isfinite(values)]
    if not held.size:
        return 0.0, 1.0
    low, high = float(held.min()), float(held.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _context() -> dict[Any, Any]:
    return {**STYLE, "axes.grid": False, "font.size": 11, "axes.linewidth": 0.6}


def _extent(centres: np.ndarray) -> float:
    """Return the distance from the outer edge of the first cell to that of the last."""
    if len(centres) < 2:
        return 1.0
    return float(np.ptp(centres)) * len(centres) / (len(centres) - 1) or 1.0


def _averaged(values_hw: np.ndarray, axes: GridAxes) -> tuple[np.ndarray, GridAxes]:
    """Return a field, averaged over blocks if it is too large to draw, and its axes.

    A block is missing only if all of its pixels are missing.
    """
    step = math.ceil(max(values_hw.shape) / _DRAWN_PIXELS)
    if step == 1:
        return values_hw, axes
    rows, columns = (size // step * step for size in values_hw.shape)
    blocks = values_hw[:rows, :columns].reshape(rows // step, step, columns // step, step)
    held = np.isfinite(blocks)
    count = held.sum(axis=(1, 3))
    total = np.where(held, blocks, 0.0).sum(axis=(1, 3))
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    middle = step // 2
    shown = GridAxes(
        axes.kind,
        axes.rows[middle:rows:step],
        axes.columns[middle:columns:step],
        axes.row_label,
        axes.column_label,
        axes.downwards,
    )
    return mean, shown


def _contour(
    axes: Any, grid: GridAxes, values_hw: np.ndarray, level: float, dashes: str, width: float
) -> None:
    from matplotlib.patheffects import withStroke

    if min(values_hw.shape) < 2 or not np.isfinite(values_hw).any():
        return
    if np.nanmin(values_hw) < level < np.nanmax(values_hw):
        axes.contour(
            grid.columns,
            grid.rows,
            values_hw,
            levels=[level],
            colors="#000000",
            linewidths=width,
            linestyles=dashes,
        ).set_path_effects([withStroke(linewidth=width + 1.1, foreground="#ffffff", alpha=0.6)])


def _arrows(axes: Any, arrows: Arrows, grid: GridAxes, key: str) -> None:
    """Draw arrows on a map. The longest is as long as the gap between neighbours in a row."""
    from matplotlib.patheffects import withStroke

    columns = np.interp(arrows.columns, np.arange(len(grid.columns)), grid.columns)
    rows = np.interp(arrows.rows, np.arange(len(grid.rows)), grid.rows)
    # The sign of a step to the next column and to the next row, in the units of the axes.
    east = np.sign(grid.columns[-1] - grid.columns[0]) or 1.0
    north = np.sign(grid.rows[-1] - grid.rows[0]) or 1.0
    upwards = -north if grid.downwards else north
    longest = float(np.hypot(arrows.down, arrows.right).max()) or 1.0
    gap = abs(_gap(columns)) / _extent(grid.columns)
    quiver = axes.quiver(
        columns,
        rows,
        arrows.right * east,
        arrows.down * upwards,
        angles="uv",
        pivot="middle",
        scale=longest / gap,
        scale_units="width",
        width=0.008,
        headwidth=4,
        color="#000000",
    )
    quiver.set_path_effects([withStroke(linewidth=2.2, foreground="#ffffff")])
    axes.quiverkey(
        quiver, 0.86, 1.035, longest, f"{longest:.2g} {key}", labelpos="W", coordinates="axes"
    )


def _gap(places: np.ndarray) -> float:
    return float(np.abs(np.diff(places)).mean()) if len(places) > 1 else 1.0


def error_size(axes: GridAxes, high: float, label: str) -> MapStyle:
    """Return the style of a map of error sizes, with colours from 0 to `high`."""
    return MapStyle(axes, SIZE, 0.0, high, label)
