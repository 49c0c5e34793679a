"""Many files to one index: grids agree, times are regular, overlaps agree, gaps stay gaps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
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
"""frames of an overlap that are compared at a time"""


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
    """One index of the described files; reads frames only where files overlap in time.

    Parameters
    ----------
    archive:
        The archive's name.
    title:
        Where the files say none of their own.
    separate_periods:
        Each file is a period of its own; otherwise all files are one period.
    variables, static:
        As for :func:`pipelines.archives.series.archive.index_archive`, which says what is raised.
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
    known = list(dict.fromkeys(v.name for content in contents for v in content.variables))
    if not known:
        raise SourceError(
            "no file holds a variable with time, latitude/longitude or y/x",
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
    """What there is to say of variables without time that were not asked for."""
    left = dict.fromkeys(variable.name for content in contents for variable in content.static)
    if not left:
        return []
    names = " ".join(left)
    return [f"without time, and left out: {names} (--static_fields {names} keeps them)"]


def _merge(
    decoder: Opener,
    contents: Sequence[FileContents],
    name: str,
    notes: list[str],
    early: dict[tuple[int, int], list[str]],
) -> VariableIndex:
    parts = [
        (number, content, variable)
        for number, content in enumerate(contents)
        for variable in content.variables
        if variable.name == name
    ]
    _check_same_grid([(content.file, variable) for _, content, variable in parts])
    times, files, positions = joined([(number, variable.times) for number, _, variable in parts])
    variable = parts[0][2]
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
    if is_increasing(times) and all(v.preliminary is None for _, _, v in parts):
        return merged
    preliminary = np.concatenate([_preliminary(variable) for _, _, variable in parts])
    order = np.lexsort((positions, files, preliminary, times))
    times, files, positions = times[order], files[order], positions[order]
    preliminary = preliminary[order]
    first = np.ones(len(times), bool)
    first[1:] = times[1:] != times[:-1]
    # Final frames come first among those of one time; preliminary ones need not equal them.
    replaced = ~first & preliminary & ~preliminary[np.flatnonzero(first)[np.cumsum(first) - 1]]
    repeated = ~first & ~replaced
    if repeated.any():
        variables = {number: variable for number, _, variable in parts}
        _check_equal(decoder, contents, variables, name, times, files, positions, first, repeated)
        dropped = int(repeated.sum())
        notes.append(f"{name}: {dropped} repeated frames with equal values are kept once")
    if preliminary.any():
        counts = int((first & preliminary).sum()), int(replaced.sum())
        early.setdefault(counts, []).append(name)
    return replace(merged, times=times[first], files=files[first], positions=positions[first])


def _preliminary(variable: FileVariable) -> np.ndarray:
    if variable.preliminary is None:
        return np.zeros(len(variable.times), bool)
    return variable.preliminary


def _preliminary_notes(early: Mapping[tuple[int, int], Sequence[str]]) -> list[str]:
    """What there is to say of preliminary frames: (kept, replaced) -> variables."""
    notes = []
    for (kept, replaced), names in early.items():
        parts = [
            (kept, f"{kept} frames are preliminary: fetch them again when the final ones are out"),
            (replaced, f"{replaced} preliminary frames give way to final ones"),
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
                f"two files hold '{variable.name}' differently: {difference}",
                where=f"{reference_file.uri} and {file.uri}",
                remedy="convert them to stores of their own, or leave one out of the source",
            )


def _difference(first: FileVariable, other: FileVariable) -> str | None:
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
    # Neighbouring files may carry the same grid in float32 and float64.
    return np.isclose(values.astype(float), others.astype(float), rtol=1e-6, atol=1e-6)


def _check_equal(
    decoder: Opener,
    contents: Sequence[FileContents],
    variables: Mapping[int, FileVariable],
    name: str,
    times: np.ndarray,
    files: np.ndarray,
    positions: np.ndarray,
    first: np.ndarray,
    repeated: np.ndarray,
) -> None:
    """Repeated times must hold equal values, up to the packing of the files that they lie in."""
    repeats = np.flatnonzero(repeated)
    originals = np.flatnonzero(first)[np.cumsum(first) - 1][repeats]
    pairs = np.stack([files[originals], files[repeats]], axis=1)
    # Pair by pair of files, in the order of time inside a pair: each file is decoded in runs.
    for one, two in sorted(set(map(tuple, pairs.tolist()))):
        chosen = np.flatnonzero((pairs[:, 0] == one) & (pairs[:, 1] == two))
        tolerance = 0.5 * (variables[one].resolution + variables[two].resolution) * (1 + 1e-3)
        for begin in range(0, len(chosen), _COMPARED_FRAMES):
            run = chosen[begin : begin + _COMPARED_FRAMES]
            left = _frames(decoder, contents[one].file, name, positions[originals[run]])
            right = _frames(decoder, contents[two].file, name, positions[repeats[run]])
            same = np.isclose(left, right, rtol=1e-6 if tolerance else 0, atol=tolerance)
            same |= np.isnan(left) & np.isnan(right)
            wrong = np.flatnonzero(~same.reshape(len(run), -1).all(axis=1))
            if len(wrong):
                _raise_conflict(
                    name, contents[one].file, contents[two].file, int(times[repeats[run[wrong[0]]]])
                )


def _frames(decoder: Opener, file: SourceFile, name: str, positions: np.ndarray) -> np.ndarray:
    with reading(file) as path, decoder(path, file) as decode:
        return decode(name, positions)


def _raise_conflict(name: str, one: SourceFile, two: SourceFile, time: int) -> None:
    where = one.uri if one == two else f"{one.uri} and {two.uri}"
    subject = "one file holds a time twice" if one == two else "two files overlap in time"
    raise SourceError(
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
    joined: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return tuple(joined)


def _cadence(contents: Sequence[FileContents], indexed: Sequence[VariableIndex]) -> int:
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
