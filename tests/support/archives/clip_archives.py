"""Small archives of clips in the published layouts, made from seeds."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from PIL import Image


def write_digits(folder: Path, digits: int = 40, test: bool = True) -> Path:
    """Write MNIST idx files; each digit is a filled rectangle of its own size and grey."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("train", "t10k") if test else ("train",):
        rng = np.random.default_rng(len(name))
        images = np.zeros((digits, 28, 28), np.uint8)
        for image in images:
            height, width = rng.integers(4, 12, 2)
            image[14 - height : 14 + height, 14 - width : 14 + width] = rng.integers(100, 256)
        header = np.array([2051, digits, 28, 28], ">i4").tobytes()
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(
            gzip.compress(header + images.tobytes(), mtime=0)
        )
    return folder


def write_test_clips(folder: Path, clips: int = 3, frames: int = 20) -> np.ndarray:
    """Write `mnist_test_seq.npy`, and return its values (frames, clips, 64, 64)."""
    values = np.random.default_rng(7).integers(0, 256, (frames, clips, 64, 64)).astype(np.uint8)
    np.save(folder / "mnist_test_seq.npy", values)
    return values


def write_cikm_text(folder: Path, **samples: int) -> dict[str, np.ndarray]:
    """Write text files, and return the pixels (n, 15, 4, 101, 101) of each.

    `samples` are the number of samples per file, such as `train=6, testA=2`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for stem, count in samples.items():
        rng = np.random.default_rng(len(stem))
        values = rng.integers(-1, 256, (count, 15, 4, 101, 101))
        with (folder / f"{stem}.txt").open("w") as file:
            for number, sample in enumerate(values):
                text = " ".join(map(str, sample.ravel().tolist()))
                file.write(f"{stem}_{number + 1},{rng.uniform(0, 60):.1f},{text}\n")
        written[stem] = values
    return written


def write_cikm_images(folder: Path, samples: int) -> np.ndarray:
    """Write `sample_<i>/img_<t>.png`, and return the pixels (samples, 15, 101, 101)."""
    values = np.random.default_rng(3).integers(0, 256, (samples, 15, 101, 101)).astype(np.uint8)
    for number, sample in enumerate(values, start=1):
        for time, frame in enumerate(sample, start=1):
            write_image(folder / f"sample_{number}" / f"img_{time}.png", frame)
    return values


def write_shanghai(folder: Path, train: int, test: int, step: int = 30) -> dict[str, np.ndarray]:
    """Write images of 8 x 8 in the layout of Shanghai2020, and return (n, 20, 8, 8) by split.

    Consecutive examples of a split begin `step` images apart, and images are six minutes apart. If
    `step` is small, examples share images.
    """
    offsets = np.cumsum([0, *[1] * 9, *[2] * 10])
    written = {}
    for split, count in (("train", train), ("test", test)):
        rng = np.random.default_rng(len(split))
        grey = rng.integers(0, 256, ((count - 1) * step + 30, 8, 8)).astype(np.uint8)
        used = [offsets + number * step for number in range(count)]
        for time in sorted({int(time) for times in used for time in times}):
            write_image(folder / split / "data" / f"radar_{time:05d}.png", grey[time])
        examples = folder / split / "examples"
        examples.mkdir(parents=True)
        for number, times in enumerate(used):
            names = [f"radar_{time:05d}.png" for time in times.tolist()]
            for kind, part in (("inputs", names[:10]), ("targets", names[10:])):
                (examples / f"{number:05d}-{kind}-train.txt").write_text("\n".join(part) + "\n")
        written[split] = np.stack([grey[times] for times in used])
    return written


def write_openstl(
    path: Path, train: int = 40, test: int = 5, compressed: bool = True
) -> dict[str, np.ndarray]:
    """Write `dataset.npz`, and return its arrays."""
    rng = np.random.default_rng(5)
    arrays = {
        f"{part}_{split}": rng.uniform(-1, 1, (count, 4, 2, 6, 5)).astype(np.float32)
        for split, count in (("train", train), ("test", test))
        for part in "XY"
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return arrays


def write_kth(folder: Path, sequences: dict[str, int], shape: tuple[int, int] = (6, 8)) -> None:
    """Write folders of images; `sequences` has the number of images by folder.

    An example is `{"walking/person01_walking_d1": 23}`.
    """
    for name, count in sequences.items():
        rng = np.random.default_rng(count)
        for number in range(1, count + 1):
            frame = rng.integers(0, 256, shape).astype(np.uint8)
            write_image(folder / name / f"image-{number}.png", frame)


def write_image(path: Path, grey: np.ndarray) -> None:
    """Write one grey-level image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grey).save(path)
