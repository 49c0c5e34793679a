"""Planning of static fields: which file holds each, how it comes to the store's grid. Pure.

A static field is an array ``(y, x)`` of the store without time: one object, one ledger record,
whose ``key`` names everything that its bytes depend on, as a shard's does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines import cf
from pipelines.archives.contents import StaticVariable, VariableIndex
from pipelines.area_average import AreaAverage
from pipelines.conversion.plan import CONVERTER_VERSION, Plan
from pipelines.errors import SourceError, UsageError
from pipelines.stores.shards import COMPRESSION

Asked = Sequence[tuple[str, float | None]]
"""names of static fields, each with the value that its missing pixels take; None: none may be"""

_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class StaticTask:
    """One static field of a store."""

    variable: StaticVariable
    """as the source has it"""
    shape: tuple[int, int]
    """(y, x) of the store"""
    average: AreaAverage | None
    """from the source's grid to the store's; None: they are the same"""
    fill: float | None
    """what missing pixels become, once averaged; None: a field with missing pixels is refused"""
    key: str
    """sha256 of all that the field's bytes depend on"""

    @property
    def name(self) -> str:
        """As the source calls it."""
        return self.variable.name

    @property
    def object_name(self) -> str:
        """The one chunk's place in the store."""
        return f"{self.name}/c/0/0"

    @property
    def attributes(self) -> dict[str, Any]:
        """Of the array, without its statistics."""
        kept = cf.variable_attributes(self.name, self.variable.attributes)
        if self.average is not None:
            kept["cell_methods"] = f"{kept.get('cell_methods', '')} area: mean".strip()
        return kept if self.fill is None else kept | {"missing_pixels_set_to": self.fill}


def parse_static(text: str) -> tuple[str, float | None]:
    """A static field as it stands on the command line.

    >>> parse_static("lsm"), parse_static("slt=0")
    (('lsm', None), ('slt', 0.0))

    Raises
    ------
    UsageError
        What stands after = is no number.
    """
    name, equals, value = text.partition("=")
    try:
        fill = float(value) if equals else None
        if name and (fill is None or np.isfinite(fill)):
            return name, fill
    except ValueError:
        pass
    raise UsageError(
        f"'{text}' names no static field",
        where="--static_fields",
        remedy="give NAME, or NAME=VALUE with the value of missing pixels, such as slt=0",
    )


def static_tasks(
    fields: Sequence[StaticVariable], asked: Asked, source_grid: VariableIndex, plan: Plan
) -> tuple[StaticTask, ...]:
    """What is to be done for the static fields ``asked`` of a plan.

    Parameters
    ----------
    fields:
        One for each that is asked.
    source_grid:
        A variable of the archive as the source has it, before any regridding.
    plan:
        Of the frames.

    Raises
    ------
    SourceError
        A field lies neither on the source's grid nor on the store's.
    UsageError
        A name is a variable's or a coordinate's.
    """
    store_grid, average = plan.index.variables[0], plan.layouts[0].average
    taken = {*(v.name for v in plan.index.variables), *store_grid.dims, *_RESERVED}
    tasks = []
    for field, (name, fill) in zip(fields, asked, strict=True):
        if name in taken:
            raise UsageError(
                f"'{name}' is a variable or a coordinate of the store already",
                where="--static_fields",
                remedy="leave it out of one of the two, or rename it in its file",
            )
        height, width = store_grid.shape[-2:]
        on_source = difference(field, source_grid) is None
        own_average = average if on_source else None
        if not on_source and (average is None or difference(field, store_grid) is not None):
            raise _other_grid(field, source_grid)
        key = _key(field, (height, width), own_average, fill)
        tasks.append(StaticTask(field, (height, width), own_average, fill, key))
    return tuple(tasks)


_RESERVED = ("time", "sample", "available", "missing_fraction", cf.GRID_MAPPING)


def difference(field: StaticVariable, frames: VariableIndex) -> str | None:
    """How the field's grid differs from the frames', in words; None: it does not."""
    dims, shape = frames.dims[-2:], frames.shape[-2:]
    if (field.dims, field.shape) != (dims, shape):
        return "the sizes differ"
    for dim in dims:
        own, other = field.coordinates.get(dim), frames.coordinates.get(dim)
        if own is None or other is None:
            continue
        close = np.isclose(own.astype(float), other.astype(float), _TOLERANCE, _TOLERANCE)
        if not close.all():
            at = int(np.argmin(close))
            return f"{dim} at index {at} is {own[at]:g} and {other[at]:g}"
    return None


def _other_grid(field: StaticVariable, frames: VariableIndex) -> SourceError:
    grids = [_shown(g.dims[-2:], g.shape[-2:], g.coordinates) for g in (field, frames)]
    return SourceError(
        f"static field '{field.name}' is on another grid than the frames: ({grids[0]}), and the "
        f"frames ({grids[1]}): {difference(field, frames)}",
        where=field.file.uri,
        remedy="give a --static_source on the frames' grid, in their order of rows and columns; "
        "with --regrid it may also be on the store's",
    )


def _shown(dims: Sequence[str], shape: Sequence[int], coordinates: Mapping[str, np.ndarray]) -> str:
    parts = []
    for dim, size in zip(dims, shape, strict=True):
        values = coordinates.get(dim)
        ends = "" if values is None else f" from {values[0]:g} to {values[-1]:g}"
        parts.append(f"{dim} {size}{ends}")
    return ", ".join(parts)


def _key(
    field: StaticVariable,
    shape: tuple[int, int],
    average: AreaAverage | None,
    fill: float | None,
) -> str:
    content = {
        "version": CONVERTER_VERSION,
        "compression": COMPRESSION,
        "static": field.name,
        "shape": shape,
        # Where the file lies is no part of its content.
        "source": field.file.as_dict() | {"uri": field.file.name},
        "average": None if average is None else average.digest(),
        "fill": fill,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
