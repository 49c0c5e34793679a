"""Arrays with dimensions and attributes, for CF stores of forecasts and of errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pipelines.stores.store import Store


@dataclass(frozen=True)
class Field:
    """An array of a store: a forecast quantity or a coordinate."""

    dims: tuple[str, ...]
    attributes: Mapping[str, Any]
    values: np.ndarray | None = None
    """of a coordinate; None: float32, written forecast by forecast"""
    shape: tuple[int, ...] = ()
    """of a forecast quantity, (init times, lead times, ..., rows, columns)"""


def grid_fields(store: Store) -> dict[str, Field]:
    """Return coordinates of the grid, levels, channels and the projection, as the store has them.

    Variables, static fields and everything along the time are left out.
    """
    source = store.dataset()
    fields: dict[str, Field] = {}
    for name, variable in source.variables.items():
        described = name in store.variables or name in store.static_fields
        if described or {"time", "sample"} & {*map(str, variable.dims)}:
            continue
        dims = tuple(str(dim) for dim in variable.dims)
        attributes = {key: value for key, value in variable.attrs.items() if key != "_FillValue"}
        fields[str(name)] = Field(dims, attributes, np.asarray(variable.values))
    return fields
