"""KNMI composites: reflectivity (8 bit) and rainfall sums (16 bit) in KNMI's own HDF5 layout.

pysteps reads pixels and grid. It assumes a scale and codes; these are compared with the file's own,
which win.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.archives.contents import SourceFile
from pipelines.archives.radar.formats.importers import grid_of, pysteps_importers
from pipelines.archives.radar.formats.radar_format import (
    HDF5,
    Frames,
    Quantity,
    RadarFormat,
    begins,
)

_FORMULA = re.compile(r"GEO\s*=\s*([-+.\deE]+)\s*\*\s*PV\s*\+\s*([-+.\deE]+)")
_MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]


@dataclass(frozen=True)
class _Assumed:
    """What pysteps assumes of a quantity: value = gain * pixel + offset."""

    qty: str
    gain: float
    offset: float
    outside: int
    """code of a pixel outside the image, which becomes NaN"""


_IMPORTED = {
    "reflectivity": _Assumed("DBZH", 0.5, -32.0, 255),
    "rainfall": _Assumed("ACRR", 0.01, 0.0, 65535),
}


@dataclass(frozen=True)
class _Header:
    time: int
    quantity: Quantity
    gain: float
    offset: float
    outside: int
    missing: int


def recognises(path: str, name: str) -> bool:
    """Return whether the file is HDF5 with KNMI's groups."""
    import h5py

    if begins(path, 4) != HDF5:
        return False
    try:
        with h5py.File(path, "r") as content:
            return "image1" in content and "geographic" in content and "overview" in content
    except OSError:
        return False


def times(path: str, file: SourceFile) -> np.ndarray:
    """Return the end of the measurement."""
    return np.array([_header(path).time], np.int64)


def quantities(path: str, file: SourceFile) -> tuple[Quantity, ...]:
    """Return the reflectivity or the rainfall."""
    return (_header(path).quantity,)


def read(path: str, file: SourceFile, quantity: Quantity, positions: np.ndarray) -> Frames:
    """Return the one frame."""
    header = _header(path)
    if header.quantity.name != quantity.name:
        raise ValueError(f"it holds {header.quantity.name}, not {quantity.name}")
    assumed = _IMPORTED[quantity.name]
    if header.outside != assumed.outside:
        raise ValueError(f"pixels outside the image are {header.outside}, not {assumed.outside}")
    values, _, metadata = pysteps_importers().import_knmi_hdf5(path, qty=assumed.qty)
    if header.missing:
        # Missing pixels have a code of their own, except in 8-bit reflectivity: 0 there is no echo.
        values[np.isclose(values, assumed.gain * header.missing + assumed.offset)] = np.nan
    if (header.gain, header.offset) != (assumed.gain, assumed.offset):
        values = header.gain * ((values - assumed.offset) / assumed.gain) + header.offset
    grid = grid_of(metadata, values.shape)
    return Frames(np.array([header.time]), grid, values[None].astype(np.float32))


def _header(path: str) -> _Header:
    import h5py

    with h5py.File(path, "r") as content:
        overview: Any = content["overview"].attrs
        image: Any = content["image1"].attrs
        calibration: Any = content["image1/calibration"].attrs
        meaning = _text(image["image_geo_parameter"])
        formula = _FORMULA.search(_text(calibration["calibration_formulas"]))
        if formula is None:
            raise ValueError(f"no linear calibration: {calibration['calibration_formulas']!r}")
        gain, offset = float(formula[1]), float(formula[2])
        begin = _seconds(_text(overview["product_datetime_start"]))
        end = _seconds(_text(overview["product_datetime_end"]))
        product = _text(image["image_product_name"])
        source_name = f"{meaning} of {product}"
        if "DBZ" in meaning:
            quantity = Quantity("reflectivity", source_name, offset)
        elif "MM" in meaning and end > begin:
            quantity = Quantity("rainfall", source_name, 0.0, end - begin)
        else:
            raise ValueError(f"a quantity that is not read: {source_name}")
        return _Header(
            time=end,
            quantity=quantity,
            gain=gain,
            offset=offset,
            outside=_number(calibration["calibration_out_of_image"]),
            missing=_number(calibration["calibration_missing_data"]),
        )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _number(value: Any) -> int:
    return int(np.ravel(value)[0])


def _seconds(text: str) -> int:
    """Return the seconds since 1970 of a time such as `03-JAN-2021;20:05:00.000`."""
    day, month, year = text.split(";")[0].split("-")
    clock = text.split(";")[1].split(".")[0]
    number = _MONTHS.index(month.upper()) + 1
    return int(np.datetime64(f"{year}-{number:02d}-{day}T{clock}", "s").astype(np.int64))


FORMAT = RadarFormat("knmi_hdf5", "KNMI composites", recognises, times, quantities, read)
