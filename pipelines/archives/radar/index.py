"""Find the frames in a folder of composites.

If file names give the times, only a sample of the files is opened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipelines.archives.contents import ArchiveIndex, SourceFile, VariableIndex
from pipelines.archives.radar.file_times import periods, spread, time_in_name
from pipelines.archives.radar.formats.radar_format import (
    Quantity,
    RadarFormat,
    load_format,
    recognise,
)
from pipelines.archives.radar.grid import RadarGrid
from pipelines.archives.radar.options import AUTO, RadarOptions
from pipelines.archives.radar.processing import converted_quantity
from pipelines.archives.sources.reading import reading
from pipelines.archives.time_axis import check_regular, most_common_step
from pipelines.errors import PlatformError, SourceError, UsageError, nearest
from pipelines.progress import Progress
from pipelines.timeline.intervals import iso

FOUND = "found"
"""Key, beside the options that a store keeps, of what indexing found out about the archive."""
SAMPLE = 16
"""Files whose metadata are compared with their names."""
DECODED = 3
"""Files of the sample that are decoded, to find the grid."""


@dataclass(frozen=True)
class RadarReading:
    """What decoding a frame needs to know of the whole archive."""

    options: RadarOptions
    """the options, with the format that was found"""
    grid: RadarGrid
    """the source's grid"""
    quantities: tuple[Quantity, ...]
    """the quantities in the files"""
    times_in_names: bool
    """whether file names give the times; then a frame whose metadata disagree cannot be used"""

    def as_dict(self) -> dict[str, Any]:
        """Return the options, and the other fields under the key `FOUND`."""
        found = {
            "grid": self.grid.as_dict(),
            "quantities": [asdict(quantity) for quantity in self.quantities],
            "times_in_names": self.times_in_names,
        }
        return asdict(self.options) | {FOUND: found}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RadarReading:
        """Return what `as_dict` described, also if it went through JSON."""
        found = data[FOUND]
        return cls(
            RadarOptions(**{name: value for name, value in data.items() if name != FOUND}),
            RadarGrid.from_dict(found["grid"]),
            tuple(Quantity(**quantity) for quantity in found["quantities"]),
            found["times_in_names"],
        )


def index(
    files: Sequence[SourceFile],
    variables: Sequence[str] | None,
    options: RadarOptions,
    progress: Progress,
) -> ArchiveIndex:
    """Return the index of a folder of files.

    Raises
    ------
    SourceError
        No file can be read, the files are of several formats, products, grids or quantities, a time
        comes twice, or times do not follow the cadence.
    UsageError
        The files do not have a variable, or a crop or size does not fit their grid.
    """
    found = _format(files, options)
    files = _one_product(files, found)
    sampled = _sample(files, found)
    times, owners, positions, named, notes = _times(files, found, sampled, progress)
    grid, quantities = _content(files, found, sampled)
    reading_of = RadarReading(options.of_format(found.name), grid, quantities, named)
    order = np.argsort(times, kind="stable")
    times, owners, positions = times[order], owners[order], positions[order]
    _check_unique(times, owners, files)
    cadence = most_common_step(times, files[0].uri)
    target = grid.cropped(options.window).resized(options.shape)
    indexed = tuple(
        VariableIndex(
            name=stored.name,
            dims=target.dims,
            shape=target.shape,
            coordinates=target.coordinates(),
            attributes=stored.attributes(),
            times=times,
            files=owners,
            positions=positions,
        )
        for stored in _chosen(quantities, options, variables, files[0])
    )
    spans = periods(times, cadence, options.period_gap)
    check_regular(indexed, files, spans, cadence)
    if len(spans) > 1:
        notes.append(
            f"{len(spans)} periods: more than {options.period_gap} frames are missing between them"
        )
    return ArchiveIndex(
        archive="radar",
        title=f"{found.title}: {indexed[0].attributes['long_name']}",
        files=tuple(files),
        variables=indexed,
        cadence_seconds=cadence,
        periods=spans,
        notes=tuple(notes),
        grid_mapping=target.grid_mapping(),
        options=reading_of.as_dict(),
    )


def described(error: Exception) -> str:
    """Return what went wrong with a file, in one line."""
    text = " ".join(str(error.what if isinstance(error, PlatformError) else error).split())
    plain = isinstance(error, (ValueError, PlatformError))
    return text if plain and text else f"{type(error).__name__}: {text}"


