"""DWD's RADOLAN and RADKLIM composites: a line of text, then 8 or 16 bits per pixel, south first.

DWD, "RADOLAN/RADVOR: Beschreibung des Kompositformats" 2.5. pysteps 1.21 is not used: it fails for
RX and WX, subtracts 0.01 from every sum, and takes the southernmost row for the northernmost.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

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

_SPHERE = "+proj=stere +lat_0=90 +lat_ts=60 +lon_0=10 +x_0=0 +y_0=0 +R=6370040 +no_defs"
_ORIGINS = {(900, 900): (-523_462.2, -4_658_645.0), (1100, 900): (-443_462.2, -4_758_645.0)}
"""Rows, columns -> x and y of the outer corner in the south west, in metres."""
_REFLECTIVITY = ("RX", "WX")
_SUMS = ("RW", "RY", "SF", "YW")
_HEADER = re.compile(
    rb"(?P<product>[A-Z]{2})(?P<day>\d{2})(?P<clock>\d{4})\d{5}(?P<month>\d{2})(?P<year>\d{2})BY"
)
_END, _HEADER_BYTES = b"\x03", 2048
_VALUE, _NO_DATA, _NEGATIVE, _CLUTTER = 0x0FFF, 0x2000, 0x4000, 0x8000
_BYTE_CLUTTER = 249
"""Code of clutter in 8 bits; 250 means no data."""


@dataclass(frozen=True)
class _Header:
    product: str
    time: int
    scale: float
    interval: int
    """seconds of a rainfall sum"""
    shape: tuple[int, int]
    length: int
    """bytes of the header, with the character that ends it"""


def recognises(path: str, name: str) -> bool:
    """Return whether the file begins with a RADOLAN header."""
    return _HEADER.match(begins(path, 32)) is not None


def times(path: str, file: SourceFile) -> np.ndarray:
    """Return the time in the header; of a sum it is the end of the interval."""
    return np.array([_header(begins(path, _HEADER_BYTES)).time], np.int64)


def quantities(path: str, file: SourceFile) -> tuple[Quantity, ...]:
    """Return the reflectivity (RX, WX) or the rainfall (RW, RY, SF, YW)."""
    return (_quantity(_header(begins(path, _HEADER_BYTES))),)


def read(path: str, file: SourceFile, quantity: Quantity, positions: np.ndarray) -> Frames:
    """Return the one frame; clutter and pixels without data are NaN."""
    with opened(path) as content:
        data = content.read()
    header = _header(data[:_HEADER_BYTES])
    held = _quantity(header)
    if not held.same_kind(quantity):
        raise ValueError(f"it holds {held.source_name}, not {quantity.source_name}")
    if header.shape not in _ORIGINS:
        raise ValueError(f"its grid of {header.shape} is not one of {list(_ORIGINS)}")
    kind = np.dtype("u1") if header.product in _REFLECTIVITY else np.dtype("<u2")
    pixels = np.frombuffer(data, kind, offset=header.length).reshape(header.shape)
    values = _bytes(pixels) if kind.itemsize == 1 else _words(pixels, header.scale)
    x, y = _ORIGINS[header.shape]
    rows, columns = header.shape
    edges = (x, x + 1000.0 * columns), (y, y + 1000.0 * rows)
    grid = RadarGrid.between(_SPHERE, header.shape, *edges)
    return Frames(np.array([header.time]), grid, values[None])


def _quantity(header: _Header) -> Quantity:
    name = f"{header.product} of DWD"
    if header.product in _REFLECTIVITY:
        return Quantity("reflectivity", name, -32.5)
    if header.product in _SUMS:
        return Quantity("rainfall", name, 0.0, header.interval)
    raise ValueError(
        f"its product {header.product} is not one of {', '.join(_REFLECTIVITY + _SUMS)}"
    )


def _header(data: bytes) -> _Header:
    match = _HEADER.match(data)
    end = data.find(_END)
    if match is None or end < 0:
        raise ValueError("its header is cut off")
    text = data[:end].decode("latin1")
    size = re.search(r"GP\s*(\d+)\s*x\s*(\d+)", text)
    precision = re.search(r"PR\s*E([-+]\d+)", text)
    interval = re.search(r"INT\s*(\d+)", text)
    if size is None or precision is None or interval is None:
        raise ValueError(f"its header has no grid, precision or interval: {text!r}")
    stamp = "".join(match[part].decode() for part in ("year", "month", "day", "clock"))
    return _Header(
        product=match["product"].decode(),
        time=seconds(stamp, "%y%m%d%H%M"),
        scale=10.0 ** int(precision[1]),
        interval=60 * int(interval[1]),
        shape=(int(size[1]), int(size[2])),
        length=end + 1,
    )


def _bytes(pixels: np.ndarray) -> np.ndarray:
    values = pixels.astype(np.float32) / 2 - np.float32(32.5)
    values[pixels >= _BYTE_CLUTTER] = np.nan
    return values


def _words(pixels: np.ndarray, scale: float) -> np.ndarray:
    values = (pixels & _VALUE) * scale
    values[(pixels & _NEGATIVE) > 0] *= -1
    values[(pixels & (_NO_DATA | _CLUTTER)) > 0] = np.nan
    return values.astype(np.float32)


FORMAT = RadarFormat("radolan", "DWD RADOLAN composites", recognises, times, quantities, read)
