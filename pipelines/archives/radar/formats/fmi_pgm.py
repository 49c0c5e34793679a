"""FMI composites: 8-bit PGM, often gzipped, with metadata in comments. Read by pysteps.

dBZ = pixel / 2 - 32; the largest pixel value is no data.
"""

from __future__ import annotations

import numpy as np

from pipelines.archives.contents import SourceFile
from pipelines.archives.radar.formats.importers import grid_of, pysteps_importers
from pipelines.archives.radar.formats.radar_format import (
    Frames,
    Quantity,
    RadarFormat,
    begins,
    opened,
    seconds,
)

_NO_ECHO = -32.0
_HEADER_BYTES = 8192


def recognises(path: str, name: str) -> bool:
    """Return whether the file is a binary grey map with FMI's comments."""
    return begins(path, 2) == b"P5" and b"# obstime" in begins(path, _HEADER_BYTES)


def times(path: str, file: SourceFile) -> np.ndarray:
    """Return the time of observation."""
    return np.array([seconds(_comments(path)["obstime"], "%Y%m%d%H%M")], np.int64)


def quantities(path: str, file: SourceFile) -> tuple[Quantity, ...]:
    """Return the reflectivity; raise ValueError for another quantity."""
    comments = _comments(path)
    if "Reflectivity" not in comments["param"]:
        raise ValueError(f"it holds {comments['param']}, and only reflectivity is read")
    name = f"{comments['param']}, {comments.get('productname', '')} of FMI"
    return (Quantity("reflectivity", name, _NO_ECHO),)


def read(path: str, file: SourceFile, quantity: Quantity, positions: np.ndarray) -> Frames:
    """Return the one frame."""
    quantities(path, file)
    with opened(path) as content:
        # gzip keeps its checksum at the end: only reading everything checks it.
        rest = content.read()
    _check_length(rest)
    values, _, metadata = pysteps_importers().import_fmi_pgm(path, gzipped=_is_gzip(path))
    if "projection" not in metadata:
        raise ValueError("its projection is not the stereographic one")
    grid = grid_of(metadata, values.shape)
    return Frames(times(path, file), grid, values[None].astype(np.float32))


def _is_gzip(path: str) -> bool:
    with open(path, "rb") as content:
        return content.read(2) == b"\x1f\x8b"


def _check_length(content: bytes) -> None:
    lines = content[:_HEADER_BYTES].split(b"\n")
    sizes = next(i for i, line in enumerate(lines) if line[:1].isdigit())
    width, height = map(int, lines[sizes].split()[:2])
    header = sum(len(line) + 1 for line in lines[: sizes + 2])
    if len(content) - header < width * height:
        raise ValueError(f"it is cut off: {len(content) - header} of {width * height} pixels")


def _comments(path: str) -> dict[str, str]:
    found = {}
    for line in begins(path, _HEADER_BYTES).split(b"\n"):
        if line.startswith(b"# "):
            key, _, value = line[2:].decode("latin1").strip().partition(" ")
            found.setdefault(key, value)
    return found


FORMAT = RadarFormat("fmi_pgm", "FMI composites", recognises, times, quantities, read)
