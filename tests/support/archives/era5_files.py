"""Small files in the layouts of the Climate Data Store, past and present, made from seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import eccodes
import numpy as np
import pandas as pd
import xarray as xr

LATITUDE, LONGITUDE = np.array([60.0, 59.75, 59.5]), np.array([4.0, 4.25, 4.5, 4.75])


def values(times: pd.DatetimeIndex, seed: int = 0) -> np.ndarray:
    """Return values (n, 3, 4) that depend only on the times and the seed."""
    hours = times.as_unit("ns").asi8 // 3_600_000_000_000
    rows = [np.random.default_rng((int(hour), seed)).normal(280, 5, (3, 4)) for hour in hours]
    return np.array(rows, np.float32).reshape(-1, 3, 4)


def write_with_expver_dimension(
    path: Path, times: pd.DatetimeIndex, final: int, names: Sequence[str] = ("t2m",)
) -> None:
    """Write the layout until 2024: packed NetCDF 3; the first `final` frames have expver 1."""
    dataset = xr.Dataset(
        coords={
            "longitude": LONGITUDE.astype("f4"),
            "latitude": LATITUDE.astype("f4"),
            "expver": np.array([1, 5], "i4"),
            "time": times,
        }
    )
    encoding: dict[str, Any] = {"time": {"units": "hours since 1900-01-01", "dtype": "i4"}}
    for seed, name in enumerate(names):
        both = np.full((len(times), 2, 3, 4), np.nan, np.float32)
        both[:final, 0] = values(times[:final], seed)
        both[final:, 1] = values(times[final:], seed)
        dims = ("time", "expver", "latitude", "longitude")
        dataset[name] = xr.Variable(dims, both, {"units": "K", "long_name": name})
        encoding[name] = {
            "dtype": "i2",
            "scale_factor": 0.001,
            "add_offset": 280.0,
            "_FillValue": -32767,
        }
    dataset.to_netcdf(path, format="NETCDF3_64BIT", encoding=encoding)


def write_with_expver_labels(
    path: Path,
    times: pd.DatetimeIndex,
    final: int,
    names: Sequence[str] = ("t2m",),
    seed: int = 0,
) -> None:
    """Write the layout since 2024: NetCDF 4, expver as text along `valid_time`, a scalar number."""
    dataset = xr.Dataset(
        coords={
            "valid_time": times,
            "latitude": LATITUDE,
            "longitude": LONGITUDE,
            "number": np.int64(0),
            "expver": ("valid_time", np.array(["0001"] * final + ["0005"] * (len(times) - final))),
        },
        attrs={"Conventions": "CF-1.7", "GRIB_centre": "ecmf"},
    )
    for offset, name in enumerate(names):
        attributes = {"units": "K", "GRIB_stepType": "instant"}
        dims = ("valid_time", "latitude", "longitude")
        dataset[name] = xr.Variable(dims, values(times, seed + offset), attributes)
    dataset.to_netcdf(path, encoding={"valid_time": {"units": "seconds since 1970-01-01"}})


def write_grib(path: Path, messages: Sequence[dict[str, Any]]) -> None:
    """Write GRIB 1 messages on the small grid, from eccodes keys and `values` (3, 4) of each."""
    grid = {
        "Ni": 4,
        "Nj": 3,
        "latitudeOfFirstGridPointInDegrees": 60.0,
        "latitudeOfLastGridPointInDegrees": 59.5,
        "longitudeOfFirstGridPointInDegrees": 4.0,
        "longitudeOfLastGridPointInDegrees": 4.75,
        "iDirectionIncrementInDegrees": 0.25,
        "jDirectionIncrementInDegrees": 0.25,
    }
    with path.open("wb") as file:
        for message in messages:
            handle = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib1")
            keys = grid | {key: value for key, value in message.items() if key != "values"}
            for key, value in keys.items():
                eccodes.codes_set(handle, key, value)
            eccodes.codes_set_values(handle, message["values"].ravel().astype(float))
            eccodes.codes_write(handle, file)
            eccodes.codes_release(handle)


def accumulated(valid: pd.Timestamp) -> dict[str, Any]:
    """Return the keys of the precipitation in the hour before `valid`.

    It is step 1 to 12 of the forecast that starts at 6 or 18 h.
    """
    base = (valid - pd.Timedelta(hours=7)).floor("12h") + pd.Timedelta(hours=6)
    step = int((valid - base) / pd.Timedelta(hours=1))
    return {
        "paramId": 228,
        "dataDate": int(f"{base:%Y%m%d}"),
        "dataTime": base.hour * 100,
        "stepType": "accum",
        "startStep": step - 1,
        "endStep": step,
        "values": values(pd.DatetimeIndex([valid]))[0] / 1000,
    }


def instantaneous(valid: pd.Timestamp) -> dict[str, Any]:
    """Return the keys of the temperature at `valid`."""
    return {
        "paramId": 167,
        "dataDate": int(f"{valid:%Y%m%d}"),
        "dataTime": valid.hour * 100,
        "stepType": "instant",
        "values": values(pd.DatetimeIndex([valid]))[0],
    }
