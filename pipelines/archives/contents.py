"""What an archive holds: its files, their variables, and the file and position of every frame.

Times are int64 seconds since 1970-01-01 UTC everywhere in planning. A frame is one time of one
variable, `(*extra, y, x)`, where the extra dimensions are those that the variable has: level,
member, channel.
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
    """One file of an archive, in the version that was planned."""

    uri: str
    size: int
    """bytes"""
    etag: str
    """version of the content: the ETag of an object storage, or time and size of a local file"""
    inside: str = ""
    """path inside the archive, if files in different folders may have the same name"""

    @property
    def name(self) -> str:
        """A name that is unique in the archive and does not depend on the archive's folder."""
        return self.inside or self.uri.rsplit("/", 1)[-1]

    def as_dict(self) -> dict[str, Any]:
        """Return a plain dictionary for JSON."""
        inside = {"inside": self.inside} if self.inside else {}
        return {"uri": self.uri, "size": self.size, "etag": self.etag, **inside}


@dataclass(frozen=True, eq=False)
class FileVariable:
    """One variable of one file."""

    name: str
    times: np.ndarray
    """int64 (n,): seconds since 1970-01-01, in the order of the file"""
    dims: tuple[str, ...]
    """dimensions after time, by their names in a store; the last two are the grid"""
    shape: tuple[int, ...]
    """lengths of `dims`"""
    coordinates: Mapping[str, np.ndarray]
    """values along the dims that have coordinates"""
    attributes: Mapping[str, Any]
    """the file's attributes of the variable"""
    resolution: float = 0.0
    """step between neighbouring packed values, in the variable's unit; 0 if not packed"""
    preliminary: np.ndarray | None = None
    """bool (n,): frames that the data centre will replace. A final frame of the same time takes
    precedence over a preliminary one. None if all frames are final"""


@dataclass(frozen=True, eq=False)
class FileContents:
    """What one file holds."""

    file: SourceFile
    variables: tuple[FileVariable, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    cadence_seconds: int | None = None
    """time between frames, if the file's layout defines it; None: derived from the times"""
    local_time: bool = False
    """whether times are local times of the place, and not UTC"""
    static: tuple[FileVariable, ...] = ()
    """variables without a time axis, on a plain grid: `times` is empty, and position 0 decodes
    them"""


@dataclass(frozen=True, eq=False)
class StaticVariable:
    """A variable of one file that does not change with time. Position 0 decodes it."""

    file: SourceFile
    name: str
    dims: tuple[str, ...]
    """two dimensions by their names in a store: (latitude, longitude) or (y, x)"""
    shape: tuple[int, ...]
    """lengths of `dims`"""
    coordinates: Mapping[str, np.ndarray]
    """values along the dims that have coordinates"""
    attributes: Mapping[str, Any]
    """the file's attributes of the variable"""


@dataclass(frozen=True, eq=False)
class VariableIndex:
    """Where every frame of one variable is: frame i is `positions[i]` in file `files[i]`."""

    name: str
    dims: tuple[str, ...]
    """dimensions after time, by their names in a store; the last two are the grid"""
    shape: tuple[int, ...]
    """lengths of `dims`"""
    coordinates: Mapping[str, np.ndarray]
    """values along the dims that have coordinates"""
    attributes: Mapping[str, Any]
    """attributes of the variable in the first file that has it"""
    times: np.ndarray
    """int64 (n,): strictly increasing, seconds since 1970-01-01"""
    files: np.ndarray
    """int32 (n,): index into the archive's files"""
    positions: np.ndarray
    """integers (n,): index along the time axis of the file"""

    def without_frames(self) -> VariableIndex:
        """Return the variable with its grid, coordinates and attributes, but without frames."""
        empty = np.empty(0, np.int64)
        return replace(self, times=empty, files=empty.astype(np.int32), positions=empty)


@dataclass(frozen=True, eq=False)
class ArchiveIndex:
    """What a whole archive holds."""

    archive: str
    """name of the archive on the command line"""
    title: str
    files: tuple[SourceFile, ...]
    variables: tuple[VariableIndex, ...]
    cadence_seconds: int
    """time between two frames of a period"""
    periods: tuple[tuple[int, int], ...]
    """first and last time of each period; the time axis is regular inside a period"""
    synthetic: bool = False
    """whether the data was made up for a demo or a test"""
    local_time: bool = False
    """whether times are local times of the place, and not UTC"""
    notes: tuple[str, ...] = ()
    """lines for the user, such as repeated frames that were dropped or variables without time"""
    clips: Clips | None = None
    """the clips of an archive of clips; the times are then those of `Clips.axis`"""
    options: Mapping[str, Any] = field(default_factory=dict)
    """resolved values of the archive's own options that change the frames"""
    grid_mapping: Mapping[str, Any] = field(default_factory=dict)
    """CF attributes of the grid's projection, if it is known"""
    static: tuple[StaticVariable, ...] = ()
    """the static variables that were requested"""


Decode = Callable[[str, np.ndarray], np.ndarray]
"""variable and positions -> float32 (n, *extra, y, x)"""

Opener = Callable[[str, SourceFile], AbstractContextManager[Decode]]
"""local path and file -> a context that keeps the file open and provides its `Decode`"""
