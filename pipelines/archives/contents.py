"""What an archive holds: its files, their variables, and where every frame of them lies.

Times are int64 seconds since 1970-01-01 UTC everywhere in planning; a frame is one time of one
variable, ``(*extra, y, x)`` with the extra dimensions (level, member, channel) that it has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pipelines.timeline.clips import Clips


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

    def as_dict(self) -> dict[str, Any]:
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
    local_time: bool = False
    """whether times are those of the clocks there, and not UTC"""
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
    local_time: bool = False
    """whether times are those of the clocks there, and not UTC"""
    notes: tuple[str, ...] = ()
    """what a user should know: repeats that were dropped, variables without time"""
    clips: Clips | None = None
    """an archive of clips; times are then those of :meth:`pipelines.timeline.clips.Clips.axis`"""
    options: Mapping[str, Any] = field(default_factory=dict)
    """the archive's own options that the values depend on, as resolved"""
    grid_mapping: Mapping[str, Any] = field(default_factory=dict)
    """CF attributes of the grid's projection, where it is known"""
    static: tuple[StaticVariable, ...] = ()
    """the static variables that were asked for"""


Decode = Callable[[str, np.ndarray], np.ndarray]
"""variable and positions -> float32 (n, *extra, y, x)"""

Opener = Callable[[str, SourceFile], AbstractContextManager[Decode]]
"""local path and file -> a context that keeps the file open and gives how it is decoded"""
