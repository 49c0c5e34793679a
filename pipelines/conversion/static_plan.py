"""Plan static fields: which file holds each of them, and how it comes to the store's grid.

A static field is an array `(y, x)` of the store without time: one object with one ledger record.
Its `key` is a digest of everything that its bytes depend on, like the key of a shard. Planning is
pure: nothing here reads or writes.
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
from pipelines.errors import SourceError, UsageError
from pipelines.stores.shards import COMPRESSION, CONVERTER_VERSION, object_name

Asked = Sequence[tuple[str, float | None]]
"""names of static fields, each with the value for missing pixels; None: no pixel may be missing"""

_TOLERANCE = 1e-6
"""relative and absolute difference of coordinates that still count as the same"""


@dataclass(frozen=True, eq=False)
class StaticTask:
    """One static field of a store."""

    variable: StaticVariable
    """the field as the source has it"""
    shape: tuple[int, int]
    """(y, x) on the store's grid"""
    average: AreaAverage | None
    """average from the source's grid to the store's; None: the grids are the same"""
    fill: float | None
    """value for pixels that are missing after averaging; None: a missing pixel is an error"""
    key: str
    """sha256 of everything that the field's bytes depend on"""

    @property
    def name(self) -> str:
        """The name of the field in the source."""
        return self.variable.name

    @property
    def object_name(self) -> str:
        """The name of the field's only chunk in the store."""
        return object_name(self.name, 0, len(self.shape))

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes of the array, without its statistics."""
        kept = cf.variable_attributes(self.name, self.variable.attributes)
        if self.average is not None:
            kept["cell_methods"] = f"{kept.get('cell_methods', '')} area: mean".strip()
        return kept if self.fill is None else kept | {"missing_pixels_set_to": self.fill}


def parse_static(text: str) -> tuple[str, float | None]:
    """Return name and value for missing pixels of a static field, as the command line names it.

    Raises
    ------
    UsageError
        The text after `=` is not a number.

    Examples
    --------
    >>> parse_static("lsm"), parse_static("slt=0")
    (('lsm', None), ('slt', 0.0))
    """
    name, equals, value = text.partition("=")
    try:
        fill = float(value) if equals else None
        if name and (fill is None or np.isfinite(fill)):
            return name, fill
    except ValueError:
        pass
    raise UsageError(
        f"'{text}' does not name a static field",
        where="--static_fields",
        remedy="give NAME, or NAME=VALUE with the value of missing pixels, such as slt=0",
    )


def static_tasks(
    fields: Sequence[StaticVariable],
    asked: Asked,
    source_grid: VariableIndex,
    variables: Sequence[VariableIndex],
    average: AreaAverage | None,
) -> tuple[StaticTask, ...]:
    """Return the task of each static field in `asked`.

    Parameters
    ----------
    fields
        The fields as the source has them, in the order of `asked`.
    source_grid
        A variable of the archive on the source's grid.
    variables
        The variables of the store, on the store's grid.
    average
        Average from the source's grid to the store's; None: the grids are the same.

    Raises
    ------
    SourceError
        A field is neither on the source's grid nor on the store's.
    UsageError
        A field has the name of a variable or a coordinate.
    """
    store_grid = variables[0]
    taken = {*(variable.name for variable in variables), *store_grid.dims, *_RESERVED}
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
    """Return how the field's grid differs from that of the frames, as a text; None: not at all."""
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
        # The place of the file is not part of its content.
        "source": field.file.as_dict() | {"uri": field.file.name},
        "average": None if average is None else average.digest(),
        "fill": fill,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
