"""What a radar format is: four functions and a name, found by content.

Adding one: write a module of this package that defines ``FORMAT`` and name it in
:data:`pipelines.archives.radar.options.FORMATS`. Functions raise OSError, ValueError or KeyError
for a file that is damaged or not as it should be, in words that go into the ledger; they never
guess.
"""

from __future__ import annotations

import bz2
import gzip
import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, cast

import numpy as np

from pipelines.archives.contents import SourceFile
from pipelines.archives.radar.grid import RadarGrid
from pipelines.archives.radar.options import FORMATS
from pipelines.errors import SourceError

HDF5 = b"\x89HDF"
_GZIP, _BZIP2 = b"\x1f\x8b", b"BZh"

_STANDARD = {
    "reflectivity": ("equivalent_reflectivity_factor", "dBZ"),
    "rain_rate": ("rainfall_rate", "mm/h"),
    "rainfall": ("thickness_of_rainfall_amount", "mm"),
}
"""variable of a store -> CF standard name, unit"""


@dataclass(frozen=True)
class Quantity:
    """What the pixels of a composite mean."""

    name: str
    """variable in a store: reflectivity (dBZ), rain_rate (mm/h) or rainfall (mm)"""
    source_name: str
    """what the file calls it"""
    no_echo: float
    """value of a pixel that was seen and holds no echo; no pixel is smaller"""
    accumulation_seconds: int = 0
    """rainfall: the time over which it fell, which ends at the frame's time"""

    @property
    def unit(self) -> str:
        """dBZ, mm/h or mm."""
        return _STANDARD[self.name][1]

    def same_kind(self, other: Quantity) -> bool:
        """Whether values of both can stand in one array."""
        return (self.name, self.accumulation_seconds) == (other.name, other.accumulation_seconds)

    def attributes(self) -> dict[str, Any]:
        """CF attributes of the variable."""
        standard_name, unit = _STANDARD[self.name]
        attributes = {
            "long_name": f"{self.name.replace('_', ' ')} ({self.source_name})",
            "standard_name": standard_name,
            "units": unit,
            "no_echo_value": self.no_echo,
        }
        if self.accumulation_seconds:
            minutes = self.accumulation_seconds / 60
            attributes["cell_methods"] = f"time: sum (interval: {minutes:g} minutes)"
        return attributes

    def converted(self, name: str, no_echo: float) -> Quantity:
        """The same in another unit."""
        return replace(self, name=name, no_echo=no_echo, accumulation_seconds=0)


@dataclass(frozen=True, eq=False)
class Frames:
    """Decoded frames of one file, with what the file says of them."""

    times: np.ndarray
    """int64 (n,): seconds since 1970-01-01 UTC"""
    grid: RadarGrid
    values: np.ndarray
    """float32 (n, rows, columns); NaN where nothing was measured"""


@dataclass(frozen=True)
class RadarFormat:
    """One format of composites."""

    name: str
    title: str
    recognises: Callable[[str, str], bool]
    """(local path, file name) -> whether the file is of this format"""
    times: Callable[[str, SourceFile], np.ndarray]
    """the frames' times as the file's metadata have them, int64 (n,); reads no pixels"""
    quantities: Callable[[str, SourceFile], tuple[Quantity, ...]]
    """what the file holds"""
    read: Callable[[str, SourceFile, Quantity, np.ndarray], Frames]
    """frames at positions along the file's times, missing pixels NaN, no echo as the quantity's"""
    many_frames: bool = False
    """one file holds many frames; otherwise one"""
    product: Callable[[str], str | None] = lambda name: ""
    """which of the format's products a file name stands for; None: no frames, the file is left"""


def load_format(name: str) -> RadarFormat:
    """The format called ``name``."""
    return importlib.import_module(f"pipelines.archives.radar.formats.{name}").FORMAT


def recognise(path: str, file: SourceFile) -> RadarFormat:
    """The format of a file; SourceError where it is none of them."""
    for name in FORMATS:
        found = load_format(name)
        if found.recognises(path, file.name):
            return found
    with open(path, "rb") as content:
        head = content.read(4)
    raise SourceError(
        "a source file is empty"
        if not head
        else f"a source file is no radar composite of a format that is read (begins with {head!r})",
        where=f"{file.uri} ({file.size} bytes)",
        remedy=f"formats are {', '.join(FORMATS)}; fetch it again, or leave it out of the source",
    )


def opened(path: str) -> BinaryIO:
    """The file's content, uncompressed where it is gzip or bzip2."""
    with open(path, "rb") as content:
        magic = content.read(3)
    if magic[:2] == _GZIP:
        return cast(BinaryIO, gzip.open(path, "rb"))
    return cast(BinaryIO, bz2.open(path, "rb")) if magic == _BZIP2 else open(path, "rb")


def begins(path: str, length: int) -> bytes:
    """The first bytes of the uncompressed content; empty where it cannot be read."""
    try:
        with opened(path) as content:
            return content.read(length)
    except (OSError, EOFError):
        return b""


def seconds(text: str, pattern: str) -> int:
    """A UTC time in a ``strptime`` pattern without month names, as seconds since 1970-01-01.

    >>> seconds("20190610-0002", "%Y%m%d-%H%M")
    1560124920
    """
    import datetime

    time = datetime.datetime.strptime(text, pattern)
    return int(time.replace(tzinfo=datetime.UTC).timestamp())