def _format(files: Sequence[SourceFile], asked: RadarOptions) -> RadarFormat:
    if asked.radar_format != AUTO:
        return load_format(asked.radar_format)
    failed: SourceError | None = None
    for number in spread(len(files), SAMPLE):
        try:
            with reading(files[number]) as path:
                return recognise(path, files[number])
        except SourceError as error:
            failed = failed or error
    raise failed or SourceError("no files found")


def _one_product(files: Sequence[SourceFile], found: RadarFormat) -> tuple[SourceFile, ...]:
    """Return the files that hold frames; raise SourceError if they are of several products."""
    products: dict[str, list[SourceFile]] = {}
    for file in files:
        product = found.product(file.name)
        if product is not None:
            products.setdefault(product, []).append(file)
    if not products:
        raise SourceError(
            f"no file has a name of {found.title}'s frames",
            where=files[0].uri,
            remedy="give the folder as it is published",
        )
    if len(products) > 1:
        first = sorted(products)[0]
        raise SourceError(
            f"the source holds several products: {', '.join(sorted(products))}",
            where=products[first][0].uri,
            remedy=f"convert each to a store of its own: --source '.../{first}_*'",
        )
    return tuple(next(iter(products.values())))


def _sample(files: Sequence[SourceFile], found: RadarFormat) -> list[int]:
    """Return the files to open: some at even distances and one per ending, or all if each holds
    many frames.
    """
    if found.many_frames:
        return list(range(len(files)))
    endings: dict[str, int] = {}
    for number, file in enumerate(files):
        endings.setdefault(file.name.rsplit(".", 1)[-1] if "." in file.name else "", number)
    return sorted({*spread(len(files), SAMPLE), *list(endings.values())[:SAMPLE]})


def _times(
    files: Sequence[SourceFile], found: RadarFormat, sampled: Sequence[int], progress: Progress
) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool, list[str]]:
    """Return time, file and position of every frame, whether names give the times, and notes."""
    held, unreadable = _held_times(files, found, sampled, progress)
    names = [None if found.many_frames else time_in_name(file.name) for file in files]
    agreeing = [n for n, times in held.items() if len(times) == 1 and times[0] == names[n]]
    named = not found.many_frames and None not in names and 2 * len(agreeing) > len(held)
    if named:
        progress(len(files), len(files))
        every = np.arange(len(files), dtype=np.int32)
        notes = [f"cannot be read: {files[n].uri}: {why}" for n, why in unreadable.items()]
        return np.array(names, np.int64), every, np.zeros(len(files), np.int64), True, notes
    rest = [number for number in range(len(files)) if number not in held]
    more, unreadable = _held_times(files, found, rest, progress)
    held |= more
    if unreadable:
        number = min(unreadable)
        raise SourceError(
            f"a source file cannot be read, and its name gives no time: {unreadable[number]}",
            where=f"{files[number].uri} ({files[number].size} bytes)",
            remedy="fetch it again, or leave it out of the source",
        )
    numbers = sorted(held)
    times = np.concatenate([held[number] for number in numbers])
    owners = np.repeat(np.array(numbers, np.int32), [len(held[number]) for number in numbers])
    positions = np.concatenate([np.arange(len(held[n]), dtype=np.int64) for n in numbers])
    notes = []
    if not found.many_frames:
        notes.append("file names do not give the times of the metadata: every file was opened")
    return times, owners, positions, False, notes


def _held_times(
    files: Sequence[SourceFile], found: RadarFormat, numbers: Sequence[int], progress: Progress
) -> tuple[dict[int, np.ndarray], dict[int, str]]:
    """Return the times in each file's metadata, and why other files cannot be read.

    Raises SourceError for a file of another format.
    """
    held: dict[int, np.ndarray] = {}
    unreadable: dict[int, str] = {}
    for done, number in enumerate(numbers):
        progress(done, len(files))
        file = files[number]
        with reading(file) as path:
            try:
                if not found.recognises(path, file.name):
                    other = _other_format(path, file)
                    if other is not None:
                        raise _mixed(files, found, file, other)
                    raise ValueError(f"it is damaged, or not a file of {found.title}")
                held[number] = found.times(path, file)
            except PlatformError:
                raise
            except Exception as error:
                # HDF5, eccodes and zlib share no class of errors.
                unreadable[number] = described(error)
    return held, unreadable


