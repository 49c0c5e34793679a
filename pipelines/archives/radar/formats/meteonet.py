"""MeteoNet: rainfall and reflectivity of two regions of France, NumPy archives of ten days each.

Files are called `rainfall_<zone>_<year>_<month>.<part>.npz` and `reflectivity_old|new_...`. Each
holds `data`, int16 (n, rows, columns), and the object arrays `dates` and `miss_dates`. The file
`radar_coords_<zone>.npz` is beside them.
"""

from __future__ import annotations

import datetime
import io
import re
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
from numpy.lib import format as npy

from pipelines.archives.contents import SourceFile
from pipelines.archives.radar.formats.radar_format import Frames, Quantity, RadarFormat
from pipelines.archives.radar.grid import RadarGrid
from pipelines.archives.radar.object_dates import read_dates
from pipelines.storage import places

_NAME = re.compile(
    r"(?:.*/)?(?P<product>rainfall|reflectivity_(?:old|new))_(?P<zone>[A-Z]+)_\d{4}_"
)
_WGS84 = "+proj=longlat +datum=WGS84 +no_defs"
_MISSING = {"rainfall": -1, "reflectivity": 255}
_FIVE_MINUTES = 300
_IRREGULAR = 1e-3
"""Degrees by which a coordinate may depart from a regular grid."""


