"""Write one forecast of a store of forecasts as a NetCDF file."""

from __future__ import annotations

import json
import os
import uuid
from typing import Any

from pipelines.errors import UsageError
from pipelines.storage import places


def check_file(file: str) -> None:
    """Raise UsageError if no NetCDF file can be written at `file`; call it before forecasting."""
    path = places.local_path(file) if places.is_local(file) else None
    if path is None or not os.path.isdir(os.path.dirname(path)):
        raise UsageError(
            "the NetCDF file goes into a local folder that exists and can be written",
            where=file,
            remedy="write it here, then copy it",
        )
    if os.path.isdir(path):
        raise UsageError(
            "the NetCDF file is a folder",
            where=file,
            remedy="give --netcdf the name of a file, such as forecast.nc",
        )
    # Only writing tells: access rights say nothing about read-only mounts, and root has all rights.
    partial = _partial(path)
    try:
        with open(partial, "xb"):
            pass
        os.unlink(partial)
    except OSError as error:
        raise _unwritable(file, error) from None


def write_netcdf(forecasts: str, file: str) -> None:
    """Write the one forecast of a complete store to `file`, whole or not at all.

    Raises
    ------
    UsageError
        The file cannot be written, for example because the disk is full.
    """
    import xarray as xr

    path = places.local_path(file)
    partial = _partial(path)
    # Not decoded, so that units, coordinates and the grid mapping are written as they are.
    options = places.driver_options(forecasts) or None
    with xr.open_zarr(forecasts, decode_cf=False, chunks=None, storage_options=options) as source:
        dataset = source.load().drop_encoding()
    dataset.attrs = {key: _plain(value) for key, value in dataset.attrs.items()}
    try:
        dataset.to_netcdf(partial)
        os.replace(partial, path)
    except (
        OSError,
        RuntimeError,
    ) as error:  # the NetCDF library raises RuntimeError on a full disk
        raise _unwritable(file, error) from error
    finally:
        if os.path.exists(partial):
            os.unlink(partial)


def _partial(path: str) -> str:
    """Return an unused name beside `path`."""
    return f"{path}.{uuid.uuid4().hex}.partial"


def _unwritable(file: str, error: Exception) -> UsageError:
    reason = (error.strerror if isinstance(error, OSError) else None) or error
    return UsageError(
        f"the NetCDF file cannot be written: {reason}",
        where=file,
        remedy="give a --netcdf that can be written, on a disk with room",
    )


def _plain(value: Any) -> Any:
    """Return an attribute as NetCDF can hold it: no booleans, mappings or lists."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return json.dumps(value)
    if isinstance(value, list):
        return "\n".join(str(item) for item in value)
    return value
