"""Charts of scores as inline SVG: by lead time, by wavelength, by rank, by forecast probability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from jobs.drawing.style import INK, STYLE, line, new_figure, svg

_WIDTH = 5.2
_HEIGHT = 3.5
_MOST_TICKS = 8
_LEGEND_ROW = 0.23
"""Height of one row of a legend, in inches."""

_LEGEND_LETTERS = 46
"""Largest width of one row of a legend, in letters, handles included."""
_LEGEND_HANDLE = 6
"""Width of one handle of a legend, in letters."""

Band = tuple[Sequence[float], Sequence[float]]
"""Lower and upper ends of the intervals."""


def curves(
    title: str,
    x: Sequence[float],
    series: Mapping[str, Sequence[float]],
    x_label: str,
    y_label: str,
    zero: Literal["floor", "line", "none", "share"] = "none",
    bands: Mapping[str, Band] | None = None,
    order: Sequence[str] = (),
) -> str:
    """Draw a chart with one line per forecast, and return it as an SVG element.

    Parameters
    ----------
    x:
        The positions of all values, such as lead times.
    series:
        The values of every forecast, by its name.
    zero:
        The role of zero: the bottom of the chart (`floor`), a line in it (`line`) or none
        (`none`). For `share` the chart covers the range from 0 to 1.
    bands:
        Intervals of forecasts by name. They are drawn as shaded bands.
    order:
        All names of a page. A name keeps its colour and dash from chart to chart by its position
        here.
    """
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(_WIDTH, _HEIGHT)
        for name, values in series.items():
            look = line(name, _place(name, order or list(series)))
            axes.plot(x, values, label=name, markersize=5, **look)
            if bands and name in bands:
                low, high = (np.asarray(end, float) for end in bands[name])
                axes.fill_between(x, low, high, color=look["color"], alpha=0.2, linewidth=0)
        axes.set(xlabel=x_label, ylabel=y_label)
        if zero == "floor":
            axes.set_ylim(bottom=min(0, axes.get_ylim()[0]) if _any_negative(series) else 0)
        elif zero == "share":
            axes.set_ylim(min(-0.02, axes.get_ylim()[0]) if _any_negative(series) else -0.02, 1.02)
        elif zero == "line":
            axes.axhline(0, color=INK, linewidth=0.8)
        _ticks(axes, x)
        _legend(figure, axes)
        return svg(figure, title)


def spectra(
    title: str,
    wavelengths: Sequence[float],
    series: Mapping[str, Sequence[float]],
    x_label: str,
    y_label: str,
    order: Sequence[str] = (),
) -> str:
    """Draw power by wavelength on logarithmic axes, with long waves on the left, as SVG."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(_WIDTH, _HEIGHT)
        x = np.asarray(wavelengths, float)
        lasting = np.isfinite(x) & (x > 0)
        for name, values in series.items():
            look = line(name, _place(name, order or list(series)))
            every = max(1, int(lasting.sum()) // _MOST_TICKS)
            axes.plot(
                x[lasting],
                np.asarray(values, float)[lasting],
                label=name,
                markersize=4,
                markevery=every,
                **look,
            )
        axes.set(xscale="log", yscale="log", xlabel=x_label, ylabel=y_label)
        axes.invert_xaxis()
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(_leading_digits())
        # In a field without fine structure the lowest powers are rounding errors: cut them off.
        high = max(float(np.nanmax(values)) for values in series.values())
        low = min(float(np.nanmin(np.asarray(v, float)[lasting])) for v in series.values())
        if high > 0:
            axes.set_ylim(max(low / 2, high * 1e-8), high * 2)
        _legend(figure, axes)
        return svg(figure, title)


def rank_histogram(title: str, shares: Sequence[float]) -> str:
    """Draw how often the truth has each rank among the members, as SVG.

    The histogram of a reliable ensemble is flat.
    """
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(_WIDTH, _HEIGHT)
        ranks = np.arange(len(shares))
        axes.bar(
            ranks, shares, width=0.85, color="#0072b2", edgecolor=INK, linewidth=0.8, hatch="//"
        )
        axes.axhline(
            1 / len(shares), color=INK, linestyle="--", linewidth=1.4, label="a reliable ensemble"
        )
        axes.set(xlabel="members below the truth", ylabel="share of pixels")
        axes.grid(visible=False, axis="x")
        _ticks(axes, [float(rank) for rank in ranks])
        _legend(figure, axes)
        return svg(figure, title)


def reliability(
    title: str,
    forecast: Sequence[float],
    observed: Sequence[float],
    shares: Sequence[float],
    base_rate: float | None = None,
) -> str:
    """Draw the observed frequency of an event against its forecast probability, as SVG.

    A second chart below shows how often each probability was forecast. A point on the diagonal is
    reliable: an event that is forecast with 30 % happens in 30 % of the cases.

    Parameters
    ----------
    forecast, observed, shares:
        For every forecast probability: the probability, the frequency with which the event
        happened, and the share of pixels that had this forecast.
    base_rate:
        The frequency of the event over all forecasts.
    """
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure, (axes, below) = new_figure(
            _WIDTH, _HEIGHT + 1.1, 2, sharex=True, height_ratios=[3, 1]
        )
        probability, frequency, number = (
            np.asarray(values, float) for values in (forecast, observed, shares)
        )
        given = (number > 0) & np.isfinite(frequency)
        axes.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=1.2, label="reliable")
        if base_rate is not None and np.isfinite(base_rate):
            axes.axhline(base_rate, color="#555555", linestyle=":", label="how often it happens")
        axes.plot(
            probability[given], frequency[given], markersize=6, label="forecasts", **line("model")
        )
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), ylabel="observed frequency")
        width = 0.8 * float(np.diff(np.sort(probability)).min()) if len(probability) > 1 else 0.1
        below.bar(probability, number, width=width, color="#0072b2", edgecolor=INK, linewidth=0.8)
        if number.max(initial=0) > 20 * float(np.median(number)):
            below.set_yscale("log")
        below.set(xlabel="forecast probability", ylabel="share of pixels")
        _legend(figure, axes)
        return svg(figure, title)


