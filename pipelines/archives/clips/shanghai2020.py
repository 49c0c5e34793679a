"""Shanghai2020: radar echoes of the Yangtze delta, 10 frames at 6 minutes, then 10 at 12 minutes.

Chen et al. (2020), doi:10.5281/zenodo.7251972. `train` and `test` each hold a folder `data` of
images and a folder `examples` of lists: `<id>-inputs-train.txt` names the ten input images,
`<id>-targets-train.txt` the ten that follow. Values are stored as reflectivity, dBZ = 70 * grey /
255. The papers average the grid to 64 x 64 (`--regrid 64x64`).

Examples may share images. The validation split is the last tenth of the train examples without
those that share an image with the others. `--validation 0` trains on all 9,000, as the papers do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipelines.archives.clips.archive import (
    MISSING,
    Clip,
    ClipArchive,
    ClipContents,
    check_fraction,
)
from pipelines.archives.clips.images import image_decoder, image_shape
from pipelines.archives.contents import SourceFile
from pipelines.archives.interface import ArchiveOptions, option
from pipelines.archives.sources.reading import reading
from pipelines.cf import GREY_LEVELS
from pipelines.errors import SourceError
from pipelines.progress import Progress

INPUTS, TARGETS = 10, 10
OFFSETS = np.cumsum([0, *[360] * (INPUTS - 1), *[720] * TARGETS])
_LIST = re.compile(r"(?:^|/)(train|test)/examples/([^/]+)-(inputs|targets)-\w+\.txt$")
_IMAGE = re.compile(r"(?:^|/)(train|test)/data/(.+\.png)$", re.IGNORECASE)


@dataclass(frozen=True)
class ShanghaiOptions(ArchiveOptions):
    """Which examples are held out for validation."""

    validation: float = option(0.1, "fraction of the train examples that is held out")

    def __post_init__(self) -> None:
        check_fraction(self.validation)


def describe(
    files: Sequence[SourceFile], options: ShanghaiOptions, progress: Progress
) -> ClipContents:
    """Return the examples; reads every list."""
    lists: dict[tuple[str, str], dict[str, SourceFile]] = {}
    images: dict[tuple[str, str], int] = {}
    for number, file in enumerate(files):
        if found := _LIST.search(file.name):
            lists.setdefault((found[1], found[2]), {})[found[3]] = file
        elif found := _IMAGE.search(file.name):
            images[found[1], found[2].rsplit("/", 1)[-1]] = number
    clips = []
    for done, ((split, name), pair) in enumerate(lists.items()):
        progress(done, len(lists))
        frames = _frames(split, pair, "inputs", INPUTS, images)
        frames += _frames(split, pair, "targets", TARGETS, images)
        places = np.array(frames, np.int32)
        clips.append(Clip(f"{split}/{name}", split, places, np.zeros(len(places), np.int64)))
    progress(len(lists), len(lists))
    if not images or not lists:
        raise SourceError(
            "no examples with images in the layout of Shanghai2020",
            where=files[0].uri,
            remedy="give the folder that holds train/data, train/examples, test/data and "
            "test/examples",
        )
    clips, left_out = _hold_out(clips, options.validation)
    note = f"{left_out} train examples share images with both train and validation: left out"
    return ClipContents(
        variable="reflectivity",
        dims=("y", "x"),
        shape=image_shape(files[next(iter(images.values()))]),
        attributes={
            "long_name": "radar reflectivity",
            "standard_name": "equivalent_reflectivity_factor",
            "units": "dBZ",
            "comment": "70 * grey / 255 of the source's images",
            GREY_LEVELS: [0.0, 70.0],
        },
        offsets=OFFSETS,
        clips=clips,
        notes=(note,) if left_out else (),
    )


def _frames(
    split: str,
    pair: Mapping[str, SourceFile],
    kind: str,
    count: int,
    images: Mapping[tuple[str, str], int],
) -> list[int]:
    """Return the images of one list; `MISSING` for an image that is not in the source."""
    if kind not in pair:
        raise SourceError(
            f"an example has no list of its {kind}",
            where=next(iter(pair.values())).uri,
            remedy="fetch it again, or leave the example out of the source",
        )
    with reading(pair[kind]) as path, open(path, encoding="utf-8") as content:
        names = [line.split()[0].rsplit("/", 1)[-1] for line in content if line.strip()]
    if len(names) != count:
        raise SourceError(
            f"an example lists {len(names)} {kind}, not {count}",
            where=pair[kind].uri,
            remedy="fetch it again, or leave the example out of the source",
        )
    endings = ("", ".png")
    return [
        next((images[split, name + e] for e in endings if (split, name + e) in images), MISSING)
        for name in names
    ]


def _hold_out(clips: list[Clip], fraction: float) -> tuple[list[Clip], int]:
    """Return the clips with the last train examples as validation, and how many share images.

    Examples that share an image with both splits are left out.
    """
    train = [clip for clip in clips if clip.split == "train"]
    first = len(train) - round(fraction * len(train))
    seen = {int(number) for clip in train[:first] for number in clip.files}
    kept = [clip for clip in train[first:] if not seen & set(clip.files.tolist())]
    held = [replace(clip, split="validation") for clip in kept]
    test = [clip for clip in clips if clip.split != "train"]
    return train[:first] + held + test, len(train) - first - len(kept)


ARCHIVE = ClipArchive(
    name="shanghai2020",
    title="Shanghai2020, radar echoes of the Yangtze delta",
    suffixes=(".png", ".txt"),
    describe=describe,
    decoder=image_decoder(lambda grey: grey.astype(np.float32) * np.float32(70 / 255)),
    options=ShanghaiOptions,
)
