"""Compose every object of a store except its shards, in memory: coordinates, flags and metadata.

`pipelines.conversion.finish` writes them when all shards are there.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, ZstdCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from pipelines import cf
from pipelines.conversion.plan import Plan, VariableLayout
from pipelines.stores.ledger import ShardRecord
from pipelines.stores.moments import COUNT, MAX, MIN, NANS, SQUARES, SUM, Moments, blocks
from pipelines.stores.shards import COMPRESSION, CONVERTER_VERSION
from pipelines.stores.statistics import describe_period, fingerprint
from pipelines.stores.writer import ROOT
from pipelines.timeline.clips import SPLITS_UNIT

GROWING_CHUNK = 65_536
"""frames per chunk of arrays along time only; fixed, so that an append rewrites few objects"""

_BLOSC: Any = BloscCodec(typesize=4, **COMPRESSION)  # pyright: ignore[reportArgumentType]


def compose(
    plan: Plan,
    moments: Mapping[str, Moments],
    unreadable: Mapping[str, np.ndarray] | None = None,
    fields: Mapping[str, ShardRecord] | None = None,
) -> dict[str, bytes]:
    """Return the objects of a finished store by name, without shards; the root is the last.

    Parameters
    ----------
    moments
        Moments of the whole time axis, by variable.
    unreadable
        Frames that the source has but that could not be read, int64 (n,), by variable.
    fields
        Ledger records of the static fields, by name.
    """
    memory = MemoryStore()
    root = zarr.create_group(memory, zarr_format=3)
    flags = frame_flags(plan, moments, unreadable or {})
    clips = plan.index.clips
    if clips is None:
        _along_time(root, "time", plan.times.dtype, _of(plan.times), plan, cf.TIME)
    else:
        _write_coordinate(root, "sample", clips.ids)
        _write_coordinate(root, "time", clips.offsets, cf.clip_time(clips.timed))
    fractions = partial(missing_fraction, plan, moments)
    _along_time(root, "available", flags.dtype, _of(flags), plan, cf.AVAILABLE)
    _along_time(root, "missing_fraction", np.float32, fractions, plan, cf.MISSING_FRACTION)
    mapping = plan.index.grid_mapping
    for dim, values in _coordinates(plan).items():
        projected = cf.PROJECTED.get(dim) if mapping else None
        _write_coordinate(root, dim, values, projected)
    if mapping:
        _write_grid_mapping(root, mapping)
    for variable, layout in zip(plan.index.variables, plan.layouts, strict=True):
        attributes = cf.variable_attributes(variable.name, variable.attributes)
        if mapping:
            attributes["grid_mapping"] = cf.GRID_MAPPING
        _declare_variable(root, layout, attributes)
    _declare_static(root, plan, fields or {})
    objects = {name: _bytes(memory, name) for name in _names(memory) if name != ROOT}
    attributes = _root_attributes(plan, moments, flags)
    objects[ROOT] = _root_document(objects, attributes)
    return objects


def frame_flags(
    plan: Plan,
    moments: Mapping[str, Moments],
    unreadable: Mapping[str, np.ndarray],
) -> np.ndarray:
    """Return the `available` flag of every frame, uint8 (frames,).

    A frame is flagged as missing if, for a variable that has values elsewhere, the source does not
    have the frame or the frame has no value. It is out of range if a value is infinite or outside
    the limits that the source declares.
    """
    flags = np.full(len(plan.times), cf.OK, np.uint8)
    for variable in plan.index.variables:
        low, high = cf.valid_range(cf.variable_attributes(variable.name, variable.attributes))
        empty = np.zeros(len(flags), bool)
        for part, block in blocks(moments[variable.name], 0, len(flags)):
            with np.errstate(invalid="ignore"):
                outside = ((block[..., MIN] < low) | (block[..., MAX] > high)).any(axis=1)
            flags[part][outside] = cf.OUT_OF_RANGE
            empty[part] = ~block[..., COUNT].any(axis=1)
        absent = ~plan.held[variable.name]
        if not empty.all():
            absent |= empty
        flags[absent] = cf.MISSING_IN_SOURCE
    for frames in unreadable.values():
        flags[frames] = cf.UNREADABLE
    return flags


def missing_fraction(
    plan: Plan, moments: Mapping[str, Moments], start: int, stop: int
) -> np.ndarray:
    """Return the fraction of pixels without a value, float32 (frames,).

    It is that of the variable for which the fraction is largest.
    """
    largest = np.zeros(stop - start)
    for layout in plan.layouts:
        values = layout.channels * layout.pixels
        for part, block in blocks(moments[layout.name], start, stop):
            fraction = block[..., NANS].sum(axis=1) / values
            own = slice(part.start - start, part.stop - start)
            np.maximum(largest[own], fraction, out=largest[own])
    return largest.astype(np.float32)


def _root_attributes(
    plan: Plan, moments: Mapping[str, Moments], flags: np.ndarray
) -> dict[str, Any]:
    splits = plan.splits_record()
    frames = plan.train_frames & (flags == cf.OK)
    layered = {layout.name for layout in plan.layouts if len(layout.frame_shape) > 2}
    statistics = describe_period(moments, layered, frames, "train", splits["train"])
    return {
        "Conventions": cf.CONVENTIONS,
        "title": plan.index.title,
        "archive": plan.index.archive,
        "converter_version": CONVERTER_VERSION,
        "cadence_seconds": plan.cadence_seconds,
        "synthetic": plan.index.synthetic,
        **({"local_time": True} if plan.index.local_time else {}),
        "splits": splits,
        **({"splits_unit": SPLITS_UNIT} if plan.index.clips is not None else {}),
        "splits_origin": plan.splits.origin,
        "splits_embargo": plan.splits.embargo,
        "statistics": statistics,
        "statistics_fingerprint": fingerprint(statistics),
        "configuration": plan.configuration(),
    }


def _root_document(objects: Mapping[str, bytes], attributes: Mapping[str, Any]) -> bytes:
    metadata = {
        name.removesuffix("/zarr.json"): json.loads(content)
        for name, content in sorted(objects.items())
        if name.endswith("/zarr.json")
    }
    document = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": attributes,
        "consolidated_metadata": {
            "kind": "inline",
            "must_understand": False,
            "metadata": metadata,
        },
    }
    return json.dumps(document, indent=2, allow_nan=False).encode()


def _coordinates(plan: Plan) -> dict[str, np.ndarray]:
    coordinates: dict[str, np.ndarray] = {}
    for variable in plan.index.variables:
        for dim, values in variable.coordinates.items():
            coordinates.setdefault(dim, np.asarray(values))
    return coordinates


def _declare_variable(
    root: zarr.Group, layout: VariableLayout, attributes: Mapping[str, Any]
) -> None:
    root.create_array(
        layout.name,
        shape=layout.array_shape(layout.frames),
        chunks=layout.array_shape(layout.chunk_frames),
        shards=layout.array_shape(layout.shard_frames),
        dtype="float32",
        fill_value=np.nan,
        dimension_names=layout.array_dims,
        compressors=[_BLOSC],
        attributes=dict(attributes),
    )


def _declare_static(root: zarr.Group, plan: Plan, records: Mapping[str, ShardRecord]) -> None:
    """Create the arrays of the static fields, with their statistics as attributes."""
    for task in plan.static:
        record = records.get(task.name)  # None if a plan is only estimated
        attributes = task.attributes | (_static_statistics(record.moments) if record else {})
        if plan.index.grid_mapping:
            attributes["grid_mapping"] = cf.GRID_MAPPING
        root.create_array(
            task.name,
            shape=task.shape,
            chunks=task.shape,
            dtype="float32",
            fill_value=np.nan,
            dimension_names=task.variable.dims,
            compressors=[_BLOSC],
            attributes=attributes,
        )


def _static_statistics(moments: np.ndarray) -> dict[str, float]:
    row = moments[0, 0]
    return {
        "mean": float(row[SUM] / row[COUNT]),
        "std": float(np.sqrt(row[SQUARES] / row[COUNT])),
        "min": float(row[MIN]),
        "max": float(row[MAX]),
    }


_Values = Callable[[int, int], np.ndarray]
"""a function of (start, stop) that returns one value for each of the frames [start, stop)"""


def _of(values: np.ndarray) -> _Values:
    return lambda start, stop: values[start:stop]


def _along_time(
    root: zarr.Group,
    name: str,
    dtype: Any,
    values: _Values,
    plan: Plan,
    attributes: Mapping[str, Any],
) -> None:
    """Create an array of one value per frame, and write it a chunk at a time."""
    frames, clips = len(plan.times), plan.index.clips
    dims, clip = ("time",), 1
    if clips is not None:
        dims, clip = ("sample", "time"), clips.frames
    step = max(1, GROWING_CHUNK // clip)
    tail = () if clips is None else (clip,)
    array = root.create_array(
        name,
        shape=(frames // clip, *tail),
        chunks=(step, *tail),
        dtype=dtype,
        # A lost object reads as this value. It is never valid, so that `open_store` notices: NaN, a
        # flag that nothing has, or the same time twice.
        fill_value={"f": np.nan, "u": cf.NO_FLAG}.get(np.dtype(dtype).kind, 0),
        dimension_names=dims,
        compressors=[ZstdCodec(level=3)],
        attributes=dict(attributes),
        config={"write_empty_chunks": True},
    )
    for first in range(0, frames // clip, step):
        end = min(first + step, frames // clip)
        array[first:end] = values(first * clip, end * clip).reshape(-1, *tail)


def _write_coordinate(
    root: zarr.Group, dim: str, values: np.ndarray, attributes: Mapping[str, Any] | None = None
) -> None:
    if values.dtype.kind in "OSU":
        values = values.astype(np.dtypes.StringDType())
    with warnings.catch_warnings():
        # Zarr warns that variable-length strings are not in its specification yet; every reader
        # of version 3 has them.
        warnings.simplefilter("ignore")
        array = root.create_array(
            dim,
            shape=values.shape,
            chunks=values.shape,
            dtype=values.dtype,
            dimension_names=(dim,),
            compressors=None,
            attributes=dict(attributes or cf.coordinate_attributes(dim)),
            config={"write_empty_chunks": True},
        )
        array[:] = values


def _write_grid_mapping(root: zarr.Group, attributes: Mapping[str, Any]) -> None:
    """Create a scalar whose attributes are the projection, as in the CF conventions."""
    root.create_array(
        cf.GRID_MAPPING,
        shape=(),
        dtype="int8",
        fill_value=0,
        dimension_names=(),
        compressors=None,
        attributes=dict(attributes),
    )


def _names(memory: MemoryStore) -> list[str]:
    async def collect() -> list[str]:
        return [name async for name in memory.list()]

    return sorted(sync(collect()))


def _bytes(memory: MemoryStore, name: str) -> bytes:
    buffer = sync(memory.get(name, default_buffer_prototype()))
    if buffer is None:
        raise KeyError(name)
    return buffer.to_bytes()
