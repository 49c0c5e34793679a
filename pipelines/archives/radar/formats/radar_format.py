"""What a radar format is: a name and four functions that read its files.

To add a format, write a module in this folder that defines `FORMAT`, and name it in `FORMATS` of
`pipelines.archives.radar.options`. The functions raise OSError, ValueError or KeyError for a file
that is damaged or unexpected, with a text for the ledger; they never guess.
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
"""Variable of a store -> its CF standard name and unit."""


@dataclass(frozen=True)
class Quantity:
    """The meaning of a composite's pixels."""

    name: str
    """the store's variable: reflectivity (dBZ), rain_rate (mm/h) or rainfall (mm)"""
    source_name: str
    """the file's own name of it"""
    no_echo: float
    """value of a pixel that was measured and has no echo; the smallest value"""
    accumulation_seconds: int = 0
    """seconds of a rainfall sum, which end at the frame's time; 0 for other quantities"""

    @property
    def unit(self) -> str:
        """dBZ, mm/h or mm."""
        return _STANDARD[self.name][1]

    def same_kind(self, other: Quantity) -> bool:
        """Return whether values of both may be in one array."""
        return (self.name, self.accumulation_seconds) == (other.name, other.accumulation_seconds)

    def attributes(self) -> dict[str, Any]:
        """Return the CF attributes of the variable."""
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
        """Return the quantity that this becomes in another unit."""
        return replace(self, name=name, no_echo=no_echo, accumulation_seconds=0)


@dataclass(frozen=True, eq=False)
class Frames:
    """Decoded frames of one file, with their times and grid in its metadata."""

    times: np.ndarray
    """int64 (n,): seconds since 1970-01-01 UTC"""
    grid: RadarGrid
    values: np.ndarray
    """float32 (n, rows, columns); NaN where nothing was measured"""


@dataclass(frozen=True)
class RadarFormat:
    """One format of composites."""

    name: str
    """the value of `--radar_format`, and the name of the module"""
    title: str
    """the name for people"""
    recognises: Callable[[str, str], bool]
    """(local path, file name) -> whether the file is of this format"""
    times: Callable[[str, SourceFile], np.ndarray]
    """the frames' times in the file's metadata, int64 (n,) seconds; reads no pixels"""
    quantities: Callable[[str, SourceFile], tuple[Quantity, ...]]
    """the quantities in the file"""
    read: Callable[[str, SourceFile, Quantity, np.ndarray], Frames]
    """frames at positions along the file's times; a missing pixel is NaN, one without echo has the
    quantity's `no_echo`"""
    many_frames: bool = False
    """whether a file holds many frames instead of one"""
    product: Callable[[str], str | None] = lambda name: ""
    """the format's product that a file name stands for; None: the file holds no frames"""


def load_format(name: str) -> RadarFormat:
    """Return the format called `name`."""
    return importlib.import_module(f"pipelines.archives.radar.formats.{name}").FORMAT


def recognise(path: str, file: SourceFile) -> RadarFormat:
    """Return the format of a file; raise SourceError if no format recognises it."""
    for name in FORMATS:
        found = load_format(name)
        if found.recognises(path, file.name):
            return found
    with open(path, "rb") as content:
        head = content.read(4)
    raise SourceError(
        "a source file is empty"
        if not head
        else f"a source file is not a radar composite of a known format (it begins with {head!r})",
        where=f"{file.uri} ({file.size} bytes)",
        remedy=f"formats are {', '.join(FORMATS)}; fetch it again, or leave it out of the source",
    )


def opened(path: str) -> BinaryIO:
    """Open a file; its content is decompressed if it is gzip or bzip2."""
    with open(path, "rb") as content:
        magic = content.read(3)
    if magic[:2] == _GZIP:
        return cast(BinaryIO, gzip.open(path, "rb"))
    return cast(BinaryIO, bz2.open(path, "rb")) if magic == _BZIP2 else open(path, "rb")


def begins(path: str, length: int) -> bytes:
    """Return the first bytes of the decompressed content; empty if it cannot be read."""
    try:
        with opened(path) as content:
            return content.read(length)
    except (OSError, EOFError):
        return b""


def seconds(text: str, pattern: str) -> int:
    """Return a UTC time in a `strptime` pattern as seconds since 1970-01-01.

    Month names in the pattern would depend on the locale.

    >>> seconds("20190610-0002", "%Y%m%d-%H%M")
    1560124920
    """
    import datetime

    time = datetime.datetime.strptime(text, pattern)
    return int(time.replace(tzinfo=datetime.UTC).timestamp())
