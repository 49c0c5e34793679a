"""Archives made of clips: what such an archive declares, and how it becomes an index.

An archive of clips is a module that defines `ARCHIVE`, a `ClipArchive`: which files belong to it,
its options, which clips there are, where each of their frames is, and how frames are decoded.
`pipelines/archives/clips/kth.py` is an example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from pipelines.archives.contents import ArchiveIndex, Decode, Opener, SourceFile, VariableIndex
from pipelines.archives.interface import ArchiveOptions, resolve
from pipelines.archives.sources.finding import find_tree
from pipelines.errors import SourceError, UsageError, nearest
from pipelines.progress import Progress, ignore
from pipelines.timeline.clips import Clips
from pipelines.timeline.splits import NAMES, Splits

MISSING = -1
"""Stands for the file of a frame that is missing in the source."""


@dataclass(frozen=True, eq=False)
class Clip:
    """One clip: frame t is at `positions[t]` of `files[t]`."""

    id: str | int
    """a name that no other clip of the archive has"""
    split: str
    """train, validation or test"""
    files: np.ndarray
    """int32 (T,): index into the archive's files, or `MISSING`"""
    positions: np.ndarray
    """int64 (T,): where the decoder finds the frame in its file"""


@dataclass(frozen=True, eq=False)
class ClipContents:
    """What an archive of clips holds: one variable."""

    variable: str
    """name of the variable in the store"""
    dims: tuple[str, ...]
    """names of a frame's axes; the last two are the grid"""
    shape: tuple[int, ...]
    """sizes of these axes"""
    attributes: Mapping[str, Any]
    """CF attributes of the variable"""
    offsets: np.ndarray
    """int64 (T,): time of each frame after the first, in seconds, or frame numbers if not timed"""
    clips: Sequence[Clip]
    """the clips; those of one split keep this order"""
    coordinates: Mapping[str, np.ndarray] = field(default_factory=dict)
    """axis -> its values"""
    timed: bool = True
    """whether `offsets` are seconds"""
    synthetic: bool = False
    """whether frames are computed and not measured"""
    notes: tuple[str, ...] = ()
    """lines for the user"""


@dataclass(frozen=True)
class ClipArchive:
    """How one kind of archive of clips is read."""

    name: str
    """the value of `--archive`"""
    title: str
    """the name for people"""
    suffixes: tuple[str, ...]
    """lower-case endings of the files that belong to it"""
    describe: Callable[[Sequence[SourceFile], Any, Progress], ClipContents]
    """(files, options, progress) -> the clips; raises SourceError naming the file"""
    decoder: Callable[[str, SourceFile, Any], AbstractContextManager[Decode]]
    """(path, file, options) -> a context that yields `decode(variable, positions)`, which returns
    float32 frames; both raise SourceError naming the file"""
    options: type[ArchiveOptions] = ArchiveOptions
    """the options of its own"""

    def find(self, source: str) -> tuple[SourceFile, ...]:
        """Return the archive's files."""
        return find_tree(source, self.suffixes, self.name)

    def index(
        self,
        source: str,
        *,
        variables: Sequence[str] | None,
        options: Mapping[str, Any],
        progress: Progress,
    ) -> ArchiveIndex:
        """Return what the archive at `source` holds, see `index_clips`."""
        return index_clips(self, source, variables=variables, options=options, progress=progress)

    def opener(self, options: Mapping[str, Any]) -> Opener:
        """Return the decoder for the options of a conversion."""
        resolved = resolve(self.name, self.options, options)
        return lambda path, file: self.decoder(path, file, resolved)

    def protocol_splits(self, times: np.ndarray) -> Splits | None:
        """Return None: each clip names its split."""
        return None


def index_clips(
    archive: ClipArchive,
    source: str,
    *,
    variables: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
    progress: Progress = ignore,
) -> ArchiveIndex:
    """Return what the archive at `source` holds; clips are in the order train, validation, test.

    Raises
    ------
    SourceError
        A file is missing or unreadable, two clips have the same name, or no clip is for training.
    UsageError
        The archive does not have an option or a variable.
    """
    resolved = resolve(archive.name, archive.options, options or {})
    files = archive.find(source)
    contents = archive.describe(files, resolved, progress)
    _check_variables(contents, variables, source)
    ordered = [clip for split in NAMES for clip in contents.clips if clip.split == split]
    splits = _ranges(ordered, source, archive)
    clips = Clips(_names(ordered, source), contents.offsets, splits, contents.timed)
    axis = clips.axis()
    places = np.concatenate([clip.files for clip in ordered])
    positions = np.concatenate([clip.positions for clip in ordered])
    held = places != MISSING
    variable = VariableIndex(
        name=contents.variable,
        dims=contents.dims,
        shape=contents.shape,
        coordinates=contents.coordinates,
        attributes=contents.attributes,
        times=axis[held],
        files=places[held].astype(np.int32),
        positions=positions[held].astype(np.int64),
    )
    return ArchiveIndex(
        archive=archive.name,
        title=archive.title,
        files=files,
        variables=(variable,),
        cadence_seconds=clips.step,
        periods=(),
        synthetic=contents.synthetic,
        notes=contents.notes,
        clips=clips,
        options=asdict(resolved),
    )


def whole(id: str | int, split: str, file: int, first: int, frames: int) -> Clip:
    """Return a clip whose frames follow each other in one file.

    >>> whole("a", "train", 0, 20, 3).positions.tolist()
    [20, 21, 22]
    """
    positions = np.arange(first, first + frames, dtype=np.int64)
    return Clip(id, split, np.full(frames, file, np.int32), positions)


def held_out(count: int, fraction: float, seed: int) -> np.ndarray:
    """Return a seeded choice of `fraction` of the clips, rounded: bool (count,).

    >>> int(held_out(1000, 0.1, seed=0).sum())
    100
    """
    # The raw words of a counter-based generator are the same in every version of NumPy.
    words = np.random.Philox(np.random.SeedSequence(seed)).random_raw(count)
    chosen = np.zeros(count, bool)
    chosen[np.argsort(words, kind="stable")[: round(fraction * count)]] = True
    return chosen


def check_fraction(validation: float) -> None:
    """Raise UsageError unless 0 <= validation < 1."""
    if not 0 <= validation < 1:
        raise UsageError(
            f"validation is {validation}",
            where="--validation",
            remedy="give the fraction of the train clips that is held out, such as 0.1, or 0",
        )


def _check_variables(contents: ClipContents, asked: Sequence[str] | None, source: str) -> None:
    for name in asked or ():
        if name != contents.variable:
            raise UsageError(
                f"the archive has no variable '{name}'",
                where=source,
                remedy=nearest(name, [contents.variable]),
            )


def _ranges(
    ordered: Sequence[Clip], source: str, archive: ClipArchive
) -> dict[str, tuple[int, int]]:
    splits: dict[str, tuple[int, int]] = {}
    for split in NAMES:
        rows = [row for row, clip in enumerate(ordered) if clip.split == split]
        if rows:
            splits[split] = rows[0], rows[-1]
    if "train" not in splits:
        raise SourceError(
            "the archive has no clip to train on",
            where=source,
            remedy=f"archive '{archive.name}' reads {', '.join(archive.suffixes)}: give the folder "
            "that holds all of it",
        )
    return splits


def _names(ordered: Sequence[Clip], source: str) -> np.ndarray:
    names = np.array([clip.id for clip in ordered])
    unique, counts = np.unique(names, return_counts=True)
    if len(unique) != len(names):
        raise SourceError(
            f"two clips are called '{unique[counts > 1][0]}'",
            where=source,
            remedy="leave one of them out of the source",
        )
    return names
