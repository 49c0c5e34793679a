"""Archives made of clips: short sequences of their own, all of one length.

A store of clips has the dimensions ``(sample, time, ...)``. Planning, streaming and the ledger see
it as one axis of frames, clip after clip, with a jump in time between two clips, just as separate
periods of one archive have: no window crosses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.errors import UsageError

SPLITS_UNIT = "sample"
"""what the bounds of splits count, in the attributes of a store of clips"""


@dataclass(frozen=True, eq=False)
class Clips:
    """Which clips there are, in the order in which a store holds them: split after split.

    >>> clips = Clips(np.array(["a", "b"]), np.array([0, 360, 720]), {"train": (0, 1)})
    >>> clips.axis().tolist(), clips.label(4)
    ([0, 360, 720, 1440, 1800, 2160], 'clip b, frame 1')
    """

    ids: np.ndarray
    """(N,) str or int64, no two alike"""
    offsets: np.ndarray
    """(T,) int64, increasing from 0: seconds since a clip's first frame, or numbers of frames"""
    splits: Mapping[str, tuple[int, int]]
    """split -> first and last clip, both counted"""
    timed: bool = True
    """False: the frames have an order but no time, as those of a video without its rate"""

    @property
    def frames(self) -> int:
        """T: frames of a clip."""
        return len(self.offsets)

    @property
    def step(self) -> int:
        """From the first frame of a clip to its second."""
        return int(self.offsets[1]) if self.frames > 1 else 1

    @property
    def regular(self) -> bool:
        """Whether every frame of a clip follows the one before by the same step."""
        return bool(np.all(np.diff(self.offsets) == self.step))

    def axis(self) -> np.ndarray:
        """(N * T,) int64: an axis of time with a jump of two steps from clip to clip."""
        length = int(self.offsets[-1]) + 2 * self.step
        heads = np.arange(len(self.ids), dtype=np.int64) * length
        return (heads[:, None] + self.offsets).ravel()

    def label(self, frame: int) -> str:
        """A frame of the axis as it stands in messages and captions."""
        return f"clip {self.ids[frame // self.frames]}, frame {frame % self.frames}"

    def frame_range(self, split: str) -> tuple[int, int]:
        """Frames of a split on the axis, half open."""
        first, last = self.splits[split]
        return first * self.frames, (last + 1) * self.frames

    def lead_offsets(self, input_frames: int, horizon: int, stride: int) -> tuple[int, ...]:
        """From the last input frame of a window to each predicted one; see ``offsets``."""
        last = (input_frames - 1) * stride
        leads = last + np.arange(1, horizon + 1) * stride
        if not self.regular:
            return tuple((self.offsets[leads] - self.offsets[last]).tolist())
        return tuple(((leads - last) * self.step).tolist())

    def check_sizes(self, **sizes: int | None) -> None:
        """Refuse chunks and shards, in frames, that are no whole number of clips."""
        for name, size in sizes.items():
            if size is not None and size % self.frames:
                raise UsageError(
                    f"{name} {size} is no whole number of clips of {self.frames} frames",
                    where=f"--{name}",
                    remedy=f"give for example {-(-size // self.frames) * self.frames}",
                )

    def check_window(self, frames: int, stride: int, where: str) -> None:
        """Refuse a window other than a whole clip where the cadence changes inside it."""
        if self.regular or (frames == self.frames and stride == 1):
            return
        steps = np.diff(self.offsets)
        change = int(np.flatnonzero(steps != steps[0])[0]) + 1
        raise UsageError(
            f"a window of {frames} frames at stride {stride} is no whole clip of {self.frames}, "
            f"and the cadence inside a clip changes from {steps[0]} s to {steps[change - 1]} s "
            f"after frame {change}",
            where=where,
            remedy=f"choose input_frames and horizon that make {self.frames} together, and "
            "stride 1",
        )


def split_text(bounds: Sequence[Any]) -> tuple[str, str]:
    """First and last of a split, or of a period of statistics, as people read them.

    >>> split_text([0, 8999]), split_text(["2010-01-01T00:00:00", "2015-12-31T23:00:00"])[0]
    (('sample 0', 'sample 8999'), '2010-01-01T00:00:00')
    """
    first, last = (f"sample {end}" if isinstance(end, int) else str(end) for end in bounds)
    return first, last
