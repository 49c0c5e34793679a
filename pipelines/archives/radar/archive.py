"""The archive of radar composites: index its files, and decode frames to the store's grid and unit.

A frame that cannot be read, or that contradicts its name or the other files, is flagged, and the
rest is converted: among a hundred thousand files some are always damaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.archives.contents import ArchiveIndex, Decode, Opener, SourceFile
from pipelines.archives.interface import resolve
from pipelines.archives.radar.file_times import time_in_name
from pipelines.archives.radar.formats.radar_format import load_format
from pipelines.archives.radar.index import FOUND, RadarReading, described, index
from pipelines.archives.radar.options import RadarOptions
from pipelines.archives.radar.processing import Processing, converted_quantity
from pipelines.archives.sources.finding import find_files
from pipelines.errors import PlatformError, UnreadableError, UsageError
from pipelines.progress import Progress, ignore
from pipelines.timeline.splits import Splits

SUFFIXES = (
    *(".h5", ".hf5", ".hdf5", ".hdf", ".nc", ".npz", ".pgm", ".pgm.gz", ".grib2", ".grb2"),
    *(".grib2.gz", ".grb2.gz", "---bin", "---bin.gz", "---bin.bz2", "-hd5"),
)
_LEVELS = 4
"""year, month, day and hour"""


@dataclass(frozen=True)
class RadarArchive:
    """An archive of radar composites, with options of its own."""

    name: str = "radar"
    title: str = "radar composites"
    suffixes: tuple[str, ...] = SUFFIXES
    options: type[RadarOptions] = RadarOptions

    def find(self, source: str) -> tuple[SourceFile, ...]:
        """Return the archive's files."""
        return find_files(source, self.suffixes, self.name, levels=_LEVELS)

    def resolve(self, given: Mapping[str, Any]) -> RadarOptions:
        """Return the options with defaults; raise UsageError for an unknown name."""
        asked = {name: value for name, value in given.items() if name != FOUND}
        return resolve(self.name, self.options, asked)

    def check_regrid(self, regrid: str | None) -> None:
        """Raise UsageError if `--regrid` is given: an average of decibels means nothing."""
        if regrid is not None:
            raise UsageError(
                "radar composites are averaged on their own grid, in linear units",
                where="--regrid",
                remedy="give --resize instead, such as --resize 128x128",
            )

    def index(
        self,
        source: str,
        *,
        variables: Sequence[str] | None = None,
        options: Mapping[str, Any] | None = None,
        progress: Progress = ignore,
    ) -> ArchiveIndex:
        """Return what the folder at `source` holds."""
        return index(self.find(source), variables, self.resolve(options or {}), progress)

    def opener(self, options: Mapping[str, Any]) -> Opener:
        """Return the decoder for the options of an index."""
        found = RadarReading.from_dict(options)
        return lambda path, file: decoder(path, file, found)

    def protocol_splits(self, times: np.ndarray) -> Splits | None:
        """Return None: no publication fixes splits of a folder of composites."""
        return None


@contextmanager
def decoder(path: str, file: SourceFile, found: RadarReading) -> Iterator[Decode]:
    """Yield what decodes frames, float32 (n, rows, columns) on the store's grid.

    It raises UnreadableError if the file is damaged, or if its time, grid or quantity is not the
    one in the index.
    """
    yield lambda variable, positions: _frames(variable, positions, path, file, found)


def _frames(
    variable: str, positions: np.ndarray, path: str, file: SourceFile, found: RadarReading
) -> np.ndarray:
    held, stored = next(
        (held, stored)
        for held in found.quantities
        if (stored := converted_quantity(held, found.options)).name == variable
    )
    try:
        frames = load_format(found.options.radar_format).read(path, file, held, positions)
    except (PlatformError, MemoryError):
        raise
    except Exception as error:
        # HDF5, eccodes, zlib and pysteps share no class of errors.
        raise _unreadable(described(error), file) from None
    named = time_in_name(file.name) if found.times_in_names else None
    if named is not None and int(frames.times[0]) != named:
        time = np.datetime64(int(frames.times[0]), "s")
        raise _unreadable(f"its metadata say {time}, which is not the time in its name", file)
    difference = found.grid.difference(frames.grid)
    if difference:
        raise _unreadable(f"its grid is not that of the first file: {difference}", file)
    return Processing(found.options, held, stored)(frames.values)


def _unreadable(reason: str, file: SourceFile) -> UnreadableError:
    return UnreadableError(
        reason,
        where=f"{file.uri} ({file.size} bytes)",
        remedy="fetch it again and run the same command: the frame is filled in",
    )


ARCHIVE = RadarArchive()
