"""The style of figures, and their conversion to SVG and PNG.

Every forecast has a colour, a dash and a marker. The colours follow Okabe and Ito, so that
colour-blind readers can tell them apart; dashes and markers serve readers in black and white.
Curves become inline SVG that takes its colours from the page, so that they follow its light or dark
theme. Maps become PNG.
"""

from __future__ import annotations

import base64
import io
import re
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
}
INK = "#000000"
_LINES: dict[str, dict[str, Any]] = {
    "truth": {"color": INK, "linestyle": "-", "marker": "", "linewidth": 2.4},
    "model": {"color": "#0072b2", "linestyle": "-", "marker": "o", "linewidth": 2.2},
    "persistence": {"color": "#d55e00", "linestyle": "--", "marker": "s", "linewidth": 1.6},
    "climatology": {"color": "#555555", "linestyle": ":", "marker": "^", "linewidth": 1.8},
    "extrapolation": {"color": "#008060", "linestyle": "-.", "marker": "D", "linewidth": 1.6},
}
_OTHER_COLOURS = ("#a0307a", "#7a5c00", "#5030a0", "#0072b2")
_OTHER_LINES: tuple[tuple[Any, str], ...] = (
    ((0, (6, 1.5)), "v"),
    ((0, (3, 1, 1, 1)), "P"),
    ((0, (1, 1)), "X"),
    ("-", "<"),
)
THEME = {
    INK: "ink",
    "#dddddd": "rule",
    "#bbbbbb": "faint",
    "#0072b2": "line-model",
    "#d55e00": "line-persistence",
    "#555555": "line-climatology",
    "#008060": "line-extrapolation",
    "#a0307a": "line-fifth",
    "#7a5c00": "line-sixth",
    "#5030a0": "line-seventh",
}
"""Colours of the light theme, and the CSS custom property by which the page replaces each."""


def line(name: str, place: int = 0) -> dict[str, Any]:
    """Return the colour, dash, marker and line width of a forecast, as options of `Axes.plot`.

    A comparison with a forecast ("vs persistence") looks like that forecast. For a name without a
    style of its own, `place` selects the style. The first 16 places all look different, and the
    first four differ in colour, dash and marker at once.
    """
    known = _LINES.get(name.removeprefix("vs "))
    if known:
        return known
    turn, colour = divmod(place, len(_OTHER_COLOURS))
    dash, marker = _OTHER_LINES[(colour + turn) % len(_OTHER_LINES)]
    return {
        "color": _OTHER_COLOURS[colour],
        "linestyle": dash,
        "marker": marker,
        "linewidth": 1.8,
    }


def new_figure(width: float, height: float, rows: int = 1, **options: Any) -> tuple[Figure, Any]:
    """Return a figure of a size in inches, and its axes or, for several rows, an array of axes."""
    # Unlike pyplot, `Figure` needs no display and has no global state.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, 1, **options)


def svg(figure: Figure, title: str) -> str:
    """Return a figure as an SVG element that takes its width, font and colours from the page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    element = text[text.index("<svg") :]
    # The text is edited because Matplotlib has no setting for any of this, and an XML parser would
    # rewrite the whole figure with namespace prefixes of its own. The page sets the width. The ids
    # of groups are removed because the next figure on the page would repeat them. The ids to which
    # the figure itself refers stay: they are hashes of the content, so a repeated one is harmless.
    element = re.sub(r'\s(width|height)="[\d.]+pt"', "", element, count=2)
    element = re.sub(r'<g id="[^"]*"', "<g", element)
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", element)
    element = re.sub(r"font-family: [^;\"]*;?", "", element)
    for colour, name in THEME.items():
        element = element.replace(f"{colour}", f"var(--{name}, {colour})")
    return element.replace("<svg", f'<svg role="img" aria-label="{_attribute(title)}"', 1)


def png(figure: Figure, dpi: int, colours: Any) -> bytes:
    """Return a figure as PNG with at most 256 colours, which is a third of the size of RGB."""
    buffer = io.BytesIO()
    coloured(pixels(figure, dpi), colours).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def coloured(image: Any, colours: Any) -> Any:
    """Return an RGB image in at most 256 colours.

    They are the colours of a colour map, darker and paler versions of these, and greys.
    """
    from PIL import Image

    count = min(colours.N, 180)
    own = colours(np.linspace(0, 1, count))[:, :3]
    extremes = np.array([colours.get_under(), colours.get_over()])[:, :3]
    own = np.concatenate([own, extremes])
    # The smooth edges of lines and letters over a field of few colours need mixed colours.
    mixed = [own * share + (1 - share) * end for share in (0.66, 0.33) for end in (0.0, 1.0)]
    greys = np.repeat(np.linspace(0, 1, 48)[:, None], 3, axis=1)
    every = np.concatenate([greys, own, *(mixed if count <= 32 else [])])[:256]
    table = np.round(every * 255).astype(np.uint8)
    # Pillow's own search for the nearest colour is not exact: it turns a white background grey.
    bits = np.asarray(image).reshape(-1, 3).astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    unique, places = np.unique(bits, return_inverse=True)
    found = np.stack([unique >> 16, unique >> 8 & 255, unique & 255], axis=1).astype(np.float32)
    entries = table.astype(np.float32)
    # Squared distance without the term that is the same for all entries of the table.
    distances = (entries**2).sum(axis=1) - 2 * found @ entries.T
    nearest = distances.argmin(axis=1).astype(np.uint8)[places]
    result = Image.fromarray(nearest.reshape(image.height, image.width), mode="P")
    result.putpalette(table.tobytes())
    return result


def pixels(figure: Figure, dpi: int) -> Any:
    """Return a figure as an RGB image of Pillow."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def data_uri(data: bytes, kind: str = "image/png") -> str:
    """Return bytes as a data URI, which a page can contain."""
    return f"data:{kind};base64," + base64.b64encode(data).decode()


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
