"""NetCDF 3 and 4, read with xarray: each file with its own packing, and `time` or `valid_time`.

The Climate Data Store delivers preliminary ERA5 (ERA5T, expver 5) together with final ERA5 (expver
1). Until 2024 expver was a dimension, where one of the two is missing at each time. Since then it
is a coordinate along time. Both layouts become one variable, with the final value where it exists,
and `FileVariable.preliminary` marks the preliminary frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING

import numpy as np

from pipelines.archives.contents import Decode, FileContents, FileVariable, SourceFile
from pipelines.archives.formats import coordinates
from pipelines.archives.formats.netcdf_classic import needed_bytes
from pipelines.archives.interface import ArchiveOptions
from pipelines.errors import SourceError

if TYPE_CHECKING:
    import xarray as xr

EXPVER = "expver"
FINAL, PRELIMINARY = 1, 5
_DESCRIBED_FRAMES = 64
"""frames read at once in the search for preliminary ones"""
_DECODED_TIMES = 65_536
"""times that are decoded at once, because decoding takes several times their memory"""
_DENSE = 4
"""frames read per requested frame up to which one slice is read instead of single frames"""


def describe(path: str, file: SourceFile, options: ArchiveOptions) -> FileContents:
    """Return the variables of one file that lie on a grid, with and without a time axis.

    Only headers and coordinates are read.

    Raises
    ------
    SourceError
        The file is truncated or not NetCDF, or it has no time axis that can be decoded.
    """
    _check_complete(path, file)
    with _open(path, file, decoded=False) as dataset:
        time = next((name for name in coordinates.TIME if name in dataset.dims), None)
        static = _static(dataset)
        if time is None and static:
            return FileContents(file, (), dict(dataset.attrs), static=static)
        if time is None:
            raise SourceError(
                "a NetCDF file has no time dimension",
                where=file.uri,
                remedy=f"its dimensions are {', '.join(map(str, dataset.dims))}; "
                f"the time dimension must be called {' or '.join(coordinates.TIME)}",
            )
        times = _times(dataset, time, file)
        found = {
            str(name): dims
            for name, array in dataset.data_vars.items()
            if time in array.dims
            and np.issubdtype(array.dtype, np.number)
            and (dims := coordinates.ordered(tuple(map(str, array.dims)), (time, EXPVER)))
        }
        versioned = [name for name in found if EXPVER in dataset[name].dims]
        early = _labelled_preliminary(dataset, time)
        if versioned:
            early = _missing_final(path, file, versioned[0], len(times))
        variables = tuple(
            _variable(dataset, name, times, dims, early) for name, dims in found.items()
        )
        return FileContents(file, variables, dict(dataset.attrs), static=static)


@contextmanager
def decoder(path: str, file: SourceFile) -> Iterator[Decode]:
    """Keep the file open while the block runs, and yield the function that decodes frames."""
    with ExitStack() as opened:
        readers: dict[str, _Read] = {}

        def decode(variable: str, positions: np.ndarray) -> np.ndarray:
            try:
                if variable not in readers:
                    readers[variable] = _reader(path, file, variable, opened)
                read = readers[variable]
                selection, rest = covering(positions)
                frames = read(selection)
            except (OSError, RuntimeError, ValueError, IndexError) as error:
                raise SourceError(
                    f"frames of '{variable}' cannot be decoded: {error}",
                    where=f"{file.uri}, frames {positions.min()} to {positions.max()}",
                    remedy="the file is damaged: fetch it again and run the same command",
                ) from None
            chosen = frames if rest is None else frames[rest]
            return np.ascontiguousarray(chosen, dtype=np.float32)

        yield decode


_Read = Callable[["slice | np.ndarray"], np.ndarray]
"""frames along time -> values, with time first and then the axes in the order of the store"""


def _reader(path: str, file: SourceFile, variable: str, opened: ExitStack) -> _Read:
    """Return a reader of the variable's frames, with final and preliminary values merged."""
    read, dims = _versions(path, file, variable, opened)
    if EXPVER not in dims:
        return read

    def merged(selection: slice | np.ndarray) -> np.ndarray:
        final, preliminary = read(selection).swapaxes(0, 1)
        return np.where(np.isnan(final), preliminary, final)

    return merged


