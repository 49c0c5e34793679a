"""What every archive offers to a conversion, and how an archive declares its own options.

The options of one archive are a frozen dataclass beside the code that reads it, one field per flag.
The command line shows the fields of every archive, a store keeps the resolved values, and a later
conversion into the same store takes them from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, TypeVar

import numpy as np

from pipelines.archives.contents import ArchiveIndex, Opener, SourceFile
from pipelines.errors import UsageError, nearest
from pipelines.progress import Progress
from pipelines.timeline.splits import Splits


@dataclass(frozen=True)
class ArchiveOptions:
    """No options. An archive that has options derives a class, each field an `option`."""


Options = TypeVar("Options", bound=ArchiveOptions)


class AnyArchive(Protocol):
    """The interface of every kind of archive: series, clips, and radar composites."""

    @property
    def name(self) -> str:
        """Name of the archive on the command line."""
        ...

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Endings of the archive's files, lower case."""
        ...

    @property
    def options(self) -> type[ArchiveOptions]:
        """Class of the archive's own options."""
        ...

    def find(self, source: str) -> tuple[SourceFile, ...]:
        """Return the archive's files at `source`."""
        ...

    def index(
        self,
        source: str,
        *,
        variables: Sequence[str] | None,
        options: Mapping[str, Any],
        progress: Progress,
    ) -> ArchiveIndex:
        """Return what the files hold, with the resolved options.

        Parameters
        ----------
        source:
            URI of a file, a folder or a glob.
        variables:
            The variables to keep, in this order; all of them if None.
        options:
            The archive's own options that the user gave.
        progress:
            Called with the number of files read and the number of files.
        """
        ...

    def opener(self, options: Mapping[str, Any]) -> Opener:
        """Return how to open a file for decoding, given the resolved options of its index."""
        ...

    def protocol_splits(self, times: np.ndarray, /) -> Splits | None:
        """Return the papers' splits of a time axis.

        None if the papers define no splits by time, or the archive's clips have splits already.
        """
        ...


def option(default: Any, text: str) -> Any:
    """Return a field of an `ArchiveOptions` class, given its default and its line in `--help`."""
    return field(default=default, metadata={"help": text})


def resolve(archive: str, options: type[Options], given: Mapping[str, Any]) -> Options:
    """Return the options with the `given` values, and defaults for the others.

    Raises
    ------
    UsageError
        The archive has no option of that name, or the option does not accept the value.
    """
    known = [known.name for known in fields(options)]
    for name in given:
        if name not in known:
            raise UsageError(
                f"archive '{archive}' has no option '{name}'",
                where=f"--{name}",
                remedy=nearest(name, known) if known else "leave it out",
            )
    return options(**given)


def check_at_least(options: ArchiveOptions, **least: int) -> None:
    """Raise UsageError if an option is smaller than its least value."""
    for name, smallest in least.items():
        if getattr(options, name) < smallest:
            raise UsageError(
                f"{name} is {getattr(options, name)}",
                where=f"--{name}",
                remedy=f"give {smallest} or more",
            )
