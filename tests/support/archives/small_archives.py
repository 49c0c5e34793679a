"""Small NetCDF and HDF5 archives for the tests of conversion, made from seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import xarray as xr


def hourly(first: str, frames: int) -> pd.DatetimeIndex:
    return pd.date_range(first, periods=frames, freq="h")


def fields(times: pd.DatetimeIndex, shape: tuple[int, ...] = (4, 6)) -> np.ndarray:
    """Return values that depend only on the time, so that two files agree where they overlap."""
    hours = times.as_unit("ns").asi8 // 3_600_000_000_000
    rows = [
        np.random.default_rng(int(hour)).normal(280.0, 5.0, shape).astype(np.float32)
        for hour in hours
    ]
    return np.stack(rows)


def write_netcdf(
    path: Path,
    times: pd.DatetimeIndex,
    *,
    variable: str = "t2m",
    values: np.ndarray | None = None,
    dims: tuple[str, ...] = ("time", "lat", "lon"),
    attributes: dict[str, Any] | None = None,
    encoding: dict[str, Any] | None = None,
    latitude_shift: float = 0.0,
    **options: Any,
) -> Path:
    """Write one file in the layout of WeatherBench."""
    values = fields(times) if values is None else values
    coordinates: dict[str, Any] = {dims[0]: times}
    coordinates["lat"] = np.linspace(-60.0, 60.0, values.shape[-2]) + latitude_shift
    coordinates["lon"] = np.linspace(0.0, 300.0, values.shape[-1])
    attributes = {"units": "K", "long_name": "2 metre temperature"} | (attributes or {})
    dataset = xr.Dataset({variable: (dims, values, attributes)}, coords=coordinates)
    dataset.attrs.update({"title": "made for tests", "synthetic": 1})
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.to_netcdf(path, encoding={variable: encoding} if encoding else None, **options)
    return path


def year_name(year: int) -> str:
    return f"2m_temperature_{year}_5.625deg.nc"


def write_days(folder: Path, *days: int, hours: int = 24) -> Path:
    """Write one file per given day of January 2010, and return the folder."""
    for day in days:
        times = hourly(f"2010-01-{day:02d}", hours)
        write_netcdf(folder / f"2m_temperature_day{day:02d}_5.625deg.nc", times)
    return folder


def write_traffic(path: Path, first: str, slots: list[int], per_day: int = 48) -> np.ndarray:
    """Write one HDF5 file in the layout of TaxiBJ with the given slots, counted from `first`."""
    rng = np.random.default_rng(len(slots))
    data = rng.integers(0, 200, (len(slots), 2, 4, 3)).astype(np.float64)
    start = pd.Timestamp(first)
    dates = []
    for slot in slots:
        day = start + pd.Timedelta(days=slot // per_day)
        dates.append(f"{day:%Y%m%d}{slot % per_day + 1:02d}".encode())
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["data"], file["date"] = data, np.array(dates)
    return data
