"""NetCDF or GRIB, told apart by the first bytes of a file, because file names are often wrong."""

from __future__ import annotations

from contextlib import AbstractContextManager

from pipelines.archives.contents import Decode, FileContents, SourceFile
from pipelines.archives.formats import grib, netcdf
from pipelines.archives.interface import ArchiveOptions
from pipelines.errors import SourceError

SUFFIXES = (".grib", ".grb", ".grib1", ".grb1", ".grib2", ".grb2", ".nc", ".nc4")
"""endings of such files, lower case"""
_NETCDF = (b"CDF\x01", b"CDF\x02", b"CDF\x05", b"\x89HDF")
_GRIB = b"GRIB"
_ZIP = b"PK\x03\x04"


def describe(path: str, file: SourceFile, options: ArchiveOptions) -> FileContents:
    """Return what one NetCDF or GRIB file holds."""
    return _reader(path, file).describe(path, file, options)


def decoder(path: str, file: SourceFile) -> AbstractContextManager[Decode]:
    """Return a context that provides the function that decodes frames of a NetCDF or GRIB file."""
    return _reader(path, file).decoder(path, file)


def _reader(path: str, file: SourceFile):
    with open(path, "rb") as content:
        magic = content.read(4)
    if magic == _GRIB:
        return grib
    if magic in _NETCDF:
        return netcdf
    if magic == _ZIP:
        raise SourceError(
            "a source file is a zip with another ending",
            where=f"{file.uri} ({file.size} bytes)",
            remedy="rename it to end in .zip: its members are then read in place",
        )
    what = "is empty" if not magic else f"is neither GRIB nor NetCDF (it begins with {magic!r})"
    raise SourceError(
        f"a source file {what}",
        where=f"{file.uri} ({file.size} bytes)",
        remedy="fetch it again, or leave it out of the source",
    )
