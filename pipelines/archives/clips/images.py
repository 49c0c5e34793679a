"""Read grey images, one file per frame, for archives of clips."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from pipelines.archives.contents import Decode, SourceFile
from pipelines.archives.sources.reading import reading
from pipelines.cf import GREY_LEVELS
from pipelines.errors import SourceError

GREY_VALUES = {"long_name": "grey value, 0 to 255", "units": "1", GREY_LEVELS: [0.0, 255.0]}
"""Attributes of a video of 8-bit images whose values are stored unchanged."""


def image_shape(file: SourceFile) -> tuple[int, int]:
    """Return (H, W) of an image, from its header."""
    from PIL import Image

    with reading(file) as path:
        try:
            with Image.open(path) as image:
                return image.height, image.width
        except OSError as error:
            raise _unreadable(file, error) from None


def image_decoder(
    values: Callable[[np.ndarray], np.ndarray],
) -> Callable[[str, SourceFile, Any], Any]:
    """Return a decoder of files that hold one frame each.

    Parameters
    ----------
    values:
        Turns grey values, uint8 (H, W), into physical ones.
    """

    @contextmanager
    def decoder(path: str, file: SourceFile, options: Any) -> Iterator[Decode]:
        frame = values(read_grey(path, file)).astype(np.float32)
        yield lambda variable, positions: np.stack([frame] * len(positions))

    return decoder


def read_grey(path: str, file: SourceFile) -> np.ndarray:
    """Return the grey values of an image, uint8 (H, W); raise SourceError if it is damaged."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("L"))
    except (OSError, SyntaxError, ValueError) as error:
        raise _unreadable(file, error) from None


def _unreadable(file: SourceFile, error: Exception) -> SourceError:
    return SourceError(
        f"an image cannot be read: {error}",
        where=f"{file.uri} ({file.size} bytes)",
        remedy="fetch it again, or leave it out of the source",
    )
