"""Archives made of clips: short sequences that all have the same length.

A store of clips has the dimensions `(sample, time, ...)`. Planning, streaming and the ledger see it
as one axis of frames, clip after clip, with a jump in time between two clips. No window crosses a
jump, as in an archive of separate periods.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipelines.errors import UsageError

SPLITS_UNIT = "sample"
"""what the bounds of splits count, in the attributes of a store of clips"""


@dataclass(frozen=True, eq=False)
class Clips:
    """The clips of an archive, in the order in which a store holds them: split after split.

    >>> clips = Clips(np.array(["a", "b"]), np.array([0, 360, 720]), {"train": (0, 1)})
    >>> clips.axis().tolist(), clips.label(4)
    ([0, 360, 720, 1440, 1800, 2160], 'clip b, frame 1')
    """

    ids: np.ndarray
    """(N,) str or int64: a different name for each clip"""
    offsets: np.ndarray
    """(T,) int64, increasing from 0: seconds since the first frame of a clip, or frame numbers"""
    splits: Mapping[str, tuple[int, int]]
    """split -> first and last clip, inclusive"""
    timed: bool = True
    """whether `offsets` are seconds; False for videos with an unknown frame rate"""

    @property
    def frames(self) -> int:
        """T: frames per clip."""
        return len(self.offsets)

    @property
    def step(self) -> int:
        """The offset of the second frame of a clip, or 1 if a clip has only one frame."""
        return int(self.offsets[1]) if self.frames > 1 else 1

    @property
    def regular(self) -> bool:
        """Whether the step between frames is the same throughout a clip."""
        return bool(np.all(np.diff(self.offsets) == self.step))

    def axis(self) -> np.ndarray:
        """Return all frames as one time axis, int64 (N * T,).

        From one clip to the next it jumps by two steps.
        """
        length = int(self.offsets[-1]) + 2 * self.step
        heads = np.arange(len(self.ids), dtype=np.int64) * length
        return (heads[:, None] + self.offsets).ravel()

    def label(self, frame: int) -> str:
        """Return the name of a frame of the axis for messages and captions."""
        return f"clip {self.ids[frame // self.frames]}, frame {frame % self.frames}"

    def frame_range(self, split: str) -> tuple[int, int]:
        """Return the frames `[begin, end)` of a split on the axis."""
        first, last = self.splits[split]
        return first * self.frames, (last + 1) * self.frames

    def lead_offsets(self, input_frames: int, horizon: int, stride: int) -> tuple[int, ...]:
        """Return the time from a window's last input frame to each predicted one, like `offsets`.

        If the cadence changes inside a clip, the window is taken to start with the clip.
        """
        last = (input_frames - 1) * stride
        leads = last + np.arange(1, horizon + 1) * stride
        if not self.regular:
            return tuple((self.offsets[leads] - self.offsets[last]).tolist())
        return tuple(((leads - last) * self.step).tolist())

    def check_sizes(self, **sizes: int | None) -> None:
        """Raise UsageError if a size in frames, such as a chunk's, is not a multiple of a clip."""
        for name, size in sizes.items():
            if size is not None and size % self.frames:
                raise UsageError(
                    f"{name} {size} is not a multiple of the {self.frames} frames of a clip",
                    where=f"--{name}",
                    remedy=f"give for example {-(-size // self.frames) * self.frames}",
                )

    def check_window(self, frames: int, stride: int, where: str) -> None:
        """Raise UsageError if the cadence changes inside clips and a window is not a whole clip."""
        if self.regular or (frames == self.frames and stride == 1):
            return
        steps = np.diff(self.offsets)
        change = int(np.flatnonzero(steps != steps[0])[0]) + 1
        raise UsageError(
            f"a window of {frames} frames at stride {stride} is not a whole clip of {self.frames}, "
            f"and the cadence inside a clip changes from {steps[0]} s to {steps[change - 1]} s "
            f"after frame {change}",
            where=where,
            remedy=f"choose input_frames and horizon that add up to {self.frames}, and stride 1",
        )
