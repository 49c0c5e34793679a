"""MRMS: precipitation rates of the United States on 0.01 degrees, GRIB 2, often gzipped.

Read with eccodes: pysteps' importer needs pygrib and averages 4 x 4 pixels unasked. Discipline 209
is MRMS's own. A pixel of -3 is outside the radars' reach, one of -1 is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from pipelines.archives.contents import SourceFile
from pipelines.archives.radar.formats.radar_format import (
    Frames,
    Quantity,
    RadarFormat,
    begins,
    opened,
    seconds,
)
from pipelines.archives.radar.grid import RadarGrid
from pipelines.optional_libraries import load_pyproj_before_eccodes

_END = b"7777"
_RATE = (209, 6, 1)
_CATEGORY = ("discipline", "parameterCategory", "parameterNumber")
_ELLIPSOIDS = {2: "+ellps=IAU76", 4: "+ellps=GRS80", 5: "+ellps=WGS84", 6: "+R=6371229"}
"""GRIB's shapeOfTheEarth -> PROJ's ellipsoid."""


def recognises(path: str, name: str) -> bool:
    """Return whether the file is GRIB of edition 2."""
    head = begins(path, 8)
    return head[:4] == b"GRIB" and head[7:8] == b"\x02"


def times(path: str, file: SourceFile) -> np.ndarray:
    """Return the time of the analysis."""
    with _message(path) as message:
        return _times(message)


def quantities(path: str, file: SourceFile) -> tuple[Quantity, ...]:
    """Return the rain rate; raise ValueError for another product."""
    with _message(path) as message:
        _check_product(message)
    return (Quantity("rain_rate", "PrecipRate of MRMS", 0.0),)


def read(path: str, file: SourceFile, quantity: Quantity, positions: np.ndarray) -> Frames:
    """Return the one frame."""
    import eccodes

    with _message(path) as message:
        _check_product(message)
        grid = _grid(message)
        values = eccodes.codes_get_values(message).reshape(grid.shape).astype(np.float32)
        values[values < 0] = np.nan
        return Frames(_times(message), grid, values[None])


@contextmanager
def _message(path: str) -> Iterator[Any]:
    """Yield the file's one message; raise ValueError if it is cut off or has several."""
    load_pyproj_before_eccodes()
    import eccodes

    with opened(path) as content:
        data = content.read()
    # eccodes decodes a message that was cut off without an error.
    if len(data) < 16 or int.from_bytes(data[8:16], "big") != len(data) or data[-4:] != _END:
        raise ValueError("it is cut off, or holds more than one message")
    message = eccodes.codes_new_from_message(data)
    try:
        yield message
    finally:
        eccodes.codes_release(message)


def _get(message: Any, key: str) -> Any:
    import eccodes

    return eccodes.codes_get(message, key)


def _check_product(message: Any) -> None:
    held = tuple(_get(message, key) for key in _CATEGORY)
    if held != _RATE:
        raise ValueError(f"its product is {held}, and only PrecipRate {_RATE} is read")


def _times(message: Any) -> np.ndarray:
    parts = [_get(message, key) for key in ("year", "month", "day", "hour", "minute", "second")]
    text = "".join(f"{part:02d}" for part in parts)
    return np.array([seconds(text, "%Y%m%d%H%M%S")], np.int64)


def _grid(message: Any) -> RadarGrid:
    if _get(message, "gridType") != "regular_ll" or _get(message, "scanningMode") != 0:
        raise ValueError("its grid is not a regular one from north to south and west to east")
    rows, columns = _get(message, "Nj"), _get(message, "Ni")
    axes = []
    for name, size in (("latitude", rows), ("longitude", columns)):
        first = float(_get(message, f"{name}OfFirstGridPointInDegrees"))
        last = float(_get(message, f"{name}OfLastGridPointInDegrees"))
        axes.append((first, (last - first) / max(1, size - 1)))
    ellipsoid = _ELLIPSOIDS.get(_get(message, "shapeOfTheEarth"), "+R=6367470")
    projection = f"+proj=longlat {ellipsoid} +no_defs"
    return RadarGrid(projection, (rows, columns), axes[0], axes[1], degrees=True)


FORMAT = RadarFormat("mrms_grib2", "MRMS precipitation rates", recognises, times, quantities, read)
