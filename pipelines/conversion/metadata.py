"""Everything of a store but its shards: coordinates, flags and metadata, as objects in memory.

They are composed here, all at once, and written by :mod:`pipelines.conversion.convert` when every
shard stands: arrays first, the root with its consolidated metadata last.
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
from pipelines.conversion.plan import CONVERTER_VERSION, Plan, VariableLayout
from pipelines.conversion.static_shards import declare as declare_static
from pipelines.stores.ledger import ShardRecord
from pipelines.stores.shards import COMPRESSION
from pipelines.stores.statistics import (
    COUNT,
    MAX,
    MIN,
    NANS,
    Moments,
    blocks,
    describe_period,
    fingerprint,
)
from pipelines.timeline.clips import SPLITS_UNIT

ROOT = "zarr.json"
GROWING_CHUNK = 65_536
"""frames a chunk of the arrays along time only; fixed, so that an append rewrites few objects"""


def compose(
    plan: Plan,
    moments: Mapping[str, Moments],
    unreadable: Mapping[str, np.ndarray] | None = None,
    fields: Mapping[str, ShardRecord] | None = None,
) -> dict[str, bytes]:
    """The objects of a finished store by name, without shards; ``zarr.json`` is the last.

    Parameters
    ----------
    moments:
        variable -> those of its whole time axis.
    unreadable:
        variable -> int64 (n,): frames that the source holds but could not be read.
    fields:
        static field -> its record.
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
        _declare(root, layout, attributes)
    declare_static(root, plan, fields or {})
    objects = {name: _bytes(memory, name) for name in _names(memory) if name != ROOT}
    attributes = _root_attributes(plan, moments, flags)
    objects[ROOT] = _root_document(objects, attributes)
    return objects


def frame_flags(
    plan: Plan,
    moments: Mapping[str, Moments],
    unreadable: Mapping[str, np.ndarray],
) -> np.ndarray:
    """The ``available`` flag of every frame: uint8 (frames,).

    A frame is missing where the source lacks it, or holds no value at all, for a variable that has
    values elsewhere; it is out of range where a value lies outside the limits that the source
    declares, or is infinite.
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
    """The largest fraction over the variables of pixels without a value: float32 (frames,)."""
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


def _declare(root: zarr.Group, layout: VariableLayout, attributes: Mapping[str, Any]) -> None:
    root.create_array(
        layout.name,
        shape=layout.array_shape(layout.frames),
        chunks=layout.array_shape(layout.chunk_frames),
        shards=layout.array_shape(layout.shard_frames),
        dtype="float32",
        fill_value=np.nan,
        dimension_names=layout.array_dims,
        compressors=[BloscCodec(typesize=4, **COMPRESSION)],  # pyright: ignore[reportArgumentType]
        attributes=dict(attributes),
    )


_Values = Callable[[int, int], np.ndarray]
"""frames [start, stop) -> one value each"""


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
    """Write one value a frame, a chunk at a time."""
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
        # What a lost object reads as, so that it is noticed: no time follows itself.
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
        # Zarr calls variable-length strings unspecified; every reader of version 3 has them.
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
    """A scalar that carries the projection, as CF has it."""
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
