"""Variables that do not change with time, from the archive's own files or from a separate source.

A file holds such a variable either without a time axis (WeatherBench's `constants`) or at a single
time (the invariants of ERA5 from the Climate Data Store, in NetCDF and GRIB). A separate source of
static variables holds NetCDF or GRIB files for every archive; the first bytes tell the format.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from pipelines.archives.contents import FileContents, SourceFile, StaticVariable
from pipelines.archives.formats import gridded
from pipelines.archives.interface import ArchiveOptions
from pipelines.archives.sources.finding import find_files
from pipelines.archives.sources.reading import reading
from pipelines.errors import SourceError
from pipelines.progress import Progress, ignore


def take_static(
    contents: Sequence[FileContents], names: Iterable[str]
) -> tuple[tuple[StaticVariable, ...], list[FileContents]]:
    """Return the static variables called `names` that exist, and the contents without them.

    Raises
    ------
    SourceError
        A variable changes with time or has levels, or it differs between two files.
    """
    names = tuple(names)
    found = [field for name in names if (field := _find(contents, name)) is not None]
    rest = [
        replace(
            content,
            variables=tuple(v for v in content.variables if v.name not in names),
            static=tuple(v for v in content.static if v.name not in names),
        )
        for content in contents
    ]
    return tuple(found), rest


def find_static(source: str) -> tuple[SourceFile, ...]:
    """Return the files at a separate source of static variables."""
    return find_files(source, gridded.SUFFIXES, "static fields")


def describe_static(source: str, progress: Progress = ignore) -> list[FileContents]:
    """Return what the files of a separate source of static variables hold, from their headers.

    Parameters
    ----------
    source:
        A NetCDF or GRIB file, or a folder, a glob or a zip of such files; local or remote.
    progress:
        Called with the number of files read and the number of files.
    """
    files = find_static(source)
    contents = []
    for done, file in enumerate(files):
        progress(done, len(files))
        with reading(file) as path:
            contents.append(gridded.describe(path, file, ArchiveOptions()))
    progress(len(files), len(files))
    return contents


def known_static(contents: Sequence[FileContents]) -> list[str]:
    """Return the names of variables on a plain grid that have no time or only one."""
    return list(
        dict.fromkeys(
            variable.name
            for content in contents
            for variable in (*content.static, *content.variables)
            if len(variable.times) <= 1 and len(variable.dims) == 2
        )
    )


def read_static(field: StaticVariable) -> np.ndarray:
    """Return the field's values, float32 (y, x) on the source's grid, with NaN where missing."""
    with reading(field.file) as path, gridded.decoder(path, field.file) as decode:
        return decode(field.name, np.zeros(1, np.int64))[0]


def _find(contents: Sequence[FileContents], name: str) -> StaticVariable | None:
    """Return the static variable called `name` after checking that all files agree on it."""
    holders = [
        (content.file, variable)
        for content in contents
        for variable in (*content.static, *content.variables)
        if variable.name == name
    ]
    if not holders:
        return None
    for file, variable in holders:
        if len(variable.times) > 1:
            raise SourceError(
                f"'{name}' is not a static field: it has {len(variable.times)} times",
                where=file.uri,
                remedy="give it with --variables instead, or give a --static_source that holds "
                "it once",
            )
        if len(variable.dims) != 2:
            raise SourceError(
                f"'{name}' is not a static field: its dimensions are {', '.join(variable.dims)}",
                where=file.uri,
                remedy="give fields of (latitude, longitude) or (y, x) alone",
            )
    fields = [
        StaticVariable(file, name, v.dims, v.shape, v.coordinates, v.attributes)
        for file, v in holders
    ]
    first, *others = fields
    values = read_static(first) if others else np.empty(0)
    for other in others:
        if not np.array_equal(values, read_static(other), equal_nan=True):
            raise SourceError(
                f"static field '{name}' differs between two files",
                where=f"{first.file.uri} and {other.file.uri}",
                remedy="give a --static_source that holds it once",
            )
    return first
