"""Animations of a forecast beside the truth, as a GIF with one of its frames as a PNG."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from jobs.drawing.maps import MapStyle, colour_bar, draw_field, panels
from jobs.drawing.style import STYLE, coloured, pixels

MOST_BYTES = 1_500_000
MOST_FRAMES = 24
_DPIS = (110, 95, 80, 65, 50)
_FRAME_MS, _LAST_MS = 500, 1600


@dataclasses.dataclass(frozen=True)
class Film:
    """An animation, and a picture that replaces it in print or where animations are off."""

    gif: bytes
    still: bytes
    """One frame of the animation as PNG."""
    frames: int
    width: int
    height: int


def film(
    left_thw: np.ndarray,
    right_thw: np.ndarray,
    captions: Sequence[tuple[str, str]],
    style: MapStyle,
    still: int,
    most_bytes: int = MOST_BYTES,
) -> Film:
    """Draw two fields side by side over time, as an animation of at most `MOST_FRAMES` frames.

    Parameters
    ----------
    left_thw, right_thw:
        (T, H, W) frames of the truth and of the forecast.
    captions:
        (T,) pairs of titles, for the left and the right map.
    style:
        The style of both maps, except for their width.
    still:
        The index of the frame that the picture shows. If the animation leaves it out, the picture
        shows the nearest frame.
    most_bytes:
        The GIF is drawn with fewer pixels until it is no larger than this. At the smallest
        readable size it may still be larger.
    """
    import matplotlib

    shown = sorted({round(x) for x in np.linspace(0, len(captions) - 1, MOST_FRAMES)})
    if len(captions) <= MOST_FRAMES:
        shown = list(range(len(captions)))
    still = min(shown, key=lambda frame: abs(frame - still))
    style = dataclasses.replace(style, width=2.75)
    colours = style.palette.scale(style.low, style.high)[0]
    images: list[Any] = []
    gif = b""
    with matplotlib.rc_context({**STYLE, "axes.grid": False, "font.size": 9.5}):
        for dpi in _DPIS:
            images = [_frame(left_thw[t], right_thw[t], captions[t], style, dpi) for t in shown]
            gif = _gif(images, colours)
            if len(gif) <= most_bytes:
                break
    picture = io.BytesIO()
    coloured(images[shown.index(still)], colours).save(picture, format="png", optimize=True)
    return Film(gif, picture.getvalue(), len(shown), *images[0].size)


def _frame(
    left_hw: np.ndarray, right_hw: np.ndarray, captions: tuple[str, str], style: MapStyle, dpi: int
) -> Any:
    figure, both = panels(style, 2, head=0.42)
    for axes, values, caption in zip(both, (left_hw, right_hw), captions, strict=True):
        draw_field(axes, values, style)
        axes.set_title(caption, fontsize=10, pad=4)
    both[1].set_ylabel("")
    colour_bar(figure, style)
    return pixels(figure, dpi)


def _gif(images: Sequence[Any], colours: Any) -> bytes:
    """Return the images as a GIF.

    All frames share one set of colours, so that pixels that do not change take no space.
    """
    frames = [coloured(image, colours) for image in images]
    durations = [_FRAME_MS] * (len(frames) - 1) + [_LAST_MS]
    buffer = io.BytesIO()
    frames[0].save(
        buffer,
        format="gif",
        save_all=True,
        append_images=frames[1:],
        duration=durations,
        loop=0,
        optimize=False,
    )
    return buffer.getvalue()
