"""Times of archives with very many frames: every step over them works on a part at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from pipelines.archives.contents import FileContents, SourceFile, VariableIndex
from pipelines.errors import SourceError
from pipelines.timeline.intervals import iso

_PART = 65_536
"""times that are worked on at once"""


def all_times(variables: Sequence[VariableIndex]) -> np.ndarray:
    """The times that any of the variables has, int64 (n,), increasing."""
    first, *others = (variable.times for variable in variables)
    if all(np.array_equal(first, other) for other in others):
        return first
    return np.unique(np.concatenate([first, *others]))


def joined(parts: Sequence[tuple[int, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One axis of the times of several files, given the number of each file.

    Returns
    -------
    times (n,) int64, and of each its file and its position there, int32 (n,): one file after the
    other, in their own order. What one file holds is not copied.
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
    """Whether every time is later than the one before."""
    return bool((times[1:] > times[:-1]).all())


def most_common_step(times: np.ndarray, where: str) -> int:
    """The cadence of increasing ``times``; SourceError where there is one frame only."""
    if len(times) < 2:
        raise SourceError(
            "the archive holds one frame only, which has no cadence",
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
    """What there is to say of files whose frames are further apart than the archive's.

    The frames between them are gaps, which no window touches: a user should know before that a
    variable every six hours beside hourly ones leaves no window at all.
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
        f"every {cadence} s; what lies between counts as missing"
        for (name, step), files in sparse.items()
    ]


def check_regular(
    indexed: Sequence[VariableIndex],
    files: Sequence[SourceFile],
    periods: Sequence[tuple[int, int]],
    cadence: int,
) -> None:
    """SourceError for a time that does not lie on the steps of its period."""
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
