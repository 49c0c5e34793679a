"""What models are given in place of physical values, and what their forecasts are taken back to.

Per-channel constants of a store's train period, and on request its climatological normals: a model
of anomalies sees and forecasts what departs from what is usual at the place and time.

The constants come from the train period alone. A dimension named ``channel`` or ``member`` shares
the constants of its variable, because its entries measure the same quantity on the same scale; any
other extra dimension (a pressure level) has constants of its own per entry.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from pipelines.errors import StoreError, UsageError, nearest
from pipelines.inputs.climatology import Climatology
from pipelines.timeline.splits import split_text

if TYPE_CHECKING:
    from pipelines.stores.store import Store, VariableInfo

Kind = Literal["standardise", "minmax"]

POOLED_DIMS = ("channel", "member")


@dataclass(frozen=True)
class Normalisation:
    """``(x - offset) / scale`` channel by channel, less the normals at its time, in float32."""

    kind: Kind
    """``standardise``: zero mean and unit variance on train; ``minmax``: [0, 1] on train."""
    labels: tuple[str, ...]
    """(C,) names of the channels, such as ``t2m`` or ``z[500]``."""
    offset: tuple[float, ...]
    """(C,) physical units."""
    scale: tuple[float, ...]
    """(C,) physical units, never 0."""
    normals: Climatology | None = None
    """in normalised units, see :mod:`pipelines.inputs.normals`; None: models are given values, not
    anomalies"""

    def inputs(
        self, x_tchw: np.ndarray, times: np.ndarray, out: np.ndarray | None = None
    ) -> np.ndarray:
        """What a model is given for physical values: float32, and 0 where a pixel is missing.

        Parameters
        ----------
        x_tchw:
            (..., C, H, W), NaN where missing.
        times:
            (...) datetime64 of the frames; read only where there are normals.
        out:
            Where to, ``x_tchw`` itself perhaps; None: new memory.
        """
        result = self.apply(x_tchw, out)
        if self.normals is not None:
            result -= self.normals.at(times)
        return _without_nan(result)

    def outputs(self, y_tchw: np.ndarray, times: np.ndarray) -> np.ndarray:
        """A model's forecast (..., C, H, W) in physical units, float32.

        Parameters
        ----------
        times:
            (...) datetime64 of the frames that are forecast, or a shape that is repeated to theirs;
            read only where there are normals.
        """
        return self.invert(y_tchw if self.normals is None else y_tchw + self.normals.at(times))

    def filled(self, x_tchw: np.ndarray) -> np.ndarray:
        """(..., C, H, W) physical values with the constants' 0, the train period's mean or minimum,
        where a pixel is missing; float32."""
        return self.invert(_without_nan(self.apply(x_tchw)))

    def apply(self, x_tchw: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """By the constants alone, NaN kept: (..., C, H, W) physical values to float32.

        ``out`` may be ``x_tchw`` itself.
        """
        offset, scale = self._columns()
        result = np.subtract(x_tchw, offset, out=out, dtype=np.float32, casting="same_kind")
        return np.multiply(result, np.float32(1) / scale, out=result)

    def invert(self, x_tchw: np.ndarray) -> np.ndarray:
        """By the constants alone: (..., C, H, W) normalised values to physical units, float32."""
        offset, scale = self._columns()
        result = np.multiply(x_tchw, scale, dtype=np.float32, casting="same_kind")
        return np.add(result, offset, out=result)

    def _columns(self) -> tuple[np.ndarray, np.ndarray]:
        shape = (len(self.labels), 1, 1)
        return (
            np.asarray(self.offset, np.float32).reshape(shape),
            np.asarray(self.scale, np.float32).reshape(shape),
        )

    def as_dict(self) -> dict[str, Any]:
        """All but the table of the normals, as JSON and checkpoints can hold it."""
        record = {
            "kind": self.kind,
            "labels": list(self.labels),
            "offset": list(self.offset),
            "scale": list(self.scale),
        }
        if self.normals is None:
            return record
        return record | {"normals": self.normals.as_dict() | {"xxh3_128": self.normals.checksum}}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any], table: np.ndarray | None = None) -> Normalisation:
        """The inverse of :meth:`as_dict`, given the table of the normals where it had any."""
        known = record.get("normals", {})
        normals = None
        if table is not None:
            place = known["cycle"], known["slot_seconds"]
            normals = Climatology(table, *place, known.get("definition", ""))
        return cls(
            record["kind"],
            tuple(record["labels"]),
            tuple(float(value) for value in record["offset"]),
            tuple(float(value) for value in record["scale"]),
            normals,
        )

    @classmethod
    def from_store(cls, store: Store, variables: Sequence[str], kind: Kind) -> Normalisation:
        """The constants of a store's train period for the channels of ``variables``, in order.

        Raises
        ------
        UsageError
            An unknown variable or kind.
        StoreError
            The train period holds no value of a variable.
        """
        if kind not in get_args(Kind):
            raise UsageError(
                f"unknown normalisation '{kind}'", remedy=nearest(kind, get_args(Kind))
            )
        labels: list[str] = []
        offset: list[float] = []
        scale: list[float] = []
        for name in variables:
            info = store.variable(name)
            for label, moments in zip(
                info.channel_labels,
                _channel_moments(info, store.statistics["variables"][name]),
                strict=True,
            ):
                if not moments["count"]:
                    raise StoreError(
                        f"no value of '{label}' in the train period",
                        where=f"{store.uri}, {' to '.join(split_text(store.statistics['period']))}",
                        remedy="convert more of the archive, or name another train period with "
                        "a splits file (--splits)",
                    )
                low, width = (
                    (moments["mean"], moments["std"])
                    if kind == "standardise"
                    else (moments["min"], moments["max"] - moments["min"])
                )
                labels.append(label)
                offset.append(float(low))
                # A constant field normalises to 0 everywhere rather than to NaN.
                scale.append(float(width) or 1.0)
        return cls(kind, tuple(labels), tuple(offset), tuple(scale))


def _without_nan(x: np.ndarray) -> np.ndarray:
    """``x`` itself, its NaN set to 0."""
    # A sum is NaN where any value is, and costs less than a mask of all of them.
    if np.isnan(x.sum()):
        x[np.isnan(x)] = 0.0
    return x


def _channel_moments(info: VariableInfo, moments: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Moments for each flattened channel, pooled over the dimensions that share constants."""
    dims, sizes = info.extra_dims, info.extra_shape
    if all(dim in POOLED_DIMS for dim in dims):
        return [moments] * math.prod(sizes)
    indices = np.indices(sizes).reshape(len(sizes), -1).T
    own = [i for i, dim in enumerate(dims) if dim not in POOLED_DIMS]
    groups: dict[tuple[int, ...], list[Mapping[str, Any]]] = {}
    keys = [tuple(int(index[i]) for i in own) for index in indices]
    for key, channel in zip(keys, moments["channels"], strict=True):
        groups.setdefault(key, []).append(channel)
    pooled = {key: _pool(members) for key, members in groups.items()}
    return [pooled[key] for key in keys]


def _pool(members: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Moments of the union of disjoint sets of values."""
    filled = [member for member in members if member["count"]]
    if len(members) == 1 or not filled:
        return members[0]
    counts = np.array([member["count"] for member in filled], np.float64)
    means = np.array([member["mean"] for member in filled], np.float64)
    stds = np.array([member["std"] for member in filled], np.float64)
    mean = float(np.average(means, weights=counts))
    variance = float(np.average(stds**2 + (means - mean) ** 2, weights=counts))
    return {
        "count": int(counts.sum()),
        "mean": mean,
        "std": math.sqrt(variance),
        "min": min(member["min"] for member in filled),
        "max": max(member["max"] for member in filled),
    }
