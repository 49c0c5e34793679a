"""Merge the files of an archive into one index.

Files must agree on the grid, and on the values wherever they overlap in time. Times must be
regular inside a period. Times without a frame stay gaps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from pipelines.archives.contents import (
    ArchiveIndex,
    FileContents,
    FileVariable,
    Opener,
    SourceFile,
    VariableIndex,
)
from pipelines.archives.series.static_variables import take_static
from pipelines.archives.sources.reading import reading
from pipelines.archives.time_axis import (
    all_times,
    check_regular,
    is_increasing,
    joined,
    most_common_step,
    sparse_notes,
)
from pipelines.errors import SourceError, UsageError, nearest
from pipelines.timeline.intervals import iso

_COMPARED_FRAMES = 64
"""frames of an overlap that are compared at once, to bound the memory"""


def assemble(
    contents: Sequence[FileContents],
    *,
    archive: str,
    title: str,
    decoder: Opener,
    separate_periods: bool = False,
    variables: Sequence[str] | None = None,
    static: Sequence[str] = (),
) -> ArchiveIndex:
    """Return one index of the described files; read frames only where files overlap in time.

    Parameters
    ----------
    contents:
        What each file holds.
    archive:
        Name of the archive on the command line.
    title:
        Title of the store if the files have none.
    decoder:
        How a file is opened.
    separate_periods:
        Whether each file is a period of its own; otherwise all files form one period.
    variables:
        The variables to keep, in this order; all of them if None.
    static:
        Variables to take as static fields.

    Raises
    ------
    SourceError
        Grids or units differ, a time axis is irregular, or two files contradict each other.
    UsageError
        A variable is not in the archive.
    """
    files = tuple(content.file for content in contents)
    fields, contents = take_static(contents, static)
    names = _chosen(contents, variables)
    notes = _static_notes(contents)
    early: dict[tuple[int, int], list[str]] = {}
    indexed = tuple(_merge(decoder, contents, name, notes, early) for name in names)
    notes.extend(_preliminary_notes(early))
    periods = _periods(contents, names, indexed, separate_periods)
    cadence = _cadence(contents, indexed)
    check_regular(indexed, files, periods, cadence)
    notes.extend(sparse_notes(contents, names, cadence))
    attributes = next(content.attributes for content in contents if content.variables)
    return ArchiveIndex(
        archive=archive,
        title=str(attributes.get("title", title)),
        files=files,
        variables=indexed,
        cadence_seconds=cadence,
        periods=periods,
        synthetic=any(_is_true(content.attributes.get("synthetic")) for content in contents),
        local_time=any(content.local_time for content in contents),
        notes=tuple(notes),
        static=fields,
    )


def _is_true(value: Any) -> bool:
    if isinstance(value, (bytes, str)):
        text = value.decode() if isinstance(value, bytes) else value
        return text.strip().lower() in ("true", "yes", "1")
    return bool(value) if value is not None else False


def _chosen(contents: Sequence[FileContents], asked: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the variables to keep."""
    known = list(dict.fromkeys(v.name for content in contents for v in content.variables))
    if not known:
        raise SourceError(
            "no file holds a variable with time and with latitude/longitude or y/x",
            where=contents[0].file.uri,
            remedy="check that the archive is the right one for these files",
        )
    for name in asked or ():
        if name not in known:
            raise UsageError(
                f"the archive has no variable '{name}'",
                where=contents[0].file.uri,
                remedy=nearest(name, known),
            )
    return tuple(dict.fromkeys(asked)) if asked else tuple(known)


def _static_notes(contents: Sequence[FileContents]) -> list[str]:
    """Return a note on the variables without time that were not requested."""
    left = dict.fromkeys(variable.name for content in contents for variable in content.static)
    if not left:
        return []
    names = " ".join(left)
    return [f"left out because they have no time: {names} (--static_fields {names} keeps them)"]


