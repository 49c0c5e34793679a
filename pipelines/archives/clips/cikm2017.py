"""CIKM AnalytiCup 2017: radar echoes around Shenzhen, 15 frames at 6 minutes, 101 x 101 km.

Read are either the published texts or images. The texts are `train.txt`, `testA.txt` and
`testB.txt`, with a line `id,label,v1 v2 ...` per sample: 15 times x 4 heights x 101 x 101 integers,
-1 if missing. One height of them is read. Images are `sample_<i>/img_1.png` to `img_15.png` of one
height.

Values are stored as reflectivity, dBZ = pixel * 95 / 255 - 10, so that scores at 30, 40 and 50 dBZ
need no second scale; (dBZ + 10) * 255 / 95 is the pixel again. The papers average the grid to
64 x 64 (`--regrid 64x64`) and split the 10,000 train samples 9:1. Here a seeded choice of a tenth
is the validation split; the samples of testA and testB are the test split.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from pipelines.archives.clips.archive import (
    MISSING,
    Clip,
    ClipArchive,
    ClipContents,
    check_fraction,
    held_out,
    whole,
)
from pipelines.archives.clips.images import image_decoder, image_shape
from pipelines.archives.contents import Decode, SourceFile
from pipelines.archives.interface import ArchiveOptions, check_at_least, option
from pipelines.archives.sources.reading import reading
from pipelines.cf import GREY_LEVELS
from pipelines.errors import SourceError, UsageError
from pipelines.progress import Progress

FRAMES, HEIGHTS, SIDE = 15, 4, 101
_IMAGE = re.compile(r"(?:^|/)sample_(\d+)/img_(\d+)\.png$")
_VALUES = FRAMES * HEIGHTS * SIDE * SIDE


@dataclass(frozen=True)
class CikmOptions(ArchiveOptions):
    """Which height is read, and which samples are held out."""

    height: int = option(0, "height in the text: 0 to 3 for 0.5, 1.5, 2.5 and 3.5 km")
    validation: float = option(0.1, "fraction of the train samples that is held out")
    seed: int = option(0, "seed of the choice of the held out samples")

    def __post_init__(self) -> None:
        check_fraction(self.validation)
        check_at_least(self, height=0, seed=0)
        if self.height >= HEIGHTS:
            raise UsageError(f"height is {self.height}", where="--height", remedy="give 0 to 3")


def describe(files: Sequence[SourceFile], options: CikmOptions, progress: Progress) -> ClipContents:
    """Return the samples, with the place of each in its file; reads every text file once."""
    texts = [i for i, file in enumerate(files) if file.name.lower().endswith(".txt")]
    clips = _of_text(files, texts, progress) if texts else _of_images(files)
    train = [i for i, clip in enumerate(clips) if clip.split == "train"]
    chosen = held_out(len(train), options.validation, options.seed)
    for i in np.flatnonzero(chosen).tolist():
        clips[train[i]] = replace(clips[train[i]], split="validation")
    kilometres = options.height + 0.5
    return ClipContents(
        variable="reflectivity",
        dims=("y", "x"),
        shape=(SIDE, SIDE) if texts else image_shape(files[0]),
        attributes={
            "long_name": f"radar reflectivity {kilometres} km above ground",
            "standard_name": "equivalent_reflectivity_factor",
            "units": "dBZ",
            "comment": "pixel * 95 / 255 - 10 of the source's pixels 0 to 255",
            GREY_LEVELS: [-10.0, 85.0],
        },
        offsets=np.arange(FRAMES, dtype=np.int64) * 360,
        clips=clips,
    )


def _of_text(files: Sequence[SourceFile], texts: list[int], progress: Progress) -> list[Clip]:
    clips = []
    for done, number in enumerate(texts):
        progress(done, len(texts))
        stem = files[number].name.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        split = "test" if stem.lower().startswith("test") else "train"
        with reading(files[number]) as path:
            for offset, name in _lines(path, files[number]):
                label = name if name.startswith(stem) else f"{stem}_{name}"
                clips.append(whole(label, split, number, offset * FRAMES, FRAMES))
    progress(len(texts), len(texts))
    return clips


def _lines(path: str, file: SourceFile) -> Iterator[tuple[int, str]]:
    """Yield byte offset and id of every line, without reading a file of gigabytes into memory."""
    if not file.size:
        raise _damaged(file, "it is empty")
    with (
        open(path, "rb") as content,
        mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        begin = 0
        while begin < len(data):
            end = data.find(b"\n", begin)
            end = len(data) if end < 0 else end
            head = data[begin : min(end, begin + 256)].split(b",")
            if len(head) >= 3:
                yield begin, head[0].decode(errors="replace").strip()
            elif data[begin:end].strip():
                raise _damaged(file, f"the line at byte {begin} is not of the form id,label,values")
            begin = end + 1


def _of_images(files: Sequence[SourceFile]) -> list[Clip]:
    places: dict[str, np.ndarray] = {}
    for number, file in enumerate(files):
        found = _IMAGE.search(file.name)
        if found and 1 <= int(found[2]) <= FRAMES:
            frames = places.setdefault(file.name.rsplit("/", 1)[0], np.full(FRAMES, MISSING))
            frames[int(found[2]) - 1] = number
    zeros = np.zeros(FRAMES, np.int64)
    return [Clip(folder, _split(folder), frames, zeros) for folder, frames in places.items()]


def _split(folder: str) -> str:
    parts = {part.lower() for part in folder.split("/")}
    return next((split for split in ("test", "validation") if split in parts), "train")


@contextmanager
def decoder(path: str, file: SourceFile, options: CikmOptions) -> Iterator[Decode]:
    """Yield what decodes the reflectivity of one height, float32 (n, y, x)."""
    if not file.name.lower().endswith(".txt"):
        with image_decoder(_reflectivity)(path, file, options) as decode_image:
            yield decode_image
        return
    with open(path, "rb") as content:

        def decode(variable: str, positions: np.ndarray) -> np.ndarray:
            frames = np.empty((len(positions), SIDE, SIDE), np.float32)
            offsets = positions // FRAMES
            for offset in np.unique(offsets).tolist():
                content.seek(offset)
                rows = np.flatnonzero(offsets == offset)
                pixels = _pixels(content.readline(), options.height, file)
                frames[rows] = _reflectivity(pixels[positions[rows] % FRAMES])
            return frames

        yield decode


def _pixels(line: bytes, height: int, file: SourceFile) -> np.ndarray:
    """Return the pixels of one height, float32 (15, 101, 101)."""
    name, _, text = line.split(b",", 2)
    text = text.strip()
    heads = np.flatnonzero(np.frombuffer(text, np.uint8) == ord(" ")) + 1
    heads = np.concatenate([[0], heads, [len(text) + 1]])
    if len(heads) != _VALUES + 1:
        what = f"sample {name.decode(errors='replace')} has {len(heads) - 1} values, not {_VALUES}"
        raise _damaged(file, what)
    pixels = np.empty((FRAMES, SIDE * SIDE), np.float32)
    for time in range(FRAMES):
        # Parsing is slow: only the values of one height become numbers.
        first = (time * HEIGHTS + height) * SIDE * SIDE
        part = text[heads[first] : heads[first + SIDE * SIDE] - 1]
        try:
            pixels[time] = np.array(part.split(b" "), np.int64)
        except ValueError as error:
            raise _damaged(file, f"sample {name.decode(errors='replace')}: {error}") from None
    return pixels.reshape(FRAMES, SIDE, SIDE)


def _reflectivity(pixels: np.ndarray) -> np.ndarray:
    """Return dBZ, float32; negative pixels become NaN."""
    values = pixels.astype(np.float32)
    return np.where(values < 0, np.float32(np.nan), values * np.float32(95 / 255) - np.float32(10))


def _damaged(file: SourceFile, reason: str) -> SourceError:
    return SourceError(
        f"the file does not hold whole samples of CIKM2017: {reason}",
        where=f"{file.uri} ({file.size} bytes)",
        remedy="fetch it again, or leave it out of the source",
    )


ARCHIVE = ClipArchive(
    name="cikm2017",
    title="CIKM AnalytiCup 2017, radar echoes around Shenzhen",
    suffixes=(".txt", ".png"),
    describe=describe,
    decoder=decoder,
    options=CikmOptions,
)
