"""What every protocol shares: sums per lead time, added batch by batch and part by part.

Every score of the suite is a function of sums over frames or pixels: a protocol says which sums a
batch contributes and how sums become scores. Sums of two parts of a test set add, so scores of
shards, workers or batches merge into those of one pass, and the score over all leads comes from
the sum of the sums of the leads.

Array axes: N windows, T lead times, C channels, H rows, W columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float64]

Sums = dict[str, Field]
"""Named sums; in a batch and in an accumulator one value a lead time, shape (T,), or a row of
values a lead time, shape (T, K), for what is drawn as a curve."""

FRAME_AXES = (-3, -2, -1)


@dataclass(frozen=True)
class Curve:
    """What a score that is drawn, not printed, runs over."""

    label: str
    """name of the axis"""
    units: str
    """its units"""
    positions: tuple[float, ...]
    """(K,) places on the axis"""


class StreamingMetrics(ABC):
    """Scores of a stream of forecasts in float64, overall and per lead time.

    An accumulator is a plain object: pickled, it carries its options and its sums, so that a worker
    may return it and the driver merge it.
    """

    windows_at_once: int | None = 1
    """Windows that `batch_sums` is given. One stays in the processor's cache, and makes the sums
    independent of how the windows were batched; None: the whole batch."""

    def __init__(self) -> None:
        self._sums: Sums = {}

    @abstractmethod
    def batch_sums(self, pred: Field, true: Field, climatology: Field | None) -> Sums:
        """The sums of one batch: arrays (N, T, C, H, W) in, one (T,) array a name out."""

    @abstractmethod
    def scores(self, sums: Sums) -> Sums:
        """Scores from sums, elementwise: the same for one lead time and for all together.

        Sums without the rows of curves give the scores that need no rows.
        """

    def overall(self, sums: Sums) -> Sums:
        """Scores over all lead times, from sums whose first axis are the lead times."""
        return self.scores({name: np.asarray(value.sum(axis=0)) for name, value in sums.items()})

    def curves(self, sums: Sums) -> Sums:
        """Rows of scores from sums, shape (..., K), for one lead time and for all together."""
        return {}

    def axis_of(self, curve: str, sums: Sums) -> Curve:
        """The axis of one of `curves`; KeyError where the protocol has no such curve."""
        raise KeyError(curve)

    def update(self, pred: Any, true: Any, climatology: Any = None) -> None:
        """Add a batch.

        Parameters
        ----------
        pred, true:
            Arrays or tensors (N, T, C, H, W) in physical units; a pixel that is NaN in ``true`` is
            missing.
        climatology:
            Climatology at the same valid times, broadcastable to ``true``; only protocol
            ``weather`` uses it, for the anomaly correlation.

        Raises
        ------
        ValueError
            The shapes differ, or the number of lead times is not that of the batches before.
        """
        for sums in self.parts(pred, true, climatology):
            self.add(sums)

    def parts(self, pred: Any, true: Any, climatology: Any = None) -> Iterator[Sums]:
        """The sums of a batch, window by window (`windows_at_once`); arguments as of `update`."""
        pred, true = on_host(pred), on_host(true)
        self.check_shapes(pred.shape, true.shape)
        if climatology is not None:
            climatology = np.broadcast_to(on_host(climatology), true.shape)
        size = self.windows_at_once or max(1, len(true))
        for first in range(0, len(true), size):
            part = slice(first, first + size)
            yield self.batch_sums(
                as_float64(pred[part]),
                as_float64(true[part]),
                None if climatology is None else as_float64(climatology[part]),
            )

    def check_shapes(self, pred: tuple[int, ...], true: tuple[int, ...]) -> None:
        """Raise ValueError unless forecast and truth can be compared."""
        if pred != true or len(true) != 5:
            raise ValueError(f"forecast {pred} and truth {true} must be one shape (N, T, C, H, W)")

    def merge(self, other: StreamingMetrics) -> None:
        """Add what another accumulator of the same protocol and options has seen."""
        if type(other) is not type(self) or other.options() != self.options():
            raise ValueError(
                f"cannot merge scores of {type(other).__name__} {other.options()} into "
                f"{type(self).__name__} {self.options()}: use one protocol with one set of options"
            )
        self.add(other._sums)

    def options(self) -> Mapping[str, Any]:
        """The options that the scores depend on; two accumulators merge only if they are equal."""
        return {}

    def result(self) -> dict[str, Any]:
        """What has been seen so far, as plain numbers; of nothing seen, NaN.

        Returns
        -------
        dict
            ``overall``: {name: float}; ``per_lead``: {name: [float] * T}; and, for protocols that
            have curves, ``curves``: {name: {label, units, positions, overall, per_lead}} with K
            numbers in positions and overall, and T rows of K numbers in per_lead.
        """
        if not self._sums:
            return {"overall": {}, "per_lead": {}}
        totals = {name: np.asarray(value.sum(axis=0)) for name, value in self._sums.items()}
        with np.errstate(divide="ignore", invalid="ignore"):
            overall, per_lead = self.overall(self._sums), self.scores(self._sums)
            rows, rows_per_lead = self.curves(totals), self.curves(self._sums)
        result: dict[str, Any] = {
            "overall": {name: float(value) for name, value in overall.items()},
            "per_lead": {name: value.tolist() for name, value in per_lead.items()},
        }
        if rows:
            result["curves"] = {}
        for name, values in rows.items():
            axis = self.axis_of(name, totals)
            result["curves"][name] = {
                "label": axis.label,
                "units": axis.units,
                "positions": list(axis.positions),
                "overall": values.tolist(),
                "per_lead": rows_per_lead[name].tolist(),
            }
        return result

    def add(self, sums: Sums) -> None:
        """Add sums as `parts` gives them, of the same protocol and options."""
        for name, value in sums.items():
            seen = self._sums.get(name)
            if seen is not None and len(seen) != len(value):
                raise ValueError(f"a batch of {len(value)} lead times after batches of {len(seen)}")
            if seen is not None and seen.shape != value.shape:
                raise ValueError(
                    f"sums '{name}' of {value.shape[1:]} after sums of {seen.shape[1:]}: score "
                    "frames of one size and ensembles of one size together"
                )
            self._sums[name] = value.copy() if seen is None else seen + value


def on_host(values: Any) -> NDArray[Any]:
    """An array, or a tensor of any device and precision, as an array."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        # NumPy has no bfloat16.
        values = values.float() if values.itemsize < 4 else values
    return np.asarray(values)


def as_float64(values: Any) -> NDArray[np.float64]:
    """An array or a tensor in double precision."""
    return np.asarray(on_host(values), dtype=np.float64)


def by_lead(values: NDArray[Any]) -> NDArray[np.float64]:
    """Sum over everything but the lead times: (N, T, ...) -> (T,)."""
    axes = (0, *range(2, values.ndim))
    return np.asarray(values.sum(axis=axes, dtype=np.float64), dtype=np.float64)


def frames_in(values: NDArray[Any]) -> NDArray[np.float64]:
    """The number of frames per lead time, shape (T,)."""
    return np.full(values.shape[1], values.shape[0], dtype=np.float64)
