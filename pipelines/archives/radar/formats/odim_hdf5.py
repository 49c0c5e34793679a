"""ODIM_H5: composites of OPERA and of most European services, DWD's HDF5 among them.

EUMETNET OPERA, "Information model for the HDF5 file format" 2.4. Read with h5py: pysteps' importer
reads only strings of fixed length, and sets every pixel without echo to -30 dBZ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pipelines.archives.contents import SourceFile
from pipelines.archives.radar.formats.radar_format import (
    HDF5,
    Frames,
    Quantity,
    RadarFormat,
    begins,
    seconds,
)
from pipelines.archives.radar.grid import RadarGrid
from pipelines.optional_libraries import load_pyproj

_NAMES = {"DBZH": "reflectivity", "DBZ": "reflectivity", "RATE": "rain_rate", "ACRR": "rainfall"}
_COMPOSITES = ("COMP", "IMAGE")
_WEAKEST = -50.0
_NO_ECHO_DBZ = -32.0


def recognises(path: str, name: str) -> bool:
    """Return whether the file is HDF5 whose root says that it is ODIM."""
    import h5py

    if begins(path, 4) != HDF5:
        return False
    try:
        with h5py.File(path, "r") as content:
            conventions = _text(content.attrs.get("Conventions", ""))
            return conventions.startswith("ODIM") or ("what" in content and "where" in content)
    except OSError:
        return False


def times(path: str, file: SourceFile) -> np.ndarray:
    """Return the nominal time of the composite."""
    import h5py

    with h5py.File(path, "r") as content:
        return _times(content)


def quantities(path: str, file: SourceFile) -> tuple[Quantity, ...]:
    """Return which of reflectivity, rain rate and rainfall the file has."""
    import h5py

    with h5py.File(path, "r") as content:
        kind = _text(content["what"].attrs["object"])
        if kind not in _COMPOSITES:
            raise ValueError(f"it holds an object {kind}, which is not a composite")
        found: dict[str, Quantity] = {}
        for _, what in _data(content):
            quantity = _quantity(what)
            if quantity is not None:
                found.setdefault(quantity.name, quantity)
    if not found:
        raise ValueError(f"it holds none of the quantities {', '.join(_NAMES)}")
    return tuple(found.values())


def read(path: str, file: SourceFile, quantity: Quantity, positions: np.ndarray) -> Frames:
    """Return the one frame, from the first data set with the quantity."""
    import h5py

    with h5py.File(path, "r") as content:
        for data, what in _data(content):
            held = _quantity(what)
            if held is not None and held.same_kind(quantity):
                values = _values(np.asarray(data), what, quantity.no_echo)
                grid = _grid(content["where"].attrs, (values.shape[0], values.shape[1]))
                return Frames(_times(content), grid, values[None])
    raise ValueError(f"it holds no {quantity.name} like that of the first file")


def _times(content: Any) -> np.ndarray:
    what = content["what"].attrs
    text = _text(what["date"]) + _text(what["time"])[:6].ljust(6, "0")
    return np.array([seconds(text, "%Y%m%d%H%M%S")], np.int64)


def _data(content: Any) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """Yield every data set with its `what`; attributes of the outer group hold for the inner."""
    for outer in _numbered(content, "dataset"):
        group = content[outer]
        shared = dict(group["what"].attrs) if "what" in group else {}
        for inner in _numbered(group, "data"):
            own = dict(group[inner]["what"].attrs) if "what" in group[inner] else {}
            yield group[inner]["data"], shared | own


def _numbered(group: Any, stem: str) -> list[str]:
    names = [name for name in group if name.startswith(stem) and name[len(stem) :].isdigit()]
    return sorted(names, key=lambda name: int(name[len(stem) :]))


def _quantity(what: Mapping[str, Any]) -> Quantity | None:
    source_name = _text(what.get("quantity", ""))
    name = _NAMES.get(source_name)
    if name is None:
        return None
    if name == "rainfall":
        begin = seconds(_text(what["startdate"]) + _text(what["starttime"]), "%Y%m%d%H%M%S")
        end = seconds(_text(what["enddate"]) + _text(what["endtime"]), "%Y%m%d%H%M%S")
        return Quantity(name, source_name, 0.0, end - begin)
    if name == "rain_rate":
        return Quantity(name, source_name, 0.0)
    gain, offset = float(what.get("gain", 1.0)), float(what.get("offset", 0.0))
    no_echo = gain * float(what.get("undetect", 0.0)) + offset
    # Some files code it far outside the scale (-8888000), where the formula means nothing.
    return Quantity(name, source_name, no_echo if _WEAKEST <= no_echo <= 0 else _NO_ECHO_DBZ)


def _values(pixels: np.ndarray, what: Mapping[str, Any], no_echo: float) -> np.ndarray:
    gain, offset = float(what.get("gain", 1.0)), float(what.get("offset", 0.0))
    values = gain * pixels.astype(np.float64) + offset
    values[pixels == what.get("undetect", 0.0)] = no_echo
    if "nodata" in what:
        values[pixels == what["nodata"]] = np.nan
    return values.astype(np.float32)


def _grid(where: Any, shape: tuple[int, int]) -> RadarGrid:
    """Return the grid between the outer corners, which the file gives in degrees."""
    projection = " ".join(_text(where["projdef"]).split())
    transform = load_pyproj().Proj(projection)
    names = [corner for corner in ("LL", "UL", "LR", "UR") if f"{corner}_lon" in where]
    corners = [
        transform(float(where[f"{name}_lon"]), float(where[f"{name}_lat"])) for name in names
    ]
    if not np.isfinite(corners).all():
        raise ValueError(f"its corners lie outside the projection {projection}")
    x, y = zip(*corners, strict=True)
    edges = (min(x), max(x)), (max(y), min(y))
    if (int(where["ysize"]), int(where["xsize"])) != shape:
        raise ValueError(f"its image is {shape}, not ({where['ysize']}, {where['xsize']})")
    degrees = bool(transform.crs.is_geographic)
    return RadarGrid.between(projection, shape, *edges, degrees=degrees)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


FORMAT = RadarFormat("odim_hdf5", "ODIM_H5 composites", recognises, times, quantities, read)
