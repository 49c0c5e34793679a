"""GRIB 1 and 2, read with cfgrib: several variables, levels and members, without an index file.

The messages of a file may not fit into one cube, such as 2 m temperature beside pressure levels.
cfgrib then returns several data sets. If a variable is in more than one of them, its type of level
becomes part of its name. Fields that are stored by (time, step), such as accumulated fields, get
one axis of valid times. A pair of time and step without a message in the file is not a frame.
"""

from __future__ import annotations

import logging
import math
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.archives.contents import Decode, FileContents, FileVariable, SourceFile
from pipelines.archives.formats import coordinates
from pipelines.archives.formats.netcdf import as_seconds
from pipelines.archives.interface import ArchiveOptions
from pipelines.errors import SourceError
from pipelines.optional_libraries import load_pyproj_before_eccodes

if TYPE_CHECKING:
    import xarray as xr

_KEPT_SCANS = 4
"""files whose scan is kept, because scanning the messages takes longer than decoding a shard"""
_TIME = ("time", "step")
_lock = threading.Lock()
"""lets threads that need the same file wait for one scan"""


def describe(path: str, file: SourceFile, options: ArchiveOptions) -> FileContents:
    """Return the variables of one file that lie on a regular grid; scan all of its messages."""
    variables = []
    for name, array in _open(path, file).items():
        dims = coordinates.ordered(tuple(map(str, array.dims)), _TIME)
        if dims is not None:
            variables.append(_variable(name, array, dims))
    return FileContents(file, tuple(variables))


@contextmanager
def decoder(path: str, file: SourceFile) -> Iterator[Decode]:
    """Yield the function that decodes frames. Positions count the file's valid times."""
    arrays = _open(path, file)
    yield lambda variable, positions: _frames(variable, arrays[variable], positions, file)


def _frames(
    variable: str, array: xr.DataArray, positions: np.ndarray, file: SourceFile
) -> np.ndarray:
    dims = coordinates.ordered(tuple(map(str, array.dims)), _TIME) or ()
    axes = [dim for dim in _TIME if dim in array.dims]
    sizes = [array.sizes[dim] for dim in axes]
    held = np.flatnonzero(_held(array, axes))
    places = np.unravel_index(held[positions], sizes) if axes else ()
    indices = dict(zip(axes, places, strict=True))
    picked = {dim: np.unique(index, return_inverse=True) for dim, index in indices.items()}
    try:
        block = array.isel({dim: unique for dim, (unique, _) in picked.items()})
        values = block.transpose(*axes, *dims).values
    except Exception as error:
        # eccodes raises errors of several classes for damaged messages.
        raise SourceError(
            f"frames of '{variable}' cannot be decoded: {error}",
            where=f"{file.uri}, frames {positions.min()} to {positions.max()}",
            remedy="the file is damaged: fetch it again and run the same command",
        ) from None
    frames = values[tuple(inverse for _, inverse in picked.values())] if axes else values[None]
    return np.ascontiguousarray(frames, dtype=np.float32)


def _open(path: str, file: SourceFile) -> dict[str, xr.DataArray]:
    """Return the file's variables by name, from a kept scan if there is one."""
    with _lock:
        return _scan(path, file)


@lru_cache(_KEPT_SCANS)
def _scan(path: str, file: SourceFile) -> dict[str, xr.DataArray]:
    _check_complete(path, file)
    return _named(_datasets(path, file))


def _datasets(path: str, file: SourceFile) -> list[xr.Dataset]:
    load_pyproj_before_eccodes()
    import cfgrib

    # cfgrib logs every failed attempt to fit the messages into one cube as an error.
    logging.getLogger("cfgrib").setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = cfgrib.open_datasets(path, backend_kwargs={"indexpath": ""}, cache=False)
    except Exception as error:
        # eccodes and cfgrib raise errors of several classes.
        raise _unreadable(file, str(error)) from None
    if not found:
        raise _unreadable(file, "it contains no message that can be decoded")
    return found


def _check_complete(path: str, file: SourceFile) -> None:
    """Raise SourceError unless the file ends with 7777, as every complete GRIB message does."""
    with open(path, "rb") as content:
        content.seek(max(0, file.size - 4096))
        tail = content.read().rstrip(b"\0\r\n")
    if not tail.endswith(b"7777"):
        raise _unreadable(file, "the end of its last message is missing")


def _unreadable(file: SourceFile, what: str) -> SourceError:
    return SourceError(
        f"a GRIB file cannot be read, it is truncated or damaged: {what}",
        where=f"{file.uri} ({file.size} bytes)",
        remedy="fetch it again, or leave it out of the source",
    )


def _named(datasets: list[xr.Dataset]) -> dict[str, xr.DataArray]:
    """Return all variables by name, with the type of level in names that occur several times."""
    arrays = [(str(name), array) for ds in datasets for name, array in ds.data_vars.items()]
    repeated = {name for name, count in Counter(name for name, _ in arrays).items() if count > 1}
    named: dict[str, xr.DataArray] = {}
    for name, array in arrays:
        kind = array.attrs.get("GRIB_typeOfLevel", "")
        unique = f"{name}_{kind}" if name in repeated else name
        while unique in named:
            unique += "_2"
        named[unique] = array
    return named


def _variable(name: str, array: xr.DataArray, dims: tuple[str, ...]) -> FileVariable:
    axes = [dim for dim in _TIME if dim in array.dims]
    valid = array["valid_time"].transpose(*axes).values
    return FileVariable(
        name=name,
        times=as_seconds(np.atleast_1d(valid).reshape(-1)[_held(array, axes)]),
        dims=tuple(coordinates.store_dim(dim) for dim in dims),
        shape=tuple(array.sizes[dim] for dim in dims),
        coordinates={
            coordinates.store_dim(dim): array[dim].values for dim in dims if dim in array.coords
        },
        attributes={k: v for k, v in array.attrs.items() if not k.startswith("GRIB_")},
    )


def _held(array: xr.DataArray, axes: list[str]) -> np.ndarray:
    """Return whether the file has a message, bool, for each (time, step), flattened over `axes`.

    cfgrib builds a cube of all times and all steps, and fills pairs without a message with NaN. The
    index of messages inside its lazy array tells which pairs exist.
    """
    held = np.ones(math.prod(array.sizes[dim] for dim in axes), bool)
    if len(axes) < 2:
        return held
    found: Any = array.variable._data
    while not hasattr(found, "field_id_index"):
        if not hasattr(found, "array"):
            return held
        found = found.array
    kept = [axis for axis, size in enumerate(found.shape[:-2]) if size > 1]
    dims = [str(dim) for dim in array.dims][:-2]
    if len(kept) != len(dims):
        return held
    columns = [kept[dims.index(dim)] for dim in axes]
    cells = np.array([[key[column] for column in columns] for key in found.field_id_index])
    held[:] = False
    held[np.ravel_multi_index(tuple(cells.T), [array.sizes[dim] for dim in axes])] = True
    return held