def training_curve(steps: Sequence[int], losses: Sequence[float], chosen: int) -> str:
    """Draw the training loss by step as SVG, with a mark at the checkpoint's step `chosen`."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(_WIDTH, _HEIGHT)
        values = np.asarray(losses, float)
        # A chart of this width cannot show thousands of steps, and they would make the page large.
        every = -(-len(values) // 600)
        width = max(1, len(values) // 200)
        if width > 1:
            axes.plot(
                steps[::every], values[::every], color="#bbbbbb", linewidth=0.7, label="some steps"
            )
        smooth = np.convolve(values, np.ones(width) / width, mode="valid")
        label = f"mean of {width} steps" if width > 1 else "each step"
        axes.plot(
            steps[width - 1 :: every],
            smooth[::every],
            color="#0072b2",
            linewidth=1.8,
            label=label,
        )
        axes.axvline(chosen, color=INK, linewidth=1, linestyle="--", label="this checkpoint")
        if 0 < 10 * values.min() < values.max():
            axes.set_yscale("log")
        axes.set(xlabel="optimisation step", ylabel="training loss")
        _legend(figure, axes)
        return svg(figure, "training loss")


def _legend(figure: Any, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    columns = next((n for n in (len(labels), 2) if _letters(labels, n) <= _LEGEND_LETTERS), 1)
    if handles:
        # The figure grows with a long legend, so that the chart keeps its height.
        rows = -(-len(labels) // max(1, columns))
        figure.set_figheight(figure.get_figheight() + max(0, rows - 2) * _LEGEND_ROW)
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=max(1, columns),
            frameon=False,
            handlelength=3.2,
        )


def _letters(labels: Sequence[str], columns: int) -> int:
    """Return the width of a legend in letters. Matplotlib fills its columns one after another."""
    parts = np.array_split([len(label) for label in labels], max(1, columns))
    return sum(int(part.max(initial=0)) + _LEGEND_HANDLE for part in parts)


def _place(name: str, order: Sequence[str]) -> int:
    return order.index(name) if name in order else len(order)


def _any_negative(series: Mapping[str, Sequence[float]]) -> bool:
    return any(np.nanmin(values, initial=0.0) < 0 for values in series.values())


def _ticks(axes: Any, x: Sequence[float]) -> None:
    """Set ticks at some of the positions `x`, at equal distances."""
    step = -(-len(x) // _MOST_TICKS)
    first = (len(x) - 1) % step
    if step > 1:
        # Prefer round numbers: 10, 20, 30 if the positions are 5, 10, 15, ...
        whole = step * (x[1] - x[0])
        first = next((i for i in range(step) if not x[i] % whole), first)
    axes.set_xticks(list(x)[first::step])


def _leading_digit(value: float, _: int | None) -> str:
    digit = round(value / 10 ** np.floor(np.log10(value)))
    return f"{value:g}" if digit in (2, 5) else ""


def _leading_digits() -> Any:
    """Return a formatter that labels the minor ticks of a logarithmic axis at 2 and 5 only."""
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(_leading_digit)