def recognises(path: str, name: str) -> bool:
    """Return whether the file is a NumPy archive with MeteoNet's arrays."""
    try:
        with zipfile.ZipFile(path) as content:
            return {"data.npy", "dates.npy", "miss_dates.npy"} <= set(content.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def product(name: str) -> str | None:
    """Return for example `rainfall_NW`; None for coordinates and quality codes."""
    match = _NAME.match(name)
    return f"{match['product']}_{match['zone']}" if match else None


def times(path: str, file: SourceFile) -> np.ndarray:
    """Return the frames' times; raise ValueError if one is also listed as missing."""
    with _archive(path) as content:
        held = [_seconds(date) for date in _dates(content, "dates.npy")]
        missing = {_seconds(date) for date in _dates(content, "miss_dates.npy")}
    contradicting = missing & set(held)
    if contradicting:
        time = np.datetime64(min(contradicting), "s")
        raise ValueError(f"it holds a frame of {time} and lists it as missing")
    return np.array(held, np.int64)


def quantities(path: str, file: SourceFile) -> tuple[Quantity, ...]:
    """Return the rainfall in five minutes, or the reflectivity."""
    match = _NAME.match(file.name)
    if match is None:
        raise ValueError("its name is not rainfall_<zone>_... or reflectivity_<product>_<zone>_...")
    if match["product"] == "rainfall":
        return (Quantity("rainfall", "rainfall of MeteoNet", 0.0, _FIVE_MINUTES),)
    return (Quantity("reflectivity", f"{match['product']} of MeteoNet", 0.0),)


def read(path: str, file: SourceFile, quantity: Quantity, positions: np.ndarray) -> Frames:
    """Return the frames at these positions along `dates`."""
    times_n = times(path, file)
    order = np.argsort(positions, kind="stable")
    pixels = _frames(path, file, positions[order])
    if len(times_n) <= int(positions.max()):
        raise ValueError(f"it has {len(times_n)} dates and more frames")
    values = pixels.astype(np.float32)
    if quantity.name == "rainfall":
        values = (pixels.astype(np.float64) / 100).astype(np.float32)
    values[pixels == _MISSING[quantity.name]] = np.nan
    back = np.argsort(order, kind="stable")
    return Frames(times_n[positions], _grid(file, pixels.shape[1:]), values[back])


def _frames(path: str, file: SourceFile, positions: np.ndarray) -> np.ndarray:
    """Return the raw pixels at increasing positions."""
    with _lock:
        key = (file.uri, file.etag)
        stream = _streams.pop(key, None)
        if stream is None or stream.position > int(positions[0]):
            _close(stream)
            stream = _Stream(path)
        try:
            frames = np.stack([stream.frame(int(position)) for position in positions])
        except BaseException:
            _close(stream)
            raise
        for other in _streams.values():
            _close(other)
        _streams.clear()
        _streams[key] = stream
    return frames


class _Stream:
    """Frames of a compressed `data` array. Inflating cannot jump, so it reads forward only."""

    def __init__(self, path: str):
        self._zip = zipfile.ZipFile(path)
        self._content = self._zip.open("data.npy")
        version = npy.read_magic(cast(Any, self._content))
        reader = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, self._dtype = reader(cast(Any, self._content))
        if len(shape) != 3 or fortran or self._dtype.kind not in "iu":
            raise ValueError(f"its 'data' is {shape} of {self._dtype}, not (n, rows, columns)")
        self._frames, self._shape = shape[0], shape[1:]
        self.position = 0

    def frame(self, position: int) -> np.ndarray:
        """Return the frame at `position`, which must not be before the one that was read last."""
        size = self._dtype.itemsize * self._shape[0] * self._shape[1]
        while True:
            data = self._content.read(size)
            if len(data) < size:
                raise ValueError(f"it is cut off at frame {self.position} of {self._frames}")
            self.position += 1
            if self.position > position:
                return np.frombuffer(data, self._dtype).reshape(self._shape)

    def close(self) -> None:
        self._content.close()
        self._zip.close()


_streams: dict[tuple[str, str], _Stream] = {}
"""The stream that was read last: the next shard usually goes on from there."""
_lock = threading.Lock()


def _close(stream: _Stream | None) -> None:
    if stream is not None:
        stream.close()


@contextmanager
def _archive(path: str) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as content:
            yield content
    except zipfile.BadZipFile as error:
        raise ValueError(f"it is not a NumPy archive, or it is cut off: {error}") from None


def _dates(content: zipfile.ZipFile, name: str) -> list[datetime.date]:
    with content.open(name) as stream:
        return read_dates(cast(Any, stream))


def _seconds(date: datetime.date) -> int:
    if not isinstance(date, datetime.datetime):
        raise ValueError(f"its dates are days, not times: {date}")
    return int(date.replace(tzinfo=datetime.UTC).timestamp())


_grids: dict[str, RadarGrid] = {}


def _grid(file: SourceFile, shape: tuple[int, ...]) -> RadarGrid:
    """Return the grid of the zone, from the coordinates beside the file."""
    match = _NAME.match(file.name)
    zone = match["zone"] if match else ""
    place = places.join(file.uri.rsplit("/", 1)[0], f"radar_coords_{zone}.npz")
    if place not in _grids:
        try:
            _grids[place] = _regular(io.BytesIO(places.read_bytes(place)))
        except FileNotFoundError:
            raise ValueError(f"its coordinates are not beside it: {place}") from None
    grid = _grids[place]
    if grid.shape != shape:
        raise ValueError(f"its frames are {shape}, its coordinates {grid.shape}")
    return grid


def _regular(content: io.BytesIO) -> RadarGrid:
    with np.load(content, allow_pickle=False) as arrays:
        lats, lons = arrays["lats"], arrays["lons"]
    rows, columns = lats.shape
    y = (float(lats[0, 0]), float(lats[-1, 0] - lats[0, 0]) / (rows - 1))
    x = (float(lons[0, 0]), float(lons[0, -1] - lons[0, 0]) / (columns - 1))
    grid = RadarGrid(_WGS84, (rows, columns), y, x, degrees=True)
    axes = grid.coordinates()
    if (
        np.abs(lats - axes["latitude"][:, None]).max() > _IRREGULAR
        or np.abs(lons - axes["longitude"]).max() > _IRREGULAR
    ):
        raise ValueError("its coordinates are not a regular grid")
    return grid


FORMAT = RadarFormat(
    "meteonet",
    "MeteoNet",
    recognises,
    times,
    quantities,
    read,
    many_frames=True,
    product=product,
)