@dataclass(frozen=True, eq=False)
class _Frames:
    """The frames of one variable in all files, in order of time.

    Among frames of the same time, final ones come before preliminary ones. The first is kept.
    """

    times: np.ndarray
    files: np.ndarray
    positions: np.ndarray
    preliminary: np.ndarray
    """bool (n,)"""

    @classmethod
    def in_order(
        cls, times: np.ndarray, files: np.ndarray, positions: np.ndarray, preliminary: np.ndarray
    ) -> _Frames:
        """Sort frames that are given in any order."""
        order = np.lexsort((positions, files, preliminary, times))
        return cls(times[order], files[order], positions[order], preliminary[order])

    @cached_property
    def kept(self) -> np.ndarray:
        """bool (n,): the first frame of each time."""
        first = np.ones(len(self.times), bool)
        first[1:] = self.times[1:] != self.times[:-1]
        return first

    @cached_property
    def kept_twins(self) -> np.ndarray:
        """int (n,): for each frame, the kept frame of the same time."""
        return np.flatnonzero(self.kept)[np.cumsum(self.kept) - 1]

    @cached_property
    def replaced(self) -> np.ndarray:
        """bool (n,): preliminary frames that a final one replaces; their values may differ."""
        return ~self.kept & self.preliminary & ~self.preliminary[self.kept_twins]

    @cached_property
    def repeated(self) -> np.ndarray:
        """bool (n,): frames whose values must equal those of the kept frame."""
        return ~self.kept & ~self.replaced


def _merge(
    decoder: Opener,
    contents: Sequence[FileContents],
    name: str,
    notes: list[str],
    early: dict[tuple[int, int], list[str]],
) -> VariableIndex:
    """Return the index of one variable; add to `notes`, and to `early` for `_preliminary_notes`."""
    variables = {
        number: variable
        for number, content in enumerate(contents)
        for variable in content.variables
        if variable.name == name
    }
    _check_same_grid([(contents[number].file, variable) for number, variable in variables.items()])
    times, files, positions = joined([(number, v.times) for number, v in variables.items()])
    variable = next(iter(variables.values()))
    merged = VariableIndex(
        name=name,
        dims=variable.dims,
        shape=variable.shape,
        coordinates=variable.coordinates,
        attributes=variable.attributes,
        times=times,
        files=files,
        positions=positions,
    )
    if is_increasing(times) and all(v.preliminary is None for v in variables.values()):
        return merged
    preliminary = np.concatenate([_preliminary(variable) for variable in variables.values()])
    frames = _Frames.in_order(times, files, positions, preliminary)
    if frames.repeated.any():
        _check_equal(decoder, contents, variables, frames)
        dropped = int(frames.repeated.sum())
        notes.append(f"{name}: {dropped} repeated frames with equal values are kept once")
    kept = frames.kept
    if preliminary.any():
        counts = int((kept & frames.preliminary).sum()), int(frames.replaced.sum())
        early.setdefault(counts, []).append(name)
    return replace(
        merged,
        times=frames.times[kept],
        files=frames.files[kept],
        positions=frames.positions[kept],
    )


def _preliminary(variable: FileVariable) -> np.ndarray:
    """Return which frames of the file are preliminary, bool (n,)."""
    if variable.preliminary is None:
        return np.zeros(len(variable.times), bool)
    return variable.preliminary


def _preliminary_notes(early: Mapping[tuple[int, int], Sequence[str]]) -> list[str]:
    """Return notes on preliminary frames, given (number kept, number replaced) -> variables."""
    notes = []
    for (kept, replaced), names in early.items():
        parts = [
            (kept, f"{kept} frames are preliminary: fetch them again when the final ones are out"),
            (replaced, f"{replaced} preliminary frames are replaced by final ones"),
        ]
        said = "; ".join(text for count, text in parts if count)
        notes.append(f"{', '.join(names)}: {said}")
    return notes


def _check_same_grid(parts: Sequence[tuple[SourceFile, FileVariable]]) -> None:
    reference_file, reference = parts[0]
    for file, variable in parts[1:]:
        difference = _difference(reference, variable)
        if difference:
            raise SourceError(
                f"'{variable.name}' differs between two files: {difference}",
                where=f"{reference_file.uri} and {file.uri}",
                remedy="convert them to stores of their own, or leave one out of the source",
            )


def _difference(first: FileVariable, other: FileVariable) -> str | None:
    """Return how the grid or the units of two files differ, in words; None if they agree."""
    if first.dims != other.dims or first.shape != other.shape:
        sizes = [
            ", ".join(f"{dim} {size}" for dim, size in zip(v.dims, v.shape, strict=True))
            for v in (first, other)
        ]
        return f"its dimensions are ({sizes[0]}) and ({sizes[1]})"
    for dim, values in first.coordinates.items():
        others = other.coordinates.get(dim)
        if others is not None and not _same_values(values, others):
            at = int(np.flatnonzero(~_close(values, others))[0])
            return f"{dim} at index {at} is {values[at]} and {others[at]}"
    units = [str(v.attributes.get("units", "")) for v in (first, other)]
    return f"its units are '{units[0]}' and '{units[1]}'" if units[0] != units[1] else None


