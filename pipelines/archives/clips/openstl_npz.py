"""TaxiBJ as OpenSTL publishes it: `dataset.npz` with windows instead of a series.

Its arrays `X_train`, `Y_train`, `X_test` and `Y_test` are (n, 4, 2, 32, 32), inflow and outflow
scaled to [-1, 1]. A clip is the four frames of X, then the four of Y. Nothing is unpickled. The
archive `taxibj` reads the flows themselves.

Windows overlap by all frames but one. The validation split is the last tenth of the train windows;
the windows between both that share frames with them are left out.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import numpy as np

from pipelines.archives.clips.archive import (
    Clip,
    ClipArchive,
    ClipContents,
    check_fraction,
    whole,
)
from pipelines.archives.contents import Decode, SourceFile
from pipelines.archives.formats.coordinates import FLOW_CHANNELS
from pipelines.archives.interface import ArchiveOptions, option
from pipelines.archives.sources.reading import reading
from pipelines.errors import SourceError
from pipelines.progress import Progress

CADENCE = 1800
# Train and test lie in one file: the numbers of test windows begin here.
_TEST = 2**40


@dataclass(frozen=True)
class OpenstlOptions(ArchiveOptions):
    """Which windows are held out for validation."""

    validation: float = option(0.1, "fraction of the train windows that is held out")

    def __post_init__(self) -> None:
        check_fraction(self.validation)


@dataclass(frozen=True)
class _Member:
    """One array of the file."""

    shape: tuple[int, ...]
    dtype: np.dtype
    data: int
    """bytes of the header before the values"""


def describe(
    files: Sequence[SourceFile], options: OpenstlOptions, progress: Progress
) -> ClipContents:
    """Return the windows; reads headers only."""
    if len(files) > 1:
        raise SourceError(
            f"the source must be one dataset.npz, not {len(files)} files",
            where=", ".join(file.uri for file in files[:3]),
            remedy="give the file itself as --source",
        )
    with reading(files[0]) as path, _opened(path, files[0]) as archive:
        shapes = {
            part: _member(archive, part, files[0]).shape
            for part in ("X_train", "Y_train", "X_test", "Y_test")
        }
    given, ahead = shapes["X_train"], shapes["Y_train"]
    consistent = all(len(s) == 5 and s[2:] == given[2:] for s in shapes.values())
    pairs = all(shapes[f"X_{s}"][0] == shapes[f"Y_{s}"][0] for s in ("train", "test"))
    if not (consistent and pairs) or given[2] != len(FLOW_CHANNELS):
        raise _damaged(files[0], f"its arrays are {shapes}, not (n, T, 2, H, W) in pairs")
    frames = given[1] + ahead[1]
    if shapes["X_test"][1] + shapes["Y_test"][1] != frames:
        raise _damaged(files[0], f"train and test windows differ in length: {shapes}")
    return ClipContents(
        variable="flow",
        dims=("channel", "y", "x"),
        shape=given[2:],
        attributes={
            "long_name": "people entering and leaving the cell, scaled to [-1, 1] by the source",
            "units": "1",
        },
        offsets=np.arange(frames, dtype=np.int64) * CADENCE,
        clips=_windows(given[0], shapes["X_test"][0], frames, options.validation),
        coordinates={"channel": np.array(FLOW_CHANNELS)},
    )


def _windows(train: int, test: int, frames: int, fraction: float) -> list[Clip]:
    held = round(fraction * train)
    last = train - held - (frames - 1 if held else 0)
    parts = (
        ("train", 0, last, 0),
        ("validation", train - held, train, 0),
        ("test", 0, test, _TEST),
    )
    return [
        whole(f"{'test' if base else 'train'}-{i}", split, 0, (base + i) * frames, frames)
        for split, begin, end, base in parts
        for i in range(begin, end)
    ]


@contextmanager
def decoder(path: str, file: SourceFile, options: OpenstlOptions) -> Iterator[Decode]:
    """Yield what decodes flows, float32 (n, 2, y, x), in the source's scale."""
    with _opened(path, file) as archive:
        shape = _member(archive, "X_train", file).shape
        length = shape[1] + _member(archive, "Y_train", file).shape[1]

        def decode(variable: str, positions: np.ndarray) -> np.ndarray:
            frames = np.empty((len(positions), *shape[2:]), np.float32)
            windows, places = np.divmod(positions, length)
            for split, base in (("train", 0), ("test", _TEST)):
                rows = np.flatnonzero((windows >= _TEST) == (base == _TEST))
                if len(rows):
                    chosen = windows[rows] - base
                    run = _windows_of(archive, split, chosen.min(), chosen.max() + 1, file)
                    frames[rows] = run[chosen - chosen.min(), places[rows]]
            return frames

        yield decode


@contextmanager
def _opened(path: str, file: SourceFile) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise _damaged(file, str(error)) from None
    with archive:
        yield archive


def _member(archive: zipfile.ZipFile, name: str, file: SourceFile) -> _Member:
    """Return shape and type of one array, from its header."""
    try:
        with archive.open(f"{name}.npy") as content:
            version = np.lib.format.read_magic(content)
            header = np.lib.format.read_array_header_1_0
            if version != (1, 0):
                header = np.lib.format.read_array_header_2_0
            shape, fortran, dtype = header(content)
            if fortran or dtype.hasobject:
                raise ValueError("its values are objects, or not in C order")
            return _Member(shape, dtype, content.tell())
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise _damaged(file, f"{name}: {error}") from None


def _windows_of(
    archive: zipfile.ZipFile, split: str, first: int, end: int, file: SourceFile
) -> np.ndarray:
    """Return windows [first, end) of a split, (n, T, 2, H, W), without reading the whole file."""
    values = []
    for name in (f"X_{split}", f"Y_{split}"):
        part = _member(archive, name, file)
        size = int(np.prod(part.shape[1:])) * part.dtype.itemsize
        try:
            with archive.open(f"{name}.npy") as content:
                content.seek(part.data + first * size)
                data = _exactly(content, (end - first) * size)
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise _damaged(file, f"{name}: {error}") from None
        values.append(np.frombuffer(data, part.dtype).reshape(-1, *part.shape[1:]))
    return np.concatenate(values, axis=1)


def _exactly(content: IO[bytes], size: int) -> bytes:
    data = content.read(size)
    if len(data) != size:
        raise EOFError("it ends early")
    return data


def _damaged(file: SourceFile, reason: str) -> SourceError:
    return SourceError(
        f"the file is not a whole dataset.npz of OpenSTL: {reason}",
        where=f"{file.uri} ({file.size} bytes)",
        remedy="fetch it again",
    )


ARCHIVE = ClipArchive(
    name="openstl_npz",
    title="TaxiBJ as OpenSTL hands it out, scaled to [-1, 1]",
    suffixes=(".npz",),
    describe=describe,
    decoder=decoder,
    options=OpenstlOptions,
)