def _versions(
    path: str, file: SourceFile, variable: str, opened: ExitStack
) -> tuple[_Read, tuple[str, ...]]:
    """Return a reader of all versions of a variable, and the dimensions in the file.

    If the variable has expver as a dimension, the reader returns it as the second axis, with the
    final version first.
    """
    raw = opened.enter_context(_open(path, file, decoded=False))[variable]
    dims = tuple(map(str, raw.dims))
    time = next((name for name in coordinates.TIME if name in dims), None)
    versions = (EXPVER,) if EXPVER in dims else ()
    rest = coordinates.ordered(dims, (*coordinates.TIME, EXPVER)) or ()
    plain = is_plain(raw)
    if plain and time is not None and not versions:
        axes = tuple(dims.index(dim) for dim in (time, *rest))
        return _plain_reader(path, variable, axes, opened), dims
    array = raw if plain else opened.enter_context(_open(path, file, decoded=True))[variable]
    if time is None:
        return lambda _: array.transpose(*rest).values[None], dims
    axes = tuple(dims.index(dim) for dim in (time, *versions, *rest))
    if versions:
        known = list(raw[EXPVER].values) if EXPVER in raw.coords else [FINAL, PRELIMINARY]
        if len(known) != 2 or FINAL not in known:
            raise ValueError(f"its {EXPVER} is {known}, not {FINAL} and {PRELIMINARY}")
        first = known.index(FINAL)
        array = array.isel({EXPVER: [first, 1 - first]})
    return lambda selection: array.isel({time: selection}).values.transpose(axes), dims


def _plain_reader(path: str, variable: str, axes: tuple[int, ...], opened: ExitStack) -> _Read:
    """Return a reader of unpacked values, directly with netCDF4, which is faster than xarray.

    Parameters
    ----------
    path, variable:
        The file and the variable to read.
    axes:
        Axes of the file in the order of the store, time first.
    opened:
        Closes the file.
    """
    import netCDF4

    stored = opened.enter_context(closing(netCDF4.Dataset(path)))[variable]
    stored.set_auto_maskandscale(False)
    before = (slice(None),) * axes[0]
    return lambda selection: np.asarray(stored[(*before, selection)]).transpose(axes)


def _labelled_preliminary(dataset: xr.Dataset, time: str) -> np.ndarray | None:
    """Return which frames the expver coordinate marks as preliminary, bool (n,); None if none."""
    if EXPVER not in dataset or dataset[EXPVER].dims[:1] != (time,):
        return None
    labels = dataset[EXPVER].values.astype(str)
    early = np.array([label.lstrip("0") == str(PRELIMINARY) for label in labels.tolist()])
    return early if early.any() else None


def _missing_final(path: str, file: SourceFile, variable: str, frames: int) -> np.ndarray | None:
    """Return frames with preliminary values whose final ones are missing, bool (n,); None if none.

    All frames are read for this.
    """
    early = np.zeros(frames, bool)
    with ExitStack() as opened:
        try:
            read, _ = _versions(path, file, variable, opened)
            for begin in range(0, frames, _DESCRIBED_FRAMES):
                part = slice(begin, begin + _DESCRIBED_FRAMES)
                final, preliminary = read(part).swapaxes(0, 1)
                taken = np.isnan(final) & ~np.isnan(preliminary)
                early[part] = taken.any(axis=tuple(range(1, taken.ndim)))
        except (OSError, RuntimeError, ValueError) as error:
            raise _unreadable(file, str(error)) from None
    return early if early.any() else None


def covering(positions: np.ndarray) -> tuple[slice | np.ndarray, np.ndarray | None]:
    """Return what to read for `positions`, and which of the frames read to take.

    Parameters
    ----------
    positions:
        Requested frames, in any order and with repetitions.

    Returns
    -------
    A slice to read, or increasing indices if a slice would read far more than requested. Then the
    index of each requested frame among those read; None if it is all of them in order.

    >>> covering(np.array([3, 4, 5]))
    (slice(3, 6, None), None)
    """
    first, last = int(positions.min()), int(positions.max())
    span = last - first + 1
    if len(positions) == span and np.all(np.diff(positions) == 1):
        return slice(first, last + 1), None
    if span <= _DENSE * len(positions):
        return slice(first, last + 1), positions - first
    return np.unique(positions, return_inverse=True)


