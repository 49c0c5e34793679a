"""CF metadata: the attributes of a store's arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

CONVENTIONS = "CF-1.11"

GREY_LEVELS = "grey_level_values"
"""attribute of variables from 8-bit images: the physical values of the levels 0 and 255"""
_KEPT = (
    "long_name",
    "standard_name",
    "units",
    "cell_methods",
    "comment",
    "no_echo_value",
    GREY_LEVELS,
)
_LIMITS = ("valid_range", "valid_min", "valid_max")
"""attributes in the unit of the values. Those of a packed file are in packed numbers and therefore
not copied to a store"""

_STANDARD_NAMES = {
    "t2m": "air_temperature",
    "d2m": "dew_point_temperature",
    "t": "air_temperature",
    "z": "geopotential",
    "sp": "surface_air_pressure",
    "msl": "air_pressure_at_mean_sea_level",
    "u10": "eastward_wind",
    "v10": "northward_wind",
    "u": "eastward_wind",
    "v": "northward_wind",
    "q": "specific_humidity",
    "r": "relative_humidity",
}
"""ECMWF short name -> standard name, because it is often missing in files of ECMWF"""

_COORDINATES: dict[str, dict[str, str]] = {
    "latitude": {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"},
    "longitude": {"standard_name": "longitude", "units": "degrees_east", "axis": "X"},
    "y": {"axis": "Y"},
    "x": {"axis": "X"},
    "member": {"standard_name": "realization", "units": "1"},
    "level": {"long_name": "pressure level", "units": "hPa", "axis": "Z"},
    "channel": {"long_name": "channel"},
    "sample": {"long_name": "name of the clip"},
}

GRID_MAPPING = "crs"
"""name of the variable whose attributes describe the projection, if it is known"""

PROJECTED = {
    dim: {"standard_name": f"projection_{dim}_coordinate", "units": "m", "axis": dim.upper()}
    for dim in ("y", "x")
}
"""attributes of the coordinates of a projected grid"""

TIME = {
    "standard_name": "time",
    "long_name": "time",
    "units": "seconds since 1970-01-01",
    "calendar": "proleptic_gregorian",
    "axis": "T",
}


def clip_time(timed: bool) -> dict[str, str]:
    """Return the attributes of the time inside a clip: seconds, or the number of the frame."""
    # The unit is "s", because xarray would decode "seconds" to a duration.
    name = "time since the first frame of the clip" if timed else "frame of the clip"
    return {"long_name": name, "units": "s" if timed else "1", "axis": "T"}


AVAILABLE = {
    "long_name": "whether every variable of the frame can be used",
    "standard_name": "status_flag",
    "flag_values": [0, 1, 2, 3],
    "flag_meanings": "ok missing_in_source unreadable out_of_range",
}
OK, MISSING_IN_SOURCE, UNREADABLE, OUT_OF_RANGE = AVAILABLE["flag_values"]
FLAG_MEANINGS: tuple[str, ...] = tuple(AVAILABLE["flag_meanings"].split())
"""meaning of each flag, by its value"""
NO_FLAG = 255
"""the value that is read for a flag if the object with the flags is missing"""

MISSING_FRACTION = {
    "long_name": "largest fraction over the variables of pixels without a value",
    "units": "1",
}


def variable_attributes(name: str, source: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a variable in a store, given those in its file.

    >>> variable_attributes("t2m", {"units": "K", "standard_name": "unknown"})
    {'units': 'K', 'standard_name': 'air_temperature'}
    """
    names = (*_KEPT, *_LIMITS) if "scale_factor" not in source else _KEPT
    kept = {key: _plain(source[key]) for key in names if key in source}
    if kept.get("standard_name") in (None, "unknown", ""):
        kept.pop("standard_name", None)
        if name in _STANDARD_NAMES:
            kept["standard_name"] = _STANDARD_NAMES[name]
    return kept


def coordinate_attributes(dim: str) -> dict[str, str]:
    """Return the attributes of a coordinate, given the name of its dimension."""
    return dict(_COORDINATES.get(dim, {"long_name": dim}))


def valid_range(attributes: Mapping[str, Any]) -> tuple[float, float]:
    """Return the limits outside which a value is wrong.

    Without limits in the attributes they are those of float32.
    """
    low, high = attributes.get("valid_range", (-np.inf, np.inf))
    low, high = attributes.get("valid_min", low), attributes.get("valid_max", high)
    finite = np.finfo(np.float32)
    return max(float(low), float(finite.min)), min(float(high), float(finite.max))


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value
