"""Figures of a store as PNG: maps, the state of all frames, and the distribution of values.

The figures can be read in black and white: fields differ in lightness, states in hatching, and
channels in dashes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.drawing.axes import grid_axes
from jobs.drawing.palettes import EVEN, MISSING, palette_of
from jobs.drawing.style import STYLE
from jobs.reprocessing.static_figures import draw_static
from pipelines.audit.sample import FrameSample, sample_frames, timeline
from pipelines.errors import StoreError
from pipelines.progress import ignore
from pipelines.storage import places
from pipelines.stores.store import Store

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN_CHANNELS = 4
_BINS = 60
_LABELLED = 0.08
"""share of the time axis that a split must cover for its name to fit"""
_SPARSE = 0.5
"""share of the time between the first and the last frame; if frames cover less of it, the axis puts
them side by side"""
_STATES: dict[str, dict[str, Any]] = {
    "ok": {"label": "ok", "color": "#9ecae1"},
    "missing_in_source": {"label": "missing in the source", "color": "#ffffff", "hatch": "////"},
    "unreadable": {"label": "unreadable", "color": "#D55E00", "hatch": "xxxx"},
    "out_of_range": {"label": "out of range", "color": "#444444", "hatch": ".."},
}
_DASHES = ("-", "--", ":", "-.")
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#444444")
_SPLITS = {"train": "#0072B2", "validation": "#E69F00", "test": "#009E73"}


def write_figures(
    store: Store, folder: str, progress: Callable[[int, int], None] = ignore
) -> list[str]:
    """Draw the figures of a store into `folder` and return their paths.

    Raises
    ------
    StoreError
        Shards cannot be read. The figures that do not need these shards are still written.
    """
    drawings: list[tuple[str, Callable[[], Figure]]] = [("timeline", lambda: draw_timeline(store))]
    samples: dict[str, FrameSample] = {}

    def sample(name: str) -> FrameSample:
        if name not in samples:
            samples.clear()
            samples[name] = sample_frames(store, name)
        return samples[name]

    for name in store.variables:
        drawings += [
            (f"map_{name}", lambda name=name: draw_maps(store, sample(name))),
            (f"histogram_{name}", lambda name=name: draw_histogram(store, sample(name))),
        ]
    for name in store.static_fields:
        drawings.append((f"static_{name}", lambda name=name: draw_static(store, name)))
    written: list[str] = []
    refused: dict[str, StoreError] = {}
    for done, (name, draw) in enumerate(drawings):
        progress(done, len(drawings))
        target = places.join(folder, f"{name}.png")
        try:
            content = _png(draw)
        except StoreError as error:
            refused[name] = error
            continue
        places.write_bytes(target, content)
        written.append(target)
    progress(len(drawings), len(drawings))
    if refused:
        raise _not_drawn(refused, written)
    return written


def _not_drawn(refused: Mapping[str, StoreError], written: Sequence[str]) -> StoreError:
    """Return one error for all missing figures, which names each reason once."""
    reasons = dict.fromkeys(f"{error.where}: {error.what}" for error in refused.values())
    return StoreError(
        f"{len(refused)} of {len(refused) + len(written)} figures cannot be drawn "
        f"({', '.join(refused)}), the others are written",
        where="; ".join(reasons),
        remedy=next(iter(refused.values())).remedy,
    )


def draw_maps(store: Store, sample: FrameSample) -> Figure:
    """Draw the mean of the sampled frames beside the last usable frame, for some channels."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    grid = grid_axes(store, sample.variable)
    shown = _channels(sample)
    info = store.variables[sample.variable]
    standard_name = str(store.array(sample.variable).attrs.get("standard_name", ""))
    palette = palette_of(info.units, standard_name, info.long_name)
    # The mean of radar fields is below the first step of the usual palette nearly everywhere.
    palettes = (EVEN if palette.stepped else palette, palette)
    height = len(shown) * (4.3 * grid.ratio + 1.25) + 0.5
    figure = Figure(figsize=(9.6, height), layout="constrained")
    panels = figure.subplots(len(shown), 2, squeeze=False, sharey=True)
    title = f"mean of {len(sample.frames)} sampled frames of the train period"
    last = f"last usable frame: {_shown(store, sample.last)}"
    for pair, channel in zip(panels, shown, strict=True):
        both = (sample.mean_chw[channel], sample.last_chw[channel])
        for axes, values, chosen in zip(pair, both, palettes, strict=True):
            low, high, beyond = _limits(values)
            colours, norm = chosen.scale(low, high)
            # Missing pixels are transparent and show the hatching.
            axes.patch.set(**MISSING)
            image = grid.draw(axes, values, colours, norm)
            bar = figure.colorbar(
                image,
                ax=axes,
                location="bottom",
                shrink=0.9,
                aspect=32,
                pad=0.03,
                extend="max" if chosen.stepped else beyond,
            )
            bar.set_label(_value_label(store, sample, channel))
            if chosen.stepped:
                bar.set_ticks(list(chosen.levels[1::2]))
            else:
                bar.ax.xaxis.set_major_locator(MaxNLocator(6))
                bar.ax.ticklabel_format(axis="x", scilimits=(-3, 4))
    panels[0][0].set_title(title, fontsize=10.5)
    panels[0][1].set_title(last, fontsize=10.5)
    figure.suptitle(_title(store, sample, shown), x=0.01, ha="left", fontsize=12, weight="bold")
    return figure


