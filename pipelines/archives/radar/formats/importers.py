"""Turn the grid that an importer of pysteps describes into a `RadarGrid` in metres or degrees."""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any

from pipelines.archives.radar.grid import RadarGrid
from pipelines.optional_libraries import load_pysteps

_UNITS = {"m": 1.0, "km": 1000.0, "degrees": 1.0}


def pysteps_importers() -> ModuleType:
    """Return `pysteps.io.importers`; raise UsageError with the command that installs it."""
    return load_pysteps("pysteps.io.importers")


def grid_of(metadata: dict[str, Any], shape: tuple[int, int]) -> RadarGrid:
    """Return the grid of an importer's metadata, in metres or degrees; row 0 is the north."""
    unit = metadata["cartesian_unit"]
    scale = _UNITS[unit]
    projection = " ".join(str(metadata["projection"]).split())
    if unit == "km":
        projection = _in_metres(projection)
    x1, x2, y1, y2 = (scale * float(metadata[name]) for name in ("x1", "x2", "y1", "y2"))
    y = (y2, y1) if metadata["yorigin"] == "upper" else (y1, y2)
    return RadarGrid.between(projection, shape, (x1, x2), y, degrees=unit == "degrees")


def _in_metres(projection: str) -> str:
    """Return a projection whose axes of the ellipsoid are in metres instead of kilometres.

    >>> _in_metres("+proj=stere +a=6378.137 +b=6356.752 +x_0=0")
    '+proj=stere +a=6378137 +b=6356752 +x_0=0'
    """

    def longer(match: re.Match[str]) -> str:
        value = float(match[2])
        return f"+{match[1]}={value * 1000:.10g}" if value < 10_000 else match[0]

    return re.sub(r"\+?\b(a|b)=([0-9.]+)", longer, projection)
