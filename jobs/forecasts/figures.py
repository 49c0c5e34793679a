"""Figures of a report: curves as inline SVG, fields as PNG in a data URI. Nothing is loaded.

Curves differ in colour, in dash and in marker, fields in lightness, and negative errors carry
dashed contours, so that the page reads in black and white and for any colour vision.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINES: dict[str, dict[str, Any]] = {
    "model": {"color": "#0072B2", "linestyle": "-", "marker": "o", "linewidth": 2.2},
    "persistence": {"color": "#D55E00", "linestyle": "--", "marker": "s", "linewidth": 1.6},
    "climatology": {"color": "#444444", "linestyle": ":", "marker": "^", "linewidth": 1.8},
    "extrapolation": {"color": "#009E73", "linestyle": "-.", "marker": "D", "linewidth": 1.6},
    "vs extrapolation": {"color": "#009E73", "linestyle": "-.", "marker": "D", "linewidth": 1.6},
    "vs persistence": {"color": "#D55E00", "linestyle": "--", "marker": "s", "linewidth": 1.6},
    "vs climatology": {"color": "#444444", "linestyle": ":", "marker": "^", "linewidth": 1.8},
}
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
}


@dataclass(frozen=True)
class Axes:
    """The coordinates of a field's rows and columns."""

    rows: np.ndarray
    columns: np.ndarray
    row_label: str
    column_label: str
    degrees: bool
    """latitude and longitude, drawn to scale"""
    downwards: bool
    """rows count downwards, as in an image"""


def curves(
    title: str,
    x: Sequence[float],
    series: Mapping[str, Sequence[float]],
    x_label: str,
    y_label: str,
    zero: Literal["floor", "line", "none"],
) -> str:
    """One chart as an SVG element; ``series`` by the names of ``LINES``.

    ``zero`` is the bottom of the chart, a line in it, or nothing special.
    """
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(5.6, 3.5)
        for name, values in series.items():
            axes.plot(x, values, label=name, markersize=5, **LINES[name])
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
        if zero == "floor":
            axes.set_ylim(bottom=0)
        elif zero == "line":
            axes.axhline(0, color="#000000", linewidth=0.8)
        _whole_ticks(axes, x)
        figure.legend(loc="outside lower center", ncols=len(series), frameon=False)
        return _svg(figure, title)


def training_curve(steps: Sequence[int], losses: Sequence[float], chosen: int) -> str:
    """Training loss against the step, with the step of the checkpoint marked."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(5.6, 3.2)
        values = np.asarray(losses, float)
        width = max(1, len(values) // 200)
        if width > 1:
            axes.plot(steps, values, color="#bbbbbb", linewidth=0.7, label="each step")
        kernel = np.ones(width) / width
        smooth = np.convolve(values, kernel, mode="valid")
        label = f"mean of {width} steps" if width > 1 else "each step"
        axes.plot(steps[width - 1 :], smooth, color="#0072B2", linewidth=1.8, label=label)
        axes.axvline(chosen, color="#000000", linewidth=1, linestyle="--", label="this checkpoint")
        if 0 < 10 * values.min() < values.max():
            axes.set_yscale("log")
        axes.set(xlabel="optimisation step", ylabel="training loss (normalised units)")
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        return _svg(figure, "training loss")


def field(values_hw: np.ndarray, axes: Axes, low: float, high: float, units: str) -> str:
    """One field on a scale of lightness, as a data URI."""
    return _map(values_hw, axes, "cividis", low, high, units, contours=False)


def error_field(values_hw: np.ndarray, axes: Axes, largest: float, units: str) -> str:
    """Forecast less truth around zero; dashed contours where it is negative."""
    return _map(values_hw, axes, "PuOr_r", -largest, largest, units, contours=True)


def _map(
    values_hw: np.ndarray,
    grid: Axes,
    colours: str,
    low: float,
    high: float,
    units: str,
    contours: bool,
) -> str:
    import matplotlib

    with matplotlib.rc_context({**STYLE, "axes.grid": False, "font.size": 10.5}):
        rows, columns = (float(np.ptp(x)) or 1.0 for x in (grid.rows, grid.columns))
        height = float(np.clip(4.0 * rows / columns, 0.8, 6.0))
        figure, axes = _figure(4.7, height + 1.25)
        # Missing pixels are transparent and show the hatching.
        axes.patch.set(facecolor="#ffffff", edgecolor="#999999", hatch="////", linewidth=0)
        image = axes.pcolormesh(
            grid.columns, grid.rows, values_hw, cmap=colours, vmin=low, vmax=high, shading="nearest"
        )
        if contours and min(values_hw.shape) >= 2 and not np.isnan(values_hw).all():
            _signed_contours(axes, grid, values_hw, high)
        axes.set(xlabel=grid.column_label, ylabel=grid.row_label, aspect="equal")
        if grid.degrees:
            _degree_ticks(axes, grid)
        if grid.downwards:
            axes.invert_yaxis()
        bar = figure.colorbar(image, ax=axes, location="bottom", shrink=0.9, aspect=30, pad=0.03)
        bar.set_label(units)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _signed_contours(axes: Any, grid: Axes, values_hw: np.ndarray, largest: float) -> None:
    for level, dashes in ((-largest / 3, "--"), (largest / 3, "-")):
        if np.nanmin(values_hw) < level < np.nanmax(values_hw):
            axes.contour(
                grid.columns,
                grid.rows,
                values_hw,
                levels=[level],
                colors="#000000",
                linewidths=0.9,
                linestyles=dashes,
            )


def _degree_ticks(axes: Any, grid: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    for axis, values in ((axes.xaxis, grid.columns), (axes.yaxis, grid.rows)):
        wide = np.ptp(values) > 60
        steps = [1, 3, 4.5, 6, 9, 10] if wide else [1, 2, 2.5, 5, 10]
        axis.set_major_locator(MaxNLocator(nbins=6 if axis is axes.xaxis else 5, steps=steps))


def _whole_ticks(axes: Any, x: Sequence[float]) -> None:
    if all(float(value).is_integer() for value in x):
        from matplotlib.ticker import MaxNLocator

        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    # A Figure of its own, not pyplot's: no display, no global state.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _svg(figure: Figure, title: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    element = text[text.index("<svg") :]
    # The page's width rules, not the size in points; and names inside one figure would be those of
    # the next one too.
    element = re.sub(r'\s(width|height)="[\d.]+pt"', "", element, count=2)
    element = re.sub(r'<g id="[^"]*"', "<g", element)
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", element)
    return element.replace("<svg", f'<svg role="img" aria-label="{_attribute(title)}"', 1)


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