def draw_histogram(store: Store, sample: FrameSample) -> Figure:
    """Draw a histogram of the values of the sampled frames, with the exact mean of all values."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.9), layout="constrained")
    axes = figure.add_subplot()
    shown = _channels(sample)
    statistics = store.statistics["variables"][sample.variable]
    tallest = 0.0
    for number, channel in enumerate(shown):
        values = sample.values_nchw[:, channel]
        values = values[np.isfinite(values)]
        if not len(values):
            continue
        counts, edges = np.histogram(values, bins=_BINS)
        tallest = max(tallest, float(counts.max() / len(values)))
        label = sample.labels[channel] if len(shown) > 1 else None
        look = {"color": _COLOURS[number], "linestyle": _DASHES[number], "linewidth": 1.6}
        axes.stairs(counts / len(values), edges, label=label, **look)
        if len(shown) == 1:
            axes.stairs(counts / len(values), edges, fill=True, color=_COLOURS[0], alpha=0.25)
    if tallest > 0.5:
        axes.set_yscale("log")
    if len(shown) == 1 and statistics["mean"] is not None:
        mean, std = statistics["mean"], statistics["std"]
        axes.axvline(mean, color="#000000", linewidth=1.2, label=f"mean {mean:.4g}")
        for place in (mean - std, mean + std):
            label = f"± standard deviation {std:.3g}" if place < mean else None
            axes.axvline(place, color="#000000", linewidth=1, linestyle="--", label=label)
    axes.set(xlabel=_value_label(store, sample, None), ylabel="share of values")
    frames = f"{len(sample.frames)} sampled frames of the train period"
    axes.set_title(frames, loc="left", fontsize=10.5)
    figure.suptitle(_title(store, sample, shown), x=0.01, ha="left", fontsize=12, weight="bold")
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def draw_timeline(store: Store) -> Figure:
    """Draw the splits, the state of the frames, and the missing pixels along the time axis."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    found = timeline(store)
    figure = Figure(figsize=(9.6, 4.6), layout="constrained")
    band, states, pixels = figure.subplots(3, 1, sharex=True, height_ratios=[0.35, 2, 1.4])
    axis = _TimeAxis(store)
    left, width = axis.places(found.first), found.frames * axis.step
    whole = left[-1] + width[-1] - left[0]
    for name, (first, last) in store.splits.items():
        place, final = axis.places(np.searchsorted(store.times, [first, last]))
        length = final + axis.step - place
        band.barh(0, length, left=place, color=_SPLITS.get(name, "#999999"), height=0.8)
        if length > _LABELLED * whole:
            middle = place + length / 2
            band.text(middle, 0, name, ha="center", va="center", color="#ffffff", size=9)
    band.set(yticks=[], ylabel="")
    band.tick_params(bottom=False)
    for side in ("left", "bottom"):
        band.spines[side].set_visible(False)
    bottom = np.zeros(len(found.first))
    for look, share in zip(_STATES.values(), found.shares, strict=True):
        if share.any():
            states.bar(
                left, share, width, bottom, align="edge", edgecolor="#666666", linewidth=0, **look
            )
        bottom = bottom + share
    marked = found.shares[0] < 1
    states.plot(
        (left + width / 2)[marked], np.full(marked.sum(), 1.05), "v", color="#D55E00", markersize=4
    )
    states.set(ylim=(0, 1.12), yticks=[0, 0.5, 1], ylabel="frames")
    states.yaxis.set_major_formatter(PercentFormatter(1))
    pixels.bar(left, np.nan_to_num(found.missing_pixels), width, align="edge", color="#444444")
    largest = float(np.nanmax(found.missing_pixels, initial=0.0))
    pixels.set(ylim=(0, max(0.01, 1.1 * largest)), ylabel="missing pixels\nof usable frames")
    pixels.yaxis.set_major_formatter(PercentFormatter(1))
    if not largest:
        pixels.text(0.5, 0.5, "none", transform=pixels.transAxes, ha="center", va="center")
    axis.mark((states, pixels))
    pixels.set_xlim(left[0], left[0] + whole)
    lacking = int((store.available != 0).sum())
    band.set_title(
        f"{lacking} of {len(store.times)} frames cannot be used", loc="left", fontsize=10.5
    )
    made = " (synthetic)" if store.synthetic else ""
    figure.suptitle(store.title + made, x=0.01, ha="left", fontsize=12, weight="bold")
    figure.legend(
        *states.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False
    )
    return figure


