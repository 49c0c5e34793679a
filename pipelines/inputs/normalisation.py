"""What a model reads in place of physical values, and how its forecasts become physical again.

A channel is scaled by constants of the train period of a store. On request the climatology is
subtracted too: a model of anomalies reads and forecasts what departs from the usual value at the
place and time. A model of values has to find the course of the day, the week or the year by itself,
which a few weeks of frames are too few for; without any skill, a model of anomalies is as good as
the climatology.

The constants come from the train period alone. A dimension named `channel` or `member` shares the
constants of its variable, because its entries measure the same quantity on the same scale. Any
other extra dimension (a pressure level) has its own constants per entry.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from pipelines.errors import StoreError, UsageError, nearest
from pipelines.inputs.climatology import Climatology, kept_climatology
from pipelines.timeline.splits import split_text

if TYPE_CHECKING:
    from pipelines.stores.reader import FrameReader
    from pipelines.stores.store import Store, VariableInfo

Kind = Literal["standardise", "minmax"]

POOLED_DIMS = ("channel", "member")
"""extra dimensions whose entries share constants"""
MAX_NORMALS_BYTES = 256 * 2**20
"""largest table of normals: every checkpoint holds it"""

_BLOCK_BYTES = 512 * 1024
"""bytes of frames that are normalised at a time: small enough to stay in the cache of a core"""


@dataclass(frozen=True)
class Normalisation:
    """`(x - offset) / scale` channel by channel, minus the normals at the time, in float32."""

    kind: Kind
    """`standardise`: zero mean and unit variance on train; `minmax`: [0, 1] on train"""
    labels: tuple[str, ...]
    """(C,) names of the channels, such as `t2m` or `z[500]`"""
    offset: tuple[float, ...]
    """(C,) in physical units"""
    scale: tuple[float, ...]
    """(C,) in physical units, never 0"""
    normals: Climatology | None = None
    """climatology in normalised units, see `with_normals`; None: models read values, not
    anomalies"""

    def inputs(
        self, x_tchw: np.ndarray, times: np.ndarray, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Return what a model reads for physical values: float32, 0 where a pixel is missing.

        Parameters
        ----------
        x_tchw
            (..., C, H, W) physical values. NaN is missing.
        times
            (...) datetime64 of the frames. They matter only if there are normals.
        out
            Memory for the result, which may be `x_tchw` itself. None: new memory.
        """
        result = self.apply(x_tchw, out)
        if self.normals is not None:
            result -= self.normals.at(times)
        return _without_nan(result)

    def outputs(self, y_tchw: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Return a model's forecast (..., C, H, W) in physical units, float32.

        Parameters
        ----------
        times
            (...) datetime64 of the forecast frames, or a shape that broadcasts to theirs. They
            matter only if there are normals.
        """
        return self.invert(y_tchw if self.normals is None else y_tchw + self.normals.at(times))

    def filled(self, x_tchw: np.ndarray) -> np.ndarray:
        """Return physical values (..., C, H, W) with missing pixels filled, float32.

        A missing pixel becomes what is 0 for a model: the mean of the train period for
        `standardise`, its minimum for `minmax`.
        """
        return self.invert(_without_nan(self.apply(x_tchw)))

    def apply(self, x_tchw: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Normalise physical values (..., C, H, W) by the constants alone; NaN stays NaN.

        `out` may be `x_tchw` itself.
        """
        offset, scale = self._columns()
        result = np.subtract(x_tchw, offset, out=out, dtype=np.float32, casting="same_kind")
        return np.multiply(result, np.float32(1) / scale, out=result)

    def invert(self, x_tchw: np.ndarray) -> np.ndarray:
        """Return normalised values (..., C, H, W) in physical units, by the constants alone."""
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
        """Return everything but the table of the normals, as JSON and checkpoints hold it."""
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
        """Return the normalisation that `as_dict` described.

        Parameters
        ----------
        table
            Table of the normals; None if there were none.
        """
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
        """Return the constants of a store's train period for the channels of `variables`.

        Raises
        ------
        UsageError
            A variable or the kind is unknown.
        StoreError
            The train period has no value of a variable.
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


def with_normals(constants: Normalisation, store: Store, variables: Sequence[str]) -> Normalisation:
    """Return a normalisation to anomalies, by the climatology of a store's train period.

    Parameters
    ----------
    constants
        Normalisation of the same variables without normals.

    Raises
    ------
    UsageError, StoreError
        As `pipelines.inputs.climatology.climatology`, or the table of the climatology is larger
        than `MAX_NORMALS_BYTES`.

    Examples
    --------
    >>> constants = Normalisation.from_store(store, ("t2m",), "standardise")  # doctest: +SKIP
    >>> normalisation = with_normals(constants, store, ("t2m",))  # doctest: +SKIP
    """
    usual = kept_climatology(store, variables, MAX_NORMALS_BYTES)
    # A pixel without any value in the train period has no normal: its anomaly is its value.
    table = np.nan_to_num(constants.apply(usual.table), copy=False)
    return replace(constants, normals=replace(usual, table=table))


class NormalisedReader:
    """A reader of frames as a model reads them: `FrameReader` with a normalisation on top.

    Examples
    --------
    >>> reader = NormalisedReader(FrameReader(store, ("t2m",)), normalisation)  # doctest: +SKIP
    >>> reader.read(0, 24, frames_tchw)  # doctest: +SKIP
    """

    def __init__(self, reader: FrameReader, normalisation: Normalisation):
        if len(normalisation.labels) != reader.frame_shape[0]:
            raise UsageError(
                f"the normalisation has {len(normalisation.labels)} channels "
                f"({', '.join(normalisation.labels)}) and the variables {reader.frame_shape[0]}",
                where=reader.store.uri,
                remedy="name the variables that the model was trained on, in their order",
            )
        self.store, self.variables, self.normalisation = (
            reader.store,
            reader.variables,
            normalisation,
        )
        self._reader = reader
        self.frame_shape, self.chunk_frames = reader.frame_shape, reader.chunk_frames
        self.frame_bytes, self.remote = reader.frame_bytes, reader.remote

    def read(self, first: int, last: int, out_tchw: np.ndarray) -> None:
        """Read frames [first, last) into `out_tchw`, (last - first, C, H, W) float32.

        Values are normalised. A missing pixel is 0.

        Raises
        ------
        StoreError
            As `FrameReader.read`.
        """
        self._reader.read(first, last, out_tchw)
        times = self.store.times[first:last]
        block = max(_BLOCK_BYTES // self.frame_bytes, 1)
        for begin in range(0, len(out_tchw), block):
            part = out_tchw[begin : begin + block]
            self.normalisation.inputs(part, times[begin : begin + block], out=part)


def _without_nan(x: np.ndarray) -> np.ndarray:
    """Set NaN in `x` to 0, in place, and return `x`."""
    # The sum is NaN if any value is NaN, and costs less than a mask of all values.
    if np.isnan(x.sum()):
        x[np.isnan(x)] = 0.0
    return x


def _channel_moments(info: VariableInfo, moments: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return moments for each flattened channel, pooled over the dimensions in `POOLED_DIMS`."""
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
    """Return the moments of the union of disjoint sets of values."""
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
