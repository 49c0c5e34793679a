"""Variables that do not change with time: found among an archive's files, or in files of their own.

A file holds one without a time axis (WeatherBench's ``constants``), or at one single time (ERA5 as
the Climate Data Store delivers its invariants, in NetCDF and GRIB). Whatever the archive, a source
of its own for static variables is NetCDF or GRIB, told apart by content.
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
    """The static variables called ``names``, as far as they are there, and the files without them.

    Raises
    ------
    SourceError
        One changes with time or has levels, or two files hold it differently.
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
    """The files at a source of static variables."""
    return find_files(source, gridded.SUFFIXES, "static fields")


def describe_static(source: str, progress: Progress = ignore) -> list[FileContents]:
    """What the files of a source of static variables hold; reads their headers.

    Parameters
    ----------
    source:
        A NetCDF or GRIB file, a folder, a glob or a zip of such; local or remote.
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
    """Names of the variables that are without time, or at one time, on a plain grid."""
    return list(
        dict.fromkeys(
            variable.name
            for content in contents
            for variable in (*content.static, *content.variables)
            if len(variable.times) <= 1 and len(variable.dims) == 2
        )
    )


def read_static(field: StaticVariable) -> np.ndarray:
    """The field's values, float32 (y, x) on the source's grid; missing pixels NaN."""
    with reading(field.file) as path, gridded.decoder(path, field.file) as decode:
        return decode(field.name, np.zeros(1, np.int64))[0]


def _find(contents: Sequence[FileContents], name: str) -> StaticVariable | None:
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
                f"'{name}' is no static field: it has {len(variable.times)} times",
                where=file.uri,
                remedy="leave it among the --variables, or give a --static_source that holds it "
                "once",
            )
        if len(variable.dims) != 2:
            raise SourceError(
                f"'{name}' is no static field: its dimensions are {', '.join(variable.dims)}",
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
                f"two files hold static field '{name}' differently",
                where=f"{first.file.uri} and {other.file.uri}",
                remedy="give a --static_source that holds it once",
            )
    return first
