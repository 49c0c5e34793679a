"""The archives that `reprocess` reads. The module of an archive is imported when it is asked for.

To add an archive, write a module that defines `ARCHIVE` and add a line to :data:`ARCHIVES`. An
archive says which files belong to it, how they are described and decoded, and which splits its
papers use. :mod:`pipelines.archives.interface` is the full list.
"""

from __future__ import annotations

import dataclasses
import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelines.errors import UsageError, nearest

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


def archives_that_read(names: list[str]) -> list[str]:
    """Return the archives whose file endings match one of the file `names` (lower case)."""
    return [
        archive
        for archive in ARCHIVES
        if any(name.endswith(load_archive(archive).suffixes) for name in names)
    ]