def _png(draw: Callable[[], Figure]) -> bytes:
    import matplotlib

    with matplotlib.rc_context({**STYLE, "axes.grid": False, "font.size": 10}):
        buffer = io.BytesIO()
        draw().savefig(buffer, format="png", dpi=130, metadata={"Software": None})
        return buffer.getvalue()


def _channels(sample: FrameSample) -> list[int]:
    """Return the channels to show: all if they are few, else some of them, evenly spaced."""
    count = len(sample.labels)
    return sorted(
        {round(place) for place in np.linspace(0, count - 1, min(count, _SHOWN_CHANNELS))}
    )


def _title(store: Store, sample: FrameSample, shown: list[int]) -> str:
    name = store.variables[sample.variable].long_name
    more = len(sample.labels) - len(shown)
    made = " (synthetic)" if store.synthetic else ""
    return f"{name}{made}" + (f", {len(shown)} of {len(sample.labels)} channels" if more else "")


def _value_label(store: Store, sample: FrameSample, channel: int | None) -> str:
    info = store.variables[sample.variable]
    name = sample.variable if channel is None else sample.labels[channel]
    return f"{name} ({info.units})" if info.units not in ("", "1") else name


def _limits(values: np.ndarray) -> tuple[float, float, str]:
    """Return the limits of a colour scale, and the ends beyond which there are values.

    The limits are the percentiles 0.5 and 99.5, so that a few extreme values do not leave the
    others in nearly the same colour.
    """
    held = values[np.isfinite(values)]
    if not len(held):
        return 0.0, 1.0, "neither"
    low, high = (float(x) for x in np.percentile(held, [0.5, 99.5]))
    if not low < high:
        low, high = float(held.min()), float(held.max())
    if not low < high:
        low, high = low - 0.5, high + 0.5
    beyond = {(True, True): "both", (True, False): "min", (False, True): "max"}
    return low, high, beyond.get((held.min() < low, held.max() > high), "neither")


class _TimeAxis:
    """The horizontal axis of the timeline.

    Frames lie at their times, or side by side if the gaps between periods are long. Frames of clips
    lie at the number of their clip.
    """

    def __init__(self, store: Store):
        self._store = store
        seconds = store.times.astype("datetime64[s]").astype(np.int64)
        cadence = store.cadence / np.timedelta64(1, "s")
        self._days = seconds / 86_400
        self._heads = np.flatnonzero(np.diff(seconds, prepend=seconds[0] - 2 * cadence) != cadence)
        filled = len(seconds) * cadence / (seconds[-1] - seconds[0] + cadence)
        self._timed = store.clips is None and filled > _SPARSE
        self.step = cadence / 86_400 if self._timed else 1.0
        """length of a frame in units of the axis: days, frames or clips"""
        if store.clips is not None:
            self.step = 1 / store.clips.frames

    def places(self, frames: np.ndarray) -> np.ndarray:
        """Return the positions on the axis at which frames begin."""
        return self._days[frames] if self._timed else frames * self.step

    def mark(self, panels: tuple[Any, Any]) -> None:
        """Set ticks and label of the axis that the panels share, and mark the starts of periods."""
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        axis = panels[-1].xaxis
        if self._timed:
            locator = AutoDateLocator(minticks=3, maxticks=9)
            axis.set_major_locator(locator)
            axis.set_major_formatter(ConciseDateFormatter(locator))
            panels[-1].set_xlabel("time (UTC)")
        elif self._store.clips is not None:
            panels[-1].set_xlabel("clip")
        else:
            shown = self._heads[:: math.ceil(len(self._heads) / 8)]
            for panel in panels:
                for head in self._heads[1:]:
                    panel.axvline(head, color="#000000", linewidth=0.8, linestyle=":")
            days = self._store.times[shown].astype("datetime64[D]")
            axis.set_ticks(shown, days.astype(str))
            panels[-1].set_xlabel("first day of a period; periods lie side by side")


def _shown(store: Store, frame: int) -> str:
    label = store.label(frame)
    return label if store.clips is not None else label.replace("T", " ") + " UTC"
