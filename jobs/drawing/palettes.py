"""Colours of fields by their quantity: the usual steps for radar, even lightness for the others.

The usual radar colours rise and fall in lightness and contain both red and green. So that
colour-blind readers can use them, maps also have a dotted, a dashed and a solid line at three
thresholds, and `colours="lightness"` selects steps of the same hues that darken one by one. The
lightness of all other palettes changes evenly, so that they can be read in black and white and by
colour-blind readers. The palette of errors is pale at 0 and darkens to both sides; there, a dashed
line encloses values that are too low.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Colours = Literal["usual", "lightness"]

REFLECTIVITY = "dbz"
RAIN_RATES = ("mm/h", "mm h-1", "mm hr-1", "mm h**-1")
RAIN_NAMES = ("rain", "precipitation")
_TEMPERATURES = ("temperature",)
_KELVIN = ("k", "degc", "deg_c", "celsius", "°c")
_BRIGHTNESS = ("grey", "gray", "brightness of pixels")

_DBZ_LEVELS = (5.0, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65)
_RAIN_LEVELS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 20, 30, 50, 75, 100)
_USUAL = (
    *("#9ce5f5", "#4fb3f0", "#1667d9"),  # light rain: blues
    *("#4fd84f", "#1fa51f", "#0b6e0b"),  # greens
    *("#fff23a", "#f0c000", "#ff9100"),  # yellow to orange
    *("#ff2a1a", "#c20000", "#8a0000"),  # reds
    "#d400d4",  # magenta
)
_DARKENING = (
    *("#d2f4fc", "#ace9ff", "#93d7fe"),
    *("#78d274", "#69c25e", "#58b14b"),
    *("#a49102", "#a97c02", "#b36301"),
    *("#bc3c02", "#ad070a", "#850120"),
    "#51014d",
)
NO_ECHO = "#ffffff"
"""The colour of values below the first step."""
MISSING = {"facecolor": "#e4e4e4", "edgecolor": "#8a8a8a", "hatch": "////", "linewidth": 0}
"""The look of the background of a map, which is visible where pixels are missing."""


@dataclass(frozen=True)
class Palette:
    """The colours of one quantity."""

    name: str
    """The name in captions."""
    colours: str | tuple[str, ...]
    """The name of a matplotlib colour map, or one colour per step."""
    levels: tuple[float, ...] = ()
    """Lower ends of the steps, in the units of the data. Empty for continuous colours."""
    lines: tuple[float, ...] = ()
    """Values at which a dotted, a dashed and a solid line are drawn, in this order."""

    def scale(self, low: float, high: float) -> tuple[Any, Any]:
        """Return the matplotlib colour map and norm for values from `low` to `high`.

        Steps depend on the quantity only: a palette with steps ignores the range.
        """
        import matplotlib
        from matplotlib.colors import BoundaryNorm, ListedColormap, Normalize

        if isinstance(self.colours, str):
            return matplotlib.colormaps[self.colours], Normalize(low, high)
        steps = ListedColormap(self.colours[:-1]).with_extremes(
            under=NO_ECHO, over=self.colours[-1]
        )
        return steps, BoundaryNorm(self.levels, len(self.colours) - 1)

    @property
    def stepped(self) -> bool:
        """Whether the palette has steps of one colour each."""
        return bool(self.levels)


ERROR = Palette("purple (too low) to orange (too high)", "PuOr_r")
EVEN = Palette("dark to bright", "cividis")
SIZE = Palette("pale (small) to dark (large)", "YlGnBu")
_TEMPERATURE = Palette("dark (cold) to bright (warm)", "inferno")
_GREY = Palette("black to white", "gray")


def palette_of(
    units: str, standard_name: str = "", long_name: str = "", colours: Colours = "usual"
) -> Palette:
    """Return the palette of a quantity, which its CF attributes describe.

    >>> palette_of("dBZ").levels[:3], palette_of("K", "air_temperature").colours
    ((5.0, 10, 15), 'inferno')
    """
    unit, names = units.lower().strip(), f"{standard_name} {long_name}".lower()
    steps = _USUAL if colours == "usual" else _DARKENING
    words = "usual radar colours" if colours == "usual" else "radar hues, darker step by step"
    if unit == REFLECTIVITY:
        return Palette(words, steps, _DBZ_LEVELS, (20.0, 30.0, 40.0))
    if unit in RAIN_RATES:
        return Palette(words, steps, _RAIN_LEVELS, (1.0, 5.0, 20.0))
    if unit in ("mm", "kg m-2", "kg m**-2") and any(name in names for name in RAIN_NAMES):
        return Palette(words, steps, _RAIN_LEVELS, (1.0, 5.0, 20.0))
    if unit in _KELVIN or any(name in names for name in _TEMPERATURES):
        return _TEMPERATURE
    if any(name in names for name in _BRIGHTNESS):
        return _GREY
    return EVEN
