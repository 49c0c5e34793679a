"""Maps of errors, added up window by window: bias and RMSE of every pixel and lead time.

Legend: B windows of a batch, S systems, T lead times, C channels, H W grid.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jobs.forecasts.scoring.scores import ErrorFields

MOST_BYTES = 2**30
"""Maps that would take more are not kept."""


class ErrorSums:
    """Sums of errors and of their squares where the truth exists, in double precision."""

    def __init__(self, systems: tuple[str, ...], shape_tchw: tuple[int, ...]):
        self.systems = systems
        self._count = np.zeros(shape_tchw, np.int64)
        self._signed = np.zeros((len(systems), *shape_tchw))
        self._squared = np.zeros((len(systems), *shape_tchw))

    @staticmethod
    def nbytes(systems: int, shape_tchw: tuple[int, ...]) -> int:
        """Bytes that the sums take."""
        return 8 * (2 * systems + 1) * int(np.prod(shape_tchw))

    def update(self, fields: Mapping[str, np.ndarray], truth_btchw: np.ndarray) -> None:
        """Add a batch; fields (B, T, C, H, W) by system."""
        for row, truth in enumerate(truth_btchw):
            seen = ~np.isnan(truth)
            self._count += seen
            for place, system in enumerate(self.systems):
                error = np.where(seen, np.subtract(fields[system][row], truth, dtype=np.float64), 0)
                self._signed[place] += error
                self._squared[place] += error * error

    def merge(self, other: ErrorSums) -> None:
        """Add what another has seen."""
        self._count += other._count
        self._signed += other._signed
        self._squared += other._squared

    def result(self) -> ErrorFields:
        """Bias and RMSE."""
        with np.errstate(invalid="ignore", divide="ignore"):
            bias, mse = self._signed / self._count, self._squared / self._count
        return ErrorFields(
            systems=self.systems,
            bias_stchw=bias.astype(np.float32),
            rmse_stchw=np.sqrt(mse).astype(np.float32),
            count_tchw=self._count,
        )
