"""The archives that `reprocess` reads. The module of an archive is imported when it is asked for.

To add an archive, write a module that defines `ARCHIVE` and add a line to `ARCHIVES`. An archive
defines which files belong to it, how they are described and decoded, and which splits its papers
use. `pipelines.archives.interface` lists everything that it offers.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelines.errors import NoFilesError, UsageError, nearest

if TYPE_CHECKING:
    from pipelines.archives.interface import AnyArchive


class ArchiveEntry(NamedTuple):
    """Where an archive is defined."""

    module: str
    """module that defines `ARCHIVE`, relative to `pipelines.archives`"""
    has_options: bool = False
    """whether the archive declares options of its own"""


ARCHIVES: dict[str, ArchiveEntry] = {
    "weatherbench": ArchiveEntry("series.weatherbench"),
    "era5": ArchiveEntry("series.era5"),
    "taxibj": ArchiveEntry("series.taxibj", has_options=True),
    "radar": ArchiveEntry("radar.archive", has_options=True),
    "moving_mnist": ArchiveEntry("clips.moving_mnist", has_options=True),
    "cikm2017": ArchiveEntry("clips.cikm2017", has_options=True),
    "shanghai2020": ArchiveEntry("clips.shanghai2020", has_options=True),
    "openstl_npz": ArchiveEntry("clips.openstl_npz", has_options=True),
    "kth": ArchiveEntry("clips.kth", has_options=True),
}
"""archive name, as `--archive` takes it -> where it is defined"""


def archive_options() -> dict[str, tuple[dataclasses.Field[Any], ...]]:
    """Return the option fields of every archive that has options, by archive name."""
    return {
        name: dataclasses.fields(load_archive(name).options)
        for name, entry in ARCHIVES.items()
        if entry.has_options
    }


def load_archive(name: str) -> AnyArchive:
    """Import and return the archive called `name`.

    Raises
    ------
    UsageError
        No archive has that name; the remedy is the nearest name.
    """
    if name not in ARCHIVES:
        raise UsageError(
            f"unknown archive '{name}'",
            where="--archive",
            remedy=nearest(name, ARCHIVES),
        )
    return importlib.import_module(f"{__name__}.{ARCHIVES[name].module}").ARCHIVE


@contextmanager
def suggesting_other_archives() -> Iterator[None]:
    """Add to a `NoFilesError` of the block which archives may read the files that are there."""
    try:
        yield
    except NoFilesError as error:
        if others := _archives_that_read(error.names):
            hint = f"what is in the folder may be for --archive {' or '.join(others)}"
            remedy = f"{error.remedy}; {hint}"
            raise NoFilesError(error.what, where=error.where, remedy=remedy) from None
        raise


def _archives_that_read(names: Sequence[str]) -> list[str]:
    """Return the archives with an ending that one of the file names has."""
    return [
        archive
        for archive in ARCHIVES
        if any(name.lower().endswith(load_archive(archive).suffixes) for name in names)
    ]
