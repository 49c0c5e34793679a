"""The way to pysteps and pyproj, which the extra ``radar`` installs.

pysteps prints where its configuration lies as soon as it is imported; standard output belongs to
the jobs, whose last line may be JSON.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from types import ModuleType
from typing import Any

from pipelines.archives.radar.grid import RadarGrid
from pipelines.errors import UsageError

_UNITS = {"m": 1.0, "km": 1000.0, "degrees": 1.0}


def pysteps_importers() -> ModuleType:
    """``pysteps.io.importers``; UsageError with the command that installs it where it is absent."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pysteps.io.importers as importers
    except ImportError as error:
        raise _missing("pysteps", error) from None
    return importers


def pyproj() -> ModuleType:
    """The module pyproj; UsageError with the command that installs it where it is absent."""
    try:
        import pyproj as module
    except ImportError as error:
        raise _missing("pyproj", error) from None
    return module


def grid_of(metadata: dict[str, Any], shape: tuple[int, int]) -> RadarGrid:
    """The grid that an importer of pysteps describes, in metres or degrees; row 0 is the north."""
    unit = metadata["cartesian_unit"]
    scale = _UNITS[unit]
    projection = " ".join(str(metadata["projection"]).split())
    if unit == "km":
        projection = _in_metres(projection)
    x1, x2, y1, y2 = (scale * float(metadata[name]) for name in ("x1", "x2", "y1", "y2"))
    y = (y2, y1) if metadata["yorigin"] == "upper" else (y1, y2)
    return RadarGrid.between(projection, shape, (x1, x2), y, degrees=unit == "degrees")


def _in_metres(projection: str) -> str:
    """Axes of the ellipsoid that are given in kilometres, in metres.

    >>> _in_metres("+proj=stere +a=6378.137 +b=6356.752 +x_0=0")
    '+proj=stere +a=6378137 +b=6356752 +x_0=0'
    """

    def longer(match: re.Match[str]) -> str:
        value = float(match[2])
        return f"+{match[1]}={value * 1000:.10g}" if value < 10_000 else match[0]

    return re.sub(r"\+?\b(a|b)=([0-9.]+)", longer, projection)


def _missing(module: str, error: ImportError) -> UsageError:
    return UsageError(
        f"radar composites need {module}, which is not installed ({error})",
        where="--archive radar",
        remedy="pip install 'gmg-platform[radar]'",
    )