def _same_values(values: np.ndarray, others: np.ndarray) -> bool:
    return bool(np.all(_close(values, others)))


def _close(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    if not np.issubdtype(values.dtype, np.number):
        return values == others
    # Neighbouring files may store the same grid as float32 and as float64.
    return np.isclose(values.astype(float), others.astype(float), rtol=1e-6, atol=1e-6)


def _check_equal(
    decoder: Opener,
    contents: Sequence[FileContents],
    variables: Mapping[int, FileVariable],
    frames: _Frames,
) -> None:
    """Check that repeated frames have equal values, up to the packing of their files.

    Parameters
    ----------
    decoder:
        How a file is opened.
    contents:
        The contents of all files.
    variables:
        File number -> the variable in that file.
    frames:
        The frames of all files.

    Raises
    ------
    SourceError
        Two frames of the same time differ.
    """
    repeats = np.flatnonzero(frames.repeated)
    originals = frames.kept_twins[repeats]
    pairs = np.stack([frames.files[originals], frames.files[repeats]], axis=1)
    # One pair of files after the other, each in order of time: files are decoded in long runs.
    for one, two in sorted(set(map(tuple, pairs.tolist()))):
        name, file, other = variables[one].name, contents[one].file, contents[two].file
        chosen = np.flatnonzero((pairs[:, 0] == one) & (pairs[:, 1] == two))
        # Half a packing step of each file, and a little more for the rounding of the comparison.
        tolerance = 0.5 * (variables[one].resolution + variables[two].resolution) * (1 + 1e-3)
        for begin in range(0, len(chosen), _COMPARED_FRAMES):
            run = chosen[begin : begin + _COMPARED_FRAMES]
            left = _decode(decoder, file, name, frames.positions[originals[run]])
            right = _decode(decoder, other, name, frames.positions[repeats[run]])
            same = np.isclose(left, right, rtol=1e-6 if tolerance else 0, atol=tolerance)
            same |= np.isnan(left) & np.isnan(right)
            wrong = np.flatnonzero(~same.reshape(len(run), -1).all(axis=1))
            if len(wrong):
                time = int(frames.times[repeats[run[wrong[0]]]])
                raise _conflict(name, file, other, time)


def _decode(decoder: Opener, file: SourceFile, name: str, positions: np.ndarray) -> np.ndarray:
    with reading(file) as path, decoder(path, file) as decode:
        return decode(name, positions)


def _conflict(name: str, one: SourceFile, two: SourceFile, time: int) -> SourceError:
    where = one.uri if one == two else f"{one.uri} and {two.uri}"
    subject = "one file holds a time twice" if one == two else "two files overlap in time"
    return SourceError(
        f"{subject} with different values: '{name}' at {iso(time)}",
        where=where,
        remedy="leave one of them out of the source, or repair it",
    )


def _periods(
    contents: Sequence[FileContents],
    names: Iterable[str],
    indexed: Sequence[VariableIndex],
    separate: bool,
) -> tuple[tuple[int, int], ...]:
    """Return the first and last time of each period. Files that overlap share a period."""
    if not separate:
        first = min(int(variable.times[0]) for variable in indexed)
        last = max(int(variable.times[-1]) for variable in indexed)
        return ((first, last),)
    kept = set(names)
    spans = []
    for content in contents:
        times = [v.times for v in content.variables if v.name in kept]
        if times:
            spans.append((min(int(t.min()) for t in times), max(int(t.max()) for t in times)))
    periods: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if periods and first <= periods[-1][1]:
            periods[-1] = (periods[-1][0], max(periods[-1][1], last))
        else:
            periods.append((first, last))
    return tuple(periods)


def _cadence(contents: Sequence[FileContents], indexed: Sequence[VariableIndex]) -> int:
    """Return the cadence in seconds: what the files declare, else the most common step."""
    declared = {c.cadence_seconds for c in contents if c.cadence_seconds is not None}
    if len(declared) > 1:
        slow = next(c for c in contents if c.cadence_seconds == max(declared))
        fast = next(c for c in contents if c.cadence_seconds == min(declared))
        raise SourceError(
            f"two files have different cadences: {max(declared)} s and {min(declared)} s",
            where=f"{slow.file.uri} and {fast.file.uri}",
            remedy="convert them to stores of their own, or give --slots_per_day",
        )
    if declared:
        return declared.pop()
    return most_common_step(all_times(indexed), contents[0].file.uri)
