"""What every protocol shares: sums per lead time that are added batch by batch.

Every score is a function of sums over frames or pixels. A protocol defines which sums a batch
contributes, and how scores are computed from sums. The sums of two parts of a test set add up, so
scores of workers or batches merge into the scores of one pass. The score over all lead times comes
from the sums of the lead times, added.

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
"""Sums by name. In a batch and in an accumulator each has one value per lead time, shape (T,), or
for curves one row of K values per lead time, shape (T, K)."""

FRAME_AXES = (-3, -2, -1)


@dataclass(frozen=True)
class Curve:
    """The axis of a score that is drawn as a curve."""

    label: str
    """name of the axis"""
    units: str
    """units of the positions"""
    positions: tuple[float, ...]
    """(K,) positions on the axis"""


class StreamingMetrics(ABC):
    """Scores of a stream of forecasts in float64, overall and per lead time.

    An accumulator is a plain object. It can be pickled with its options and sums, so a worker can
    return it and the driver can merge it.
    """

    windows_at_once: int | None = 1
    """Windows per call of `batch_sums`; None: the whole batch. With 1 the arrays stay in the
    processor's cache, and the sums do not depend on how the windows were batched."""

    def __init__(self) -> None:
        self._sums: Sums = {}

    @abstractmethod
    def batch_sums(self, pred: Field, true: Field, climatology: Field | None) -> Sums:
        """Return the sums of one batch of arrays (N, T, C, H, W): an array (T,) or (T, K) each."""

    @abstractmethod
    def scores(self, sums: Sums) -> Sums:
        """Compute scores from sums, elementwise: of one lead time and of all together alike.

        If the sums (T, K) of curves are absent, the scores that need them are left out.
        """

    def overall(self, sums: Sums) -> Sums:
        """Compute the scores over all lead times from sums whose first axis is the lead time."""
        return self.scores({name: np.asarray(value.sum(axis=0)) for name, value in sums.items()})

    def curves(self, sums: Sums) -> Sums:
        """Compute curves (..., K) from sums, of one lead time and of all together alike."""
        return {}

    def axis_of(self, curve: str, sums: Sums) -> Curve:
        """Return the axis of one of `curves`; raise KeyError if there is no such curve."""
        raise KeyError(curve)

    def update(self, pred: Any, true: Any, climatology: Any = None) -> None:
        """Add a batch.

        Parameters
        ----------
        pred, true:
            Arrays or tensors (N, T, C, H, W) in physical units; a pixel that is NaN in `true` is
            missing.
        climatology:
            Climatology at the same valid times, broadcastable to `true`; only protocol
            `weather` uses it, for the anomaly correlation.

        Raises
        ------
        ValueError
            The shapes differ, or the number of lead times differs from earlier batches.
        """
        for sums in self.parts(pred, true, climatology):
            self.add(sums)

    def parts(self, pred: Any, true: Any, climatology: Any = None) -> Iterator[Sums]:
        """Yield the sums of a batch, `windows_at_once` windows each; arguments as for `update`."""
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
        """Raise ValueError unless forecast and truth have shapes that can be compared."""
        if pred != true or len(true) != 5:
            raise ValueError(
                f"forecast {pred} and truth {true} must have one shape (N, T, C, H, W)"
            )

    def merge(self, other: StreamingMetrics) -> None:
        """Add the sums of another accumulator of the same protocol and options.

        Raises
        ------
        ValueError
            The protocol, an option or a shape differs.
        """
        if type(other) is not type(self) or other.options() != self.options():
            raise ValueError(
                f"cannot merge scores of {type(other).__name__} {other.options()} into "
                f"{type(self).__name__} {self.options()}: use one protocol with one set of options"
            )
        self.add(other._sums)

    def options(self) -> Mapping[str, Any]:
        """Return the options that the scores depend on; `merge` compares them."""
        return {}

    def result(self) -> dict[str, Any]:
        """Return the scores of all batches so far as plain numbers; a score of nothing is NaN.

        Returns
        -------
        dict
            `overall`: {name: float}; `per_lead`: {name: [float] * T}. Both are empty before the
            first batch. Protocols with curves add `curves`: {name: {label, units, positions,
            overall, per_lead}}, with K numbers in `positions` and `overall` and T rows of K
            numbers in `per_lead`.
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
        """Add sums that `parts` yielded, here or in another process with the same options.

        Raises
        ------
        ValueError
            The number of lead times or another shape differs from the sums so far.
        """
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
    """Return an array, or a tensor of any device and precision, as a NumPy array."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        # NumPy has no bfloat16.
        values = values.float() if values.itemsize < 4 else values
    return np.asarray(values)


def as_float64(values: Any) -> NDArray[np.float64]:
    """Return an array or a tensor as a NumPy array in double precision."""
    return np.asarray(on_host(values), dtype=np.float64)


def by_lead(values: NDArray[Any]) -> NDArray[np.float64]:
    """Sum over all axes except the lead time: (N, T, ...) -> (T,)."""
    axes = (0, *range(2, values.ndim))
    return np.asarray(values.sum(axis=axes, dtype=np.float64), dtype=np.float64)


def frames_in(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return the number of frames per lead time, shape (T,)."""
    return np.full(values.shape[1], values.shape[0], dtype=np.float64)
