"""Turn, mirror and roll windows in training, by random numbers that (seed, epoch, step, lane) fix.

All frames of a window are changed in the same way, so that motion stays motion. The random numbers
depend neither on the number of workers nor on where a training was interrupted.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from pipelines.errors import UsageError

_STREAM = 0x6175676D
"""part of the seed that keeps these numbers apart from the permutations of the order"""


@dataclass(frozen=True)
class Augmentation:
    """Random changes of whole train windows, for scalar fields; all off by default.

    Components of a vector (wind, flow direction) change sign or place when the grid turns: leave
    turns and mirrors off for them.
    """

    flip_rows: bool = False
    """mirror north and south, each window with probability 1/2"""
    flip_columns: bool = False
    """mirror east and west, each window with probability 1/2"""
    rot90: bool = False
    """turn by 0, 90, 180 or 270 degrees, each equally likely; square grids only"""
    roll_columns: bool = False
    """shift by any number of columns around the globe; grids that span all longitudes only"""

    @property
    def active(self) -> bool:
        """Whether any change is switched on."""
        return any(getattr(self, field.name) for field in fields(self))

    def check(self, height: int, width: int, longitudes: np.ndarray | None = None) -> None:
        """Raise UsageError if the grid does not allow a change.

        Turns need a square grid. Rolls need columns that go around the globe.

        Parameters
        ----------
        longitudes
            (width,) degrees; None if the columns are not longitudes.
        """
        if self.rot90 and height != width:
            raise UsageError(
                f"rot90 turns square grids, and this one is {height} x {width}",
                remedy="leave rot90 out, or use flip_rows and flip_columns",
            )
        if self.roll_columns and not _closes(longitudes, width):
            raise UsageError(
                "roll_columns shifts around the globe, and the columns of this grid do not go "
                "around it",
                remedy="leave roll_columns out",
            )

    def apply(
        self, frames_btchw: np.ndarray, lanes: np.ndarray, *, seed: int, epoch: int, step: int
    ) -> None:
        """Change windows in place.

        Parameters
        ----------
        frames_btchw
            (b, T, C, H, W), C-contiguous.
        lanes
            (b,) lane of each window in the global batch.
        """
        for window_tchw, lane in zip(frames_btchw, lanes.tolist(), strict=True):
            changed = self._change(window_tchw, _draws(seed, epoch, step, lane))
            if changed is not window_tchw:
                # `changed` may be a view of the window that it is written to.
                window_tchw[...] = changed.copy()

    def moved(
        self, fields_shw: np.ndarray, lanes: np.ndarray, *, seed: int, epoch: int, step: int
    ) -> np.ndarray:
        """Return static fields (S, H, W) changed like the windows in `apply`, (b, S, H, W)."""
        copies = [
            self._change(fields_shw, _draws(seed, epoch, step, lane)) for lane in lanes.tolist()
        ]
        return np.stack(copies) if copies else np.empty((0, *fields_shw.shape), fields_shw.dtype)

    def _change(self, window_tchw: np.ndarray, words: np.ndarray) -> np.ndarray:
        rows, columns, turns, shift = (int(word >> np.uint64(11)) for word in words)
        if self.flip_rows and rows % 2:
            window_tchw = window_tchw[..., ::-1, :]
        if self.flip_columns and columns % 2:
            window_tchw = window_tchw[..., ::-1]
        if self.rot90 and turns % 4:
            window_tchw = np.rot90(window_tchw, turns % 4, axes=(-2, -1))
        if self.roll_columns:
            window_tchw = np.roll(window_tchw, shift % window_tchw.shape[-1], axis=-1)
        return window_tchw


def _draws(seed: int, epoch: int, step: int, lane: int) -> np.ndarray:
    return np.random.Philox(np.random.SeedSequence((_STREAM, seed, epoch, step, lane))).random_raw(
        4
    )


def _closes(longitudes: np.ndarray | None, width: int) -> bool:
    """Return whether one column more would be the first column again."""
    if longitudes is None or len(longitudes) != width or width < 2:
        return False
    steps = np.diff(longitudes.astype(float))
    return bool(np.allclose(steps, steps[0], rtol=1e-3) and np.isclose(abs(steps[0]) * width, 360))
