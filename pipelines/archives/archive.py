"""The nouns of an archive: its files, what each file holds, and how a run of frames is decoded.

Times are int64 seconds since 1970-01-01 UTC everywhere in planning; a frame is one time of one
variable, ``(*extra, y, x)`` with the extra dimensions (level, member, channel) that it has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from pipelines.archives.options import ArchiveOptions, resolve
from pipelines.clips import Clips

Progress = Callable[[int, int], None]
"""called with what is done and how much there is"""


@dataclass(frozen=True)
class SourceFile:
    """One file of an archive, as it stood when it was planned."""

    uri: str
    size: int
    """bytes"""
    etag: str
    """version of the content: an object store's ETag, or time and size of a local file"""
    inside: str = ""
    """path inside the archive, where files of different folders may have one name"""

    @property
    def name(self) -> str:
        """What tells the file from others of its archive, wherever the archive lies."""
        return self.inside or self.uri.rsplit("/", 1)[-1]

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        inside = {"inside": self.inside} if self.inside else {}
        return {"uri": self.uri, "size": self.size, "etag": self.etag, **inside}


@dataclass(frozen=True, eq=False)
class FileVariable:
    """One variable as one file holds it."""

    name: str
    times: np.ndarray
    """int64 (n,): seconds since 1970-01-01, in the file's own order"""
    dims: tuple[str, ...]
    """dimensions after time in the store's names, the last two the grid: (level, latitude, ...)"""
    shape: tuple[int, ...]
    """lengths of ``dims``"""
    coordinates: Mapping[str, np.ndarray]
    """values along those dims that have any"""
    attributes: Mapping[str, Any]
    """the file's own attributes of the variable"""
    resolution: float = 0.0
    """step between neighbouring packed values, in the variable's unit; 0 where not packed"""
    preliminary: np.ndarray | None = None
    """bool (n,): frames with values that are going to be replaced, which give way to final ones of
    the same time; None: all are final"""


@dataclass(frozen=True, eq=False)
class FileContents:
    """What one file holds."""

    file: SourceFile
    variables: tuple[FileVariable, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    cadence_seconds: int | None = None
    """time between frames where the layout defines it; None: found from the times"""
    static: tuple[FileVariable, ...] = ()
    """those without a time axis, on a plain grid: their ``times`` are empty, and position 0 decodes
    them"""


@dataclass(frozen=True, eq=False)
class StaticVariable:
    """A variable that does not change with time, as one file holds it: position 0 decodes it."""

    file: SourceFile
    name: str
    dims: tuple[str, ...]
    """two dimensions in the store's names: (latitude, longitude) or (y, x)"""
    shape: tuple[int, ...]
    coordinates: Mapping[str, np.ndarray]
    attributes: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class VariableIndex:
    """Where every frame of one variable lies: frame i is ``positions[i]`` of ``files[i]``."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    coordinates: Mapping[str, np.ndarray]
    attributes: Mapping[str, Any]
    times: np.ndarray
    """int64 (n,): strictly increasing"""
    files: np.ndarray
    """int32 (n,): index into the archive's files"""
    positions: np.ndarray
    """integers (n,): index along that file's time axis"""

    def without_frames(self) -> VariableIndex:
        """The variable as such: grid, coordinates and attributes."""
        none = np.empty(0, np.int64)
        return replace(self, times=none, files=none.astype(np.int32), positions=none)


@dataclass(frozen=True, eq=False)
class ArchiveIndex:
    """What a whole archive holds."""

    archive: str
    title: str
    files: tuple[SourceFile, ...]
    variables: tuple[VariableIndex, ...]
    cadence_seconds: int
    periods: tuple[tuple[int, int], ...]
    """first and last time of each period; inside one the time axis is regular"""
    synthetic: bool = False
    notes: tuple[str, ...] = ()
    """what a user should know: repeats that were dropped, variables without time"""
    clips: Clips | None = None
    """an archive of clips; times are then those of :meth:`pipelines.clips.Clips.axis`"""
    options: Mapping[str, Any] = field(default_factory=dict)
    """the archive's own options that the values depend on, as resolved"""
    grid_mapping: Mapping[str, Any] = field(default_factory=dict)
    """CF attributes of the grid's projection, where it is known"""
    static: tuple[StaticVariable, ...] = ()
    """the static variables that were asked for"""


Decode = Callable[[str, np.ndarray], np.ndarray]
"""variable and positions -> float32 (n, *extra, y, x)"""

Splits = dict[str, tuple[int, int]]
"""split -> first and last time, inclusive, seconds since 1970-01-01"""


@dataclass(frozen=True)
class Archive:
    """How one kind of archive is read.

    ``describe(path, file, options)`` reads headers. ``decoder(path, file)`` is a context that keeps
    the file open and gives ``decode(variable, positions)``, which returns float32 ``(n, *extra, y,
    x)``, missing pixels NaN. ``path`` is local: remote files are fetched first. Both raise
    SourceError naming the file. ``protocol_splits(times)`` gives the splits of the papers, or None
    where the times do not allow them.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    """endings of the files that belong to it, lower case"""
    describe: Callable[[str, SourceFile, Any], FileContents]
    decoder: Callable[[str, SourceFile], AbstractContextManager[Decode]]
    protocol_splits: Callable[[np.ndarray], Splits | None]
    separate_periods: bool = False
    """each file is a period of its own; otherwise all files are one period"""
    options: type[ArchiveOptions] = ArchiveOptions
    """what ``describe`` is given"""

    def find(self, source: str) -> tuple[SourceFile, ...]:
        """The archive's files."""
        from pipelines.archives.files import find_files

        return find_files(source, self.suffixes, self.name)

    def index(
        self,
        source: str,
        *,
        variables: Sequence[str] | None,
        options: Mapping[str, Any],
        progress: Progress,
        static: Sequence[str] = (),
    ) -> ArchiveIndex:
        """See :meth:`AnyArchive.index` and :func:`pipelines.archives.assembly.index_archive`."""
        from pipelines.archives.assembly import index_archive

        resolved = resolve(self.name, self.options, options)
        return index_archive(
            self,
            source,
            variables=variables,
            options=resolved,
            progress=progress,
            static=static,
        )

    def opener(
        self, options: Mapping[str, Any]
    ) -> Callable[[str, SourceFile], AbstractContextManager[Decode]]:
        """The decoder, which depends on no option."""
        return self.decoder


class AnyArchive(Protocol):
    """What conversion asks of any kind of archive: in time, of clips, of radar composites."""

    @property
    def name(self) -> str:
        """As the command line calls it."""
        ...

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Endings of the files that belong to it, lower case."""
        ...

    @property
    def options(self) -> type[ArchiveOptions]:
        """Its own options."""
        ...

    def find(self, source: str) -> tuple[SourceFile, ...]:
        """Its files at ``source``."""
        ...

    def index(
        self,
        source: str,
        *,
        variables: Sequence[str] | None,
        options: Mapping[str, Any],
        progress: Progress,
    ) -> ArchiveIndex:
        """What the files hold, with its options as resolved.

        Parameters
        ----------
        variables:
            Those to keep, in this order; all of them if None.
        options:
            Its own, as far as they were given.
        """
        ...

    def opener(
        self, options: Mapping[str, Any]
    ) -> Callable[[str, SourceFile], AbstractContextManager[Decode]]:
        """How a file is decoded, given the options of its index."""
        ...

    def protocol_splits(self, times: np.ndarray, /) -> Splits | None:
        """The splits of the papers by time; None where there are none, or clips have theirs."""
        ...
