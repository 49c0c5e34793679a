"""KTH: people who walk, jog, run, box, wave and clap, as folders of grey images.

Schuldt et al. (2004), doi:10.1109/ICPR.2004.1334462. A folder whose path names a person, from
`person01` to `person25`, holds one sequence, its images in the order of their numbers. A sequence
is cut into clips of `--frames`. The papers train on persons 1 to 16 and test on 17 to 25; here
persons 15 and 16 are the validation split. Images are cropped to their central square; `--regrid
64x64` averages that to 64 x 64.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.archives.clips.archive import Clip, ClipArchive, ClipContents
from pipelines.archives.clips.images import GREY_VALUES, image_decoder, image_shape
from pipelines.archives.contents import SourceFile
from pipelines.archives.interface import ArchiveOptions, check_at_least, option
from pipelines.errors import SourceError
from pipelines.progress import Progress

LAST_TRAIN, LAST_VALIDATION, LAST = 14, 16, 25
_PERSON = re.compile(r"person(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class KthOptions(ArchiveOptions):
    """How sequences are cut into clips."""

    frames: int = option(20, "frames of a clip")

    def __post_init__(self) -> None:
        check_at_least(self, frames=2)


def describe(files: Sequence[SourceFile], options: KthOptions, progress: Progress) -> ClipContents:
    """Return the clips of every sequence; the frames left at its end are not used."""
    sequences: dict[str, list[int]] = {}
    for number, file in enumerate(files):
        folder = file.name.rpartition("/")[0]
        if _PERSON.search(folder):
            sequences.setdefault(folder, []).append(number)
    clips = []
    for folder, numbers in sequences.items():
        for begin in range(0, len(numbers) - options.frames + 1, options.frames):
            images = np.array(numbers[begin : begin + options.frames], np.int32)
            zeros = np.zeros(len(images), np.int64)
            clips.append(Clip(f"{folder}/{begin}", _split(folder, files), images, zeros))
    first = next((numbers[0] for numbers in sequences.values()), 0)
    side = min(image_shape(files[first]))
    return ClipContents(
        variable="intensity",
        dims=("y", "x"),
        shape=(side, side),
        attributes=GREY_VALUES,
        offsets=np.arange(options.frames, dtype=np.int64),
        clips=clips,
        timed=False,
    )


def _split(folder: str, files: Sequence[SourceFile]) -> str:
    person = int(_PERSON.findall(folder)[-1])
    if not 1 <= person <= LAST:
        raise SourceError(f"there is no person {person}", where=f"{folder} ({files[0].uri})")
    if person > LAST_VALIDATION:
        return "test"
    return "train" if person <= LAST_TRAIN else "validation"


def _central_square(grey: np.ndarray) -> np.ndarray:
    side = min(grey.shape)
    top, left = (grey.shape[0] - side) // 2, (grey.shape[1] - side) // 2
    return grey[top : top + side, left : left + side]


ARCHIVE = ClipArchive(
    name="kth",
    title="KTH human actions",
    suffixes=(".png", ".jpg", ".jpeg"),
    describe=describe,
    decoder=image_decoder(_central_square),
    options=KthOptions,
)