def _other_format(path: str, file: SourceFile) -> RadarFormat | None:
    try:
        return recognise(path, file)
    except SourceError:
        return None


def _mixed(
    files: Sequence[SourceFile], found: RadarFormat, file: SourceFile, other: RadarFormat
) -> SourceError:
    if file == files[0]:
        return SourceError(
            f"the source holds {other.title}, not {found.title}",
            where=file.uri,
            remedy=f"leave --radar_format out, or give --radar_format {other.name}",
        )
    return SourceError(
        f"the source holds files of several formats: {found.title} and {other.title}",
        where=f"{files[0].uri} and {file.uri}",
        remedy="convert each to a store of its own: give a glob as --source, such as 'FOLDER/*.h5'",
    )


def _content(
    files: Sequence[SourceFile], found: RadarFormat, sampled: Sequence[int]
) -> tuple[RadarGrid, tuple[Quantity, ...]]:
    """Return grid and quantities of the first readable file.

    Raises SourceError if those of a file in the middle or of the last one differ.
    """
    known: tuple[SourceFile, RadarGrid, tuple[Quantity, ...]] | None = None
    failed: tuple[SourceFile, str] | None = None
    decoded = 0
    for at in (*spread(len(sampled), DECODED), *range(len(sampled))):
        file = files[sampled[at]]
        if decoded == min(DECODED, len(sampled)):
            break
        with reading(file) as path:
            try:
                quantities = found.quantities(path, file)
                grid = found.read(path, file, quantities[0], np.zeros(1, np.int64)).grid
            except PlatformError:
                raise
            except Exception as error:
                failed = failed or (file, described(error))
                continue
        decoded += 1
        if known is None:
            known = (file, grid, quantities)
        _check_same(known, (file, grid, quantities))
    if known is None:
        file, why = failed or (files[0], "")
        raise SourceError(
            f"no file of the source can be read as {found.title}: {why}",
            where=f"{file.uri} ({file.size} bytes)",
            remedy="fetch the files again; a product of another kind needs a format of its own",
        )
    return known[1], known[2]


def _check_same(
    one: tuple[SourceFile, RadarGrid, tuple[Quantity, ...]],
    two: tuple[SourceFile, RadarGrid, tuple[Quantity, ...]],
) -> None:
    difference = one[1].difference(two[1])
    kinds = [[(q.name, q.accumulation_seconds) for q in held[2]] for held in (one, two)]
    if difference is None and kinds[0] != kinds[1]:
        difference = f"they are {kinds[0]} and {kinds[1]}"
    if difference is not None:
        raise SourceError(
            f"two files hold their frames differently: {difference}",
            where=f"{one[0].uri} and {two[0].uri}",
            remedy="convert them to stores of their own, or leave one out of the source",
        )


def _check_unique(times: np.ndarray, owners: np.ndarray, files: Sequence[SourceFile]) -> None:
    repeated = np.flatnonzero(np.diff(times) == 0)
    if len(repeated):
        at = int(repeated[0])
        one, two = files[owners[at]].uri, files[owners[at + 1]].uri
        raise SourceError(
            f"two frames have one time: {iso(int(times[at]))} ({len(repeated)} such times)",
            where=one if one == two else f"{one} and {two}",
            remedy="leave one of them out of the source: give a glob that matches one product",
        )


def _chosen(
    quantities: Sequence[Quantity],
    options: RadarOptions,
    asked: Sequence[str] | None,
    file: SourceFile,
) -> list[Quantity]:
    """Return the quantities in the store: the variables that were asked for, or all."""
    stored = {q.name: q for q in (converted_quantity(held, options) for held in quantities)}
    if len(stored) < len(quantities):
        raise UsageError(
            f"--unit {options.unit} gives two variables of one name, of "
            f"{', '.join(held.name for held in quantities)}",
            where="--unit",
            remedy="leave it out and name the variable that you want with --variables",
        )
    for name in asked or ():
        if name not in stored:
            raise UsageError(
                f"the archive has no variable '{name}'",
                where=file.uri,
                remedy=nearest(name, stored),
            )
    return [stored[name] for name in dict.fromkeys(asked)] if asked else list(stored.values())
