"""Time axes of archives with very many frames: each step processes a part of them at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from pipelines.archives.contents import FileContents, SourceFile, VariableIndex
from pipelines.errors import SourceError
from pipelines.timeline.intervals import iso

_PART = 65_536
"""times that are processed at once, to bound the memory of intermediate arrays"""


def all_times(variables: Sequence[VariableIndex]) -> np.ndarray:
    """Return the times that at least one of the variables has, int64 (n,), increasing."""
    first, *others = (variable.times for variable in variables)
    if all(np.array_equal(first, other) for other in others):
        return first
    return np.unique(np.concatenate([first, *others]))


def joined(parts: Sequence[tuple[int, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Join the times of several files to one axis. The times of a single file are not copied.

    Parameters
    ----------
    parts:
        For each file its number and its times, int64 (m,).

    Returns
    -------
    The times, int64 (n,), and for each time its file number and its position in the file, int32
    (n,). The files come one after the other, each in its own order.
    """
    if len(parts) == 1:
        [(number, times)] = parts
        return times, np.broadcast_to(np.int32(number), len(times)), _count(times)
    return (
        np.concatenate([times for _, times in parts]),
        np.concatenate([np.full(len(times), number, np.int32) for number, times in parts]),
        np.concatenate([_count(times) for _, times in parts]),
    )


def _count(times: np.ndarray) -> np.ndarray:
    return np.arange(len(times), dtype=np.int32)


def is_increasing(times: np.ndarray) -> bool:
    """Return whether every time is later than the one before."""
    return bool((times[1:] > times[:-1]).all())


def most_common_step(times: np.ndarray, where: str) -> int:
    """Return the cadence of increasing `times`: the most common step, the shortest of equals.

    Raises
    ------
    SourceError
        There is only one frame.
    """
    if len(times) < 2:
        raise SourceError(
            "the archive holds only one frame, which has no cadence",
            where=where,
            remedy="give the folder of all files",
        )
    found: Counter[int] = Counter()
    for part in _parts(len(times) - 1):
        steps, counts = np.unique(np.diff(times[part.start : part.stop + 1]), return_counts=True)
        found.update(dict(zip(steps.tolist(), counts.tolist(), strict=True)))
    return max(sorted(found), key=lambda step: found[step])


def sparse_notes(
    contents: Sequence[FileContents], names: Collection[str], cadence: int
) -> list[str]:
    """Return notes on files whose frames are further apart than the cadence of the archive.

    The missing frames in between are gaps, and no window may touch a gap. A variable every six
    hours beside hourly variables therefore leaves no windows at all, which the user should know
    before the conversion.
    """
    sparse: dict[tuple[str, int], list[str]] = {}
    for content in contents:
        for variable in content.variables:
            if variable.name in names and len(variable.times) > 2:
                step = int(np.median(np.diff(np.sort(variable.times))))
                if step > cadence:
                    sparse.setdefault((variable.name, step), []).append(content.file.name)
    return [
        f"{name}: {len(files)} files ({files[0]} first) have a frame every {step} s, the archive "
        f"every {cadence} s; the frames in between count as missing"
        for (name, step), files in sparse.items()
    ]


def check_regular(
    indexed: Sequence[VariableIndex],
    files: Sequence[SourceFile],
    periods: Sequence[tuple[int, int]],
    cadence: int,
) -> None:
    """Check that every time is a whole number of steps after the start of its period.

    Raises
    ------
    SourceError
        A time is not; the error names the file.
    """
    starts = np.array([first for first, _ in periods])
    for variable in indexed:
        for part in _parts(len(variable.times)):
            times = variable.times[part]
            origin = starts[np.searchsorted(starts, times, side="right") - 1]
            wrong = np.flatnonzero((times - origin) % cadence)
            if len(wrong):
                at = int(wrong[0])
                raise SourceError(
                    f"the time axis of '{variable.name}' is irregular: {iso(int(times[at]))} "
                    f"does not lie on the steps of {cadence} s from {iso(int(origin[at]))}",
                    where=files[int(variable.files[part][at])].uri,
                    remedy="leave the file out of the source, or convert it to a store of its own",
                )


def _parts(length: int) -> Iterator[slice]:
    for begin in range(0, length, _PART):
        yield slice(begin, min(begin + _PART, length))
