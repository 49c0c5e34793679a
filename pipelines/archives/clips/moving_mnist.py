"""Moving MNIST: two handwritten digits that move inside 64 x 64 pixels and bounce off the edges.

Srivastava et al. (2015), arXiv:1502.04681, section 4.1.2: digits and their first places are drawn
at random; the direction of each is uniform on the circle, its speed uniform over a fixed range;
digits overlap where they meet. Train and validation clips are made from the digits of
`train-images-idx3-ubyte.gz`. Test clips are those of `mnist_test_seq.npy`, (20, N, 64, 64); if it
is missing or too short, they are made from the digits of `t10k-images-idx3-ubyte.gz`.

A clip is a pure function of (seed, split, number): a larger `--samples` begins with the same clips
as a smaller one.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from pipelines.archives.clips.archive import Clip, ClipArchive, ClipContents, whole
from pipelines.archives.clips.images import GREY_VALUES
from pipelines.archives.contents import Decode, SourceFile
from pipelines.archives.interface import ArchiveOptions, check_at_least, option
from pipelines.archives.sources.reading import reading
from pipelines.errors import SourceError
from pipelines.progress import Progress

SIDE, DIGIT = 64, 28
SPEED = (2.0, 5.0)
"""Pixels per frame: the ends of the range of speeds."""
TRAIN_DIGITS = "train-images-idx3-ubyte"
TEST_DIGITS = "t10k-images-idx3-ubyte"
TEST_CLIPS = "mnist_test_seq.npy"
_STREAMS = {"train": 0, "validation": 1, "test": 2}
# Clips of train and validation come from one file: the numbers of the latter begin here.
_VALIDATION = 2**40


@dataclass(frozen=True)
class MovingMnistOptions(ArchiveOptions):
    """How many clips are made, and of what."""

    samples: int = option(10_000, "train clips")
    validation_samples: int = option(1_000, "validation clips, from the train digits")
    test_samples: int = option(10_000, "test clips, if they are made and not read")
    frames: int = option(20, "frames of a clip; 40 for 10 -> 30")
    digits: int = option(2, "digits in a clip")
    seed: int = option(0, "seed of the clips that are made")

    def __post_init__(self) -> None:
        check_at_least(self, samples=1, validation_samples=0, test_samples=0)
        check_at_least(self, frames=2, digits=1, seed=0)


def describe(
    files: Sequence[SourceFile], options: MovingMnistOptions, progress: Progress
) -> ClipContents:
    """Return the clips that are made, and those of the published test set."""
    numbers = {file.name.rsplit("/", 1)[-1].removesuffix(".gz"): i for i, file in enumerate(files)}
    folder = files[0].uri.rsplit("/", 1)[0]
    if TRAIN_DIGITS not in numbers:
        raise _absent(f"{TRAIN_DIGITS}.gz", folder, "put it into the folder")
    made = [
        *_made("train", options.samples, numbers[TRAIN_DIGITS], options),
        *_made("validation", options.validation_samples, numbers[TRAIN_DIGITS], options),
    ]
    notes: tuple[str, ...] = ()
    published = 0
    if TEST_CLIPS in numbers and options.digits == 2:
        frames, published = _published(files[numbers[TEST_CLIPS]])
        if frames < options.frames:
            notes = (f"{TEST_CLIPS} has {frames} frames per clip: test clips are made instead",)
            published = 0
    if published:
        number = numbers[TEST_CLIPS]
        made += [
            whole(f"test-{i}", "test", number, i * options.frames, options.frames)
            for i in range(published)
        ]
    elif options.test_samples:
        if TEST_DIGITS not in numbers:
            remedy = f"put it, or {TEST_CLIPS}, into the folder, or give --test_samples 0"
            raise _absent(f"{TEST_DIGITS}.gz", folder, remedy)
        made += _made("test", options.test_samples, numbers[TEST_DIGITS], options)
    return ClipContents(
        variable="intensity",
        dims=("y", "x"),
        shape=(SIDE, SIDE),
        attributes=GREY_VALUES,
        offsets=np.arange(options.frames, dtype=np.int64),
        clips=made,
        timed=False,
        synthetic=True,
        notes=notes,
    )


def _made(split: str, count: int, file: int, options: MovingMnistOptions) -> list[Clip]:
    first = _VALIDATION if split == "validation" else 0
    return [
        whole(f"{split}-{i}", split, file, (first + i) * options.frames, options.frames)
        for i in range(count)
    ]


@contextmanager
def decoder(path: str, file: SourceFile, options: MovingMnistOptions) -> Iterator[Decode]:
    """Yield what makes clips from the digits of one file, or reads the published ones."""
    if file.name.endswith(TEST_CLIPS):
        clips = _memory_map(path, file)
        yield lambda variable, positions: np.ascontiguousarray(
            clips[positions % options.frames, positions // options.frames], np.float32
        )
        return
    digits = read_digits(path, file)
    train = TRAIN_DIGITS in file.name

    def decode(variable: str, positions: np.ndarray) -> np.ndarray:
        frames = np.empty((len(positions), SIDE, SIDE), np.float32)
        numbers = positions // options.frames
        for number in np.unique(numbers).tolist():
            split = "test" if not train else "validation" if number >= _VALIDATION else "train"
            clip = make_clip(digits, options, split, number % _VALIDATION)
            rows = np.flatnonzero(numbers == number)
            frames[rows] = clip[positions[rows] % options.frames]
        return frames

    yield decode


def make_clip(
    digits: np.ndarray, options: MovingMnistOptions, split: str, number: int
) -> np.ndarray:
    """Return one clip, uint8 (frames, 64, 64).

    Parameters
    ----------
    digits:
        The images to choose from, uint8 (n, 28, 28).
    number:
        Number of the clip in its split.
    """
    seed = np.random.SeedSequence([options.seed, _STREAMS[split], number])
    # The raw words of a counter-based generator are the same in every version of NumPy.
    words = np.random.Philox(seed).random_raw(5 * options.digits)
    uniform = (words >> np.uint64(11)).astype(np.float64).reshape(-1, 5) * 2.0**-53
    clip = np.zeros((options.frames, SIDE, SIDE), np.uint8)
    for which, y, x, angle, speed in uniform.tolist():
        digit = digits[int(which * len(digits))]
        pixels = SPEED[0] + (SPEED[1] - SPEED[0]) * speed
        ys = _bouncing(y, pixels * np.sin(2 * np.pi * angle), options.frames)
        xs = _bouncing(x, pixels * np.cos(2 * np.pi * angle), options.frames)
        for frame, top, left in zip(clip, ys.tolist(), xs.tolist(), strict=True):
            part = frame[top : top + DIGIT, left : left + DIGIT]
            np.maximum(part, digit, out=part)
    return clip


def _bouncing(start: float, speed: float, frames: int) -> np.ndarray:
    """Return whole pixels from the edge at each frame; `start` is in [0, 1) of the free space."""
    room = SIDE - DIGIT
    # Bouncing between two walls is going straight on through mirrored rooms.
    way = np.mod(start * room + speed * np.arange(frames), 2 * room)
    return np.rint(np.minimum(way, 2 * room - way)).astype(np.int64)


def read_digits(path: str, file: SourceFile) -> np.ndarray:
    """Return the images of an MNIST idx file, compressed or not: uint8 (n, 28, 28)."""
    try:
        with (gzip.open if file.name.endswith(".gz") else open)(path, "rb") as content:
            data = content.read()
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(file, str(error)) from None
    header = np.frombuffer(data[:16], ">i4")
    if len(header) < 4 or header[0] != 2051 or tuple(header[2:]) != (DIGIT, DIGIT):
        raise _damaged(file, "its header is not that of 28 x 28 images")
    images = np.frombuffer(data, np.uint8, offset=16)
    if not len(images) or len(images) != header[1] * DIGIT * DIGIT:
        raise _damaged(file, f"it should hold {header[1]} images")
    return images.reshape(-1, DIGIT, DIGIT)


def _published(file: SourceFile) -> tuple[int, int]:
    """Return the numbers of frames and of clips in the published test set."""
    with reading(file) as path:
        frames, clips = _memory_map(path, file).shape[:2]
    return frames, clips


def _memory_map(path: str, file: SourceFile) -> np.ndarray:
    try:
        clips = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(file, str(error)) from None
    if clips.dtype != np.uint8 or clips.ndim != 4 or clips.shape[2:] != (SIDE, SIDE):
        raise _damaged(file, f"it is {clips.dtype} {clips.shape}, not uint8 (T, N, 64, 64)")
    return clips


def _damaged(file: SourceFile, reason: str) -> SourceError:
    return SourceError(
        f"a file of Moving MNIST cannot be read: {reason}",
        where=f"{file.uri} ({file.size} bytes)",
        remedy="fetch it again",
    )


def _absent(name: str, folder: str, remedy: str) -> SourceError:
    return SourceError(f"the source has no {name}", where=folder, remedy=remedy)


ARCHIVE = ClipArchive(
    name="moving_mnist",
    title="Moving MNIST",
    suffixes=(TRAIN_DIGITS, f"{TRAIN_DIGITS}.gz", TEST_DIGITS, f"{TEST_DIGITS}.gz", TEST_CLIPS),
    describe=describe,
    decoder=decoder,
    options=MovingMnistOptions,
)
