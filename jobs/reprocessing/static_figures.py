"""Maps of a store's static fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.drawing.axes import grid_axes
from jobs.drawing.palettes import EVEN
from pipelines.inputs.static_fields import read_field
from pipelines.stores.store import Store

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_static(store: Store, name: str) -> Figure:
    """Draw one static field as a map, with its mean and standard deviation."""
    from matplotlib.figure import Figure

    info, values = store.static_fields[name], read_field(store, name)
    grid = grid_axes(store, next(iter(store.variables)))
    figure = Figure(figsize=(5.6, 5.0 * grid.ratio + 1.75), layout="constrained")
    axes = figure.add_subplot()
    colours, norm = EVEN.scale(float(values.min()), float(values.max()))
    image = grid.draw(axes, values, colours, norm)
    bar = figure.colorbar(image, ax=axes, location="bottom", shrink=0.9, aspect=32, pad=0.03)
    bar.set_label(f"{name} ({info.units})" if info.units not in ("", "1") else name)
    statistics = info.statistics
    axes.set_title(f"mean {statistics['mean']:.4g}, std {statistics['std']:.4g}", fontsize=10.5)
    made = " (synthetic)" if store.synthetic else ""
    figure.suptitle(f"{info.long_name}{made}", x=0.01, ha="left", fontsize=12, weight="bold")
    return figure
