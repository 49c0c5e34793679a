"""Rainfields 3 of Australia's Bureau of Meteorology: rainfall sums in NetCDF, read by pysteps."""

from __future__ import annotations

import numpy as np

from pipelines.archives.contents import SourceFile
from pipelines.archives.radar.formats.importers import grid_of, pysteps_importers
from pipelines.archives.radar.formats.radar_format import Frames, Quantity, RadarFormat


def recognises(path: str, name: str) -> bool:
    """Return whether the file is NetCDF with the variables of Rainfields."""
    import netCDF4

    try:
        with netCDF4.Dataset(path) as content:
            return {"precipitation", "valid_time", "start_time", "proj"} <= set(content.variables)
    except OSError:
        return False


def times(path: str, file: SourceFile) -> np.ndarray:
    """Return the end of the interval."""
    return np.array([_moment(path, "valid_time")], np.int64)


def quantities(path: str, file: SourceFile) -> tuple[Quantity, ...]:
    """Return the rainfall in the interval."""
    interval = _moment(path, "valid_time") - _moment(path, "start_time")
    return (Quantity("rainfall", "Rainfields 3 of BoM", 0.0, interval),)


def read(path: str, file: SourceFile, quantity: Quantity, positions: np.ndarray) -> Frames:
    """Return the one frame."""
    values, _, metadata = pysteps_importers().import_bom_rf3(path)
    # The importer returns a masked array whose masked pixels are NaN.
    frames = np.asarray(values, np.float32)[None]
    return Frames(times(path, file), grid_of(metadata, values.shape), frames)


def _moment(path: str, name: str) -> int:
    import netCDF4

    with netCDF4.Dataset(path) as content:
        time = content[name]
        date = str(netCDF4.num2date(time[...].item(), time.units))
        return int(np.datetime64(date, "s").astype(np.int64))


FORMAT = RadarFormat("bom_rf3", "BoM Rainfields 3", recognises, times, quantities, read)
