"""Draw the picture of the README: truth, forecast, and the errors of forecast and persistence.

    make demo
    python docs/picture.py --folder build/demo --to docs/forecast.png

The picture shows the window in the middle of the test period, at the last lead time: nothing is
chosen by hand. The maps are drawn by jobs/drawing/maps.py, as on the page of an evaluation.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from jobs.command_line import main_guard, parser_class

DPI = 110


def main() -> None:
    """Forecast one window and write the picture of it."""
    parser = parser_class()(description=__doc__)
    parser.add_argument("--folder", default="build/demo", help="holds store.zarr and run")
    parser.add_argument("--to", default="docs/forecast.png", help="PNG to write")
    arguments = parser.parse_args()
    Path(arguments.to).write_bytes(picture(Path(arguments.folder)))


def picture(folder: Path) -> bytes:
    """Return the PNG: truth and forecast above, errors of forecast and persistence below.

    `folder` contains `store.zarr` and `run`.
    """
    from jobs.drawing import maps
    from jobs.drawing.axes import grid_axes
    from jobs.drawing.palettes import ERROR, palette_of
    from jobs.forecasts.forecasters.model_forecast import forecast_with
    from jobs.forecasts.forecasters.trained import load_trained
    from jobs.forecasts.reports.cases import moment
    from pipelines.stores.store import open_store
    from pipelines.stream.window_stream import read_batches
    from pipelines.stream.windows import split_starts

    store, trained = open_store(str(folder / "store.zarr")), load_trained(str(folder / "run"))
    starts = split_starts(store, "test", trained.window)
    middle = starts[len(starts) // 2 :][:1]
    [(_, frames)] = read_batches(store, trained.variables, trained.window, middle, 1)
    seen = frames[:, : trained.window.input_frames]
    forecaster = forecast_with(trained.model())
    made = forecaster(trained.normalisation.apply(seen), trained.window.horizon)
    truth, last = frames[0, -1, 0], seen[0, -1, 0]
    forecast = trained.normalisation.invert(made)[0, -1, 0]

    name = trained.variables[0]
    info, axes = store.variables[name], grid_axes(store, name)
    standard = str(store.array(name).attrs.get("standard_name", ""))
    colours = palette_of(info.units, standard, info.long_name, "usual")
    errors = (forecast - truth, last - truth)
    largest = float(np.nanmax(np.abs(errors)))
    above = maps.MapStyle(axes, colours, *maps.limits(truth), f"{info.long_name} ({info.units})")
    below = maps.MapStyle(axes, ERROR, -largest, largest, f"forecast - truth ({info.units})")
    lead = trained.window.horizon * store.cadence / np.timedelta64(1, "h")
    model = f"{trained.record['model']['name'].replace('gmg', 'GMG')}, +{lead:g} h"
    end = middle[0] + (trained.window.frames - 1) * trained.window.stride
    return _stacked(
        _row((truth, forecast), (f"Truth, {moment(str(store.times[end]))}", model), above),
        _row(errors, (f"Error of {model}", f"Error of persistence, +{lead:g} h"), below),
    )


def _row(fields: tuple[Any, Any], titles: tuple[str, str], style: Any) -> Any:
    """Return two maps and their colour bar as an image of Pillow."""
    from jobs.drawing.maps import colour_bar, draw_field, panels
    from jobs.drawing.style import pixels

    figure, both = panels(style, len(fields), head=0.3)
    for axes, values, title in zip(both, fields, titles, strict=True):
        draw_field(axes, values, style)
        axes.set_title(title, fontsize=11)
    both[1].set_ylabel("")
    colour_bar(figure, style)
    return pixels(figure, DPI)


def _stacked(*rows: Any) -> bytes:
    """Return images, one above the other, as PNG."""
    from PIL import Image

    whole = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)))
    below = 0
    for row in rows:
        whole.paste(row, (0, below))
        below += row.height
    buffer = io.BytesIO()
    whole.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    main_guard(main)