def _check_complete(path: str, file: SourceFile) -> None:
    """Raise SourceError for a truncated classic file, which the NetCDF library reads as zeros.

    A truncated NetCDF 4 file makes the library itself raise an error.
    """
    try:
        needed = needed_bytes(path)
    except (ValueError, IndexError) as error:
        raise _unreadable(file, str(error)) from None
    if needed is not None and file.size < needed:
        raise _unreadable(file, f"it should have {needed} bytes")


def _unreadable(file: SourceFile, what: str) -> SourceError:
    return SourceError(
        f"a NetCDF file cannot be opened, it is truncated or not NetCDF: {what}",
        where=f"{file.uri} ({file.size} bytes)",
        remedy="fetch it again, or leave it out of the source",
    )


def _open(path: str, file: SourceFile, *, decoded: bool) -> xr.Dataset:
    import xarray as xr

    try:
        return xr.open_dataset(
            path,
            engine="netcdf4",
            decode_times=False,
            mask_and_scale=decoded,
            decode_coords=False,
            cache=False,
            # An index would hold all times of the file in memory, and no time is looked up.
            create_default_indexes=False,
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise _unreadable(file, str(error)) from None


def is_plain(array: xr.DataArray) -> bool:
    """Return whether stored numbers are the values: float32, unpacked, and NaN where missing."""
    attributes = array.attrs
    missing = [attributes.get("_FillValue"), attributes.get("missing_value")]
    return (
        array.dtype == np.float32
        and "scale_factor" not in attributes
        and "add_offset" not in attributes
        and all(value is None or np.all(np.isnan(value)) for value in missing)
    )


def _variable(
    dataset: xr.Dataset,
    name: str,
    times: np.ndarray,
    dims: tuple[str, ...],
    preliminary: np.ndarray | None,
) -> FileVariable:
    array = dataset[name]
    scale = array.attrs.get("scale_factor", 0.0) if array.dtype.kind in "iu" else 0.0
    return FileVariable(
        name=name,
        times=times,
        dims=tuple(coordinates.store_dim(dim) for dim in dims),
        shape=tuple(dataset.sizes[dim] for dim in dims),
        coordinates={
            coordinates.store_dim(dim): dataset[dim].values for dim in dims if dim in dataset.coords
        },
        attributes=dict(array.attrs),
        resolution=abs(float(scale)),
        preliminary=preliminary,
    )


def _static(dataset: xr.Dataset) -> tuple[FileVariable, ...]:
    """Return the variables on a plain grid that have no time axis."""
    found = []
    for name, array in dataset.data_vars.items():
        dims = coordinates.ordered(tuple(map(str, array.dims)), ())
        if dims is not None and len(dims) == 2 and np.issubdtype(array.dtype, np.number):
            found.append(_variable(dataset, str(name), np.empty(0, np.int64), dims, None))
    return tuple(found)


def _times(dataset: xr.Dataset, time: str, file: SourceFile) -> np.ndarray:
    import xarray as xr

    if dataset.sizes[time] == 0:
        raise SourceError(
            "a NetCDF file contains no time step",
            where=file.uri,
            remedy="fetch it again, or leave it out of the source",
        )
    try:
        times = np.empty(dataset.sizes[time], np.int64)
        axis = dataset[[time]]
        for begin in range(0, len(times), _DECODED_TIMES):
            part = slice(begin, begin + _DECODED_TIMES)
            times[part] = as_seconds(xr.decode_cf(axis.isel({time: part}))[time].values)
        return times
    except (ValueError, TypeError, OverflowError, KeyError) as error:
        raise SourceError(
            f"the time axis cannot be decoded: {error}",
            where=f"{file.uri}, '{time}' in {dataset[time].attrs.get('units', 'no units')!r}",
            remedy="times must be in the Gregorian calendar with CF units such as "
            "'hours since 1900-01-01'",
        ) from None


def as_seconds(values: np.ndarray) -> np.ndarray:
    """Return datetime64 values as int64 seconds since 1970-01-01, rounded to the nearest second.

    Raises
    ------
    TypeError
        The values are not datetimes, because of another calendar or missing units.
    """
    if not np.issubdtype(values.dtype, np.datetime64):
        raise TypeError("not in the Gregorian calendar, or without units")
    nanoseconds = values.astype("datetime64[ns]").astype(np.int64)
    return (nanoseconds + 500_000_000) // 1_000_000_000
