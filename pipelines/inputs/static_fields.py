"""Static fields of a store as a model reads them: normalised, with fingerprints.

They are the same for every frame, so that batches do not carry them: a model is given them once.
Four more fields, `DERIVED`, are computed from the coordinates of the store.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from pipelines.errors import StoreError, UsageError, nearest
from pipelines.inputs.normalisation import Kind, Normalisation

if TYPE_CHECKING:
    from pipelines.stores.store import Store

DERIVED = {
    "sin_latitude": ("latitude", np.sin),
    "cos_latitude": ("latitude", np.cos),
    "sin_longitude": ("longitude", np.sin),
    "cos_longitude": ("longitude", np.cos),
}
"""fields that are computed from coordinates: the place of a pixel on the globe, without the jump of
longitudes at 0 or 180 degrees"""


@dataclass(frozen=True, eq=False)
class StaticFields:
    """Some static fields of a store, in the order in which a model reads them."""

    values_shw: np.ndarray
    """float32 (S, H, W), normalised"""
    normalisation: Normalisation
    """constants of each field, taken over the whole field"""
    fingerprints: tuple[str, ...]
    """sha256 of the values of each field"""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the fields in the store, (S,)."""
        return self.normalisation.labels

    def as_dict(self) -> dict[str, Any]:
        """Return what a checkpoint says about them. It keeps the values beside its weights."""
        return {**self.normalisation.as_dict(), "fingerprints": list(self.fingerprints)}


def static_fields(store: Store, names: Sequence[str], kind: Kind = "standardise") -> StaticFields:
    """Read and normalise static fields.

    Parameters
    ----------
    names
        Names in `store.static_fields` or `DERIVED`.
    kind
        `standardise`: mean 0 and variance 1 over the field; `minmax`: [0, 1].

    Raises
    ------
    UsageError
        The store does not have such a field, or the coordinate to compute it from.
    StoreError
        A field is damaged.

    Examples
    --------
    >>> fields = static_fields(store, ("lsm", "cos_latitude"))  # doctest: +SKIP
    >>> model.bind_static(torch.from_numpy(fields.values_shw))  # doctest: +SKIP
    """
    if kind not in get_args(Kind):
        raise UsageError(f"unknown normalisation '{kind}'", remedy=nearest(kind, get_args(Kind)))
    check_names(store, names)
    fields = [read_field(store, name) for name in names]
    values = np.empty((len(fields), *store.spatial_shape))
    for row, field in zip(values, fields, strict=True):
        row[:] = field
    flat = values.reshape(len(fields), math.prod(store.spatial_shape))
    if kind == "standardise":
        offset, scale = flat.mean(axis=1), flat.std(axis=1)
    else:
        offset, scale = flat.min(axis=1), np.ptp(flat, axis=1)
    # A constant field normalises to 0 everywhere rather than to NaN.
    scale = np.where(scale > 0, scale, 1.0)
    normalisation = Normalisation(kind, tuple(names), tuple(offset.tolist()), tuple(scale.tolist()))
    prints = tuple(
        _fingerprint(store, name, field) for name, field in zip(names, fields, strict=True)
    )
    return StaticFields(normalisation.apply(values), normalisation, prints)


def check_names(store: Store, names: Sequence[str]) -> None:
    """Raise UsageError if a static field is missing in the store, or is named twice."""
    if len(set(names)) < len(names):
        raise UsageError(f"a static field is named twice: {', '.join(names)}", where=store.uri)
    for name in names:
        if name in DERIVED and DERIVED[name][0] in store.coordinates:
            continue
        if name in store.static_fields:
            continue
        known = [*store.static_fields, *DERIVED]
        if name in DERIVED:
            raise UsageError(
                f"static field '{name}' needs the coordinate '{DERIVED[name][0]}'",
                where=store.uri,
                remedy="the store's grid is in other coordinates: leave it out",
            )
        raise UsageError(
            f"the store has no static field '{name}'",
            where=store.uri,
            remedy=f"{nearest(name, known)}; to add it to the store, without converting its frames "
            f"again:  {store.convert_command(f'--static_fields {name}')}  with --static_source "
            "where it lies in another file",
        )


def read_field(store: Store, name: str) -> np.ndarray:
    """Return one static field in physical units, float32 (H, W).

    Raises
    ------
    StoreError
        The object of the field is missing or damaged.
    """
    if name in store.static_fields:
        return _read(store, name)
    dim, function = DERIVED[name]
    info = next(iter(store.variables.values()))
    along = function(np.deg2rad(np.asarray(store.coordinates[dim], np.float64)))
    shape = (-1, 1) if info.dims[-2] == dim else (1, -1)
    return np.broadcast_to(along.reshape(shape), store.spatial_shape).astype(np.float32)


def differences(trained: Mapping[str, Any], store: Store) -> list[str]:
    """Return how a store's static fields differ from those of a training, as texts.

    Parameters
    ----------
    trained
        `StaticFields.as_dict` at the time of training.
    """
    names = trained["labels"]
    missing = [
        name
        for name in names
        if name not in store.static_fields
        and (name not in DERIVED or DERIVED[name][0] not in store.coordinates)
    ]
    if missing:
        return [f"the store has no static field {', '.join(missing)}"]
    return [
        f"static field '{name}' of the store has other values"
        for name, wanted in zip(names, trained["fingerprints"], strict=True)
        if _fingerprint(store, name, read_field(store, name)) != wanted
    ]


def _read(store: Store, name: str) -> np.ndarray:
    try:
        values = np.asarray(store.array(name)[:])
        fault = None if np.isfinite(values).all() else "pixels are missing"
    except (OSError, ValueError, RuntimeError) as error:
        values, fault = np.empty(0), str(error)
    if fault:
        raise StoreError(
            f"static field '{name}' cannot be read: {fault}",
            where=store.uri,
            remedy=store.convert_command("--repair"),
        )
    return values


def _fingerprint(store: Store, name: str, values: np.ndarray) -> str:
    """Return a sha256 of the values of a field.

    For a computed field it is that of the coordinate instead: the last digit of a sine may differ
    from machine to machine.
    """
    digest = hashlib.sha256(json.dumps([name, list(values.shape)]).encode())
    if name in store.static_fields:
        digest.update(np.ascontiguousarray(values, "<f4").tobytes())
    else:
        degrees = np.asarray(store.coordinates[DERIVED[name][0]], np.float64)
        digest.update((np.round(degrees, 5) + 0.0).astype("<f8").tobytes())
    return digest.hexdigest()
