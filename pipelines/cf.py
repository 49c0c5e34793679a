"""CF metadata: which attributes a store's arrays carry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

CONVENTIONS = "CF-1.11"

GREY_LEVELS = "grey_level_values"
"""attribute: the values of levels 0 and 255 of the 8-bit images that a variable came from"""
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
"""in the unit of the values; a packed file gives them in packed numbers, of no use in a store"""

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
"""ECMWF short names whose files often lack the standard name"""

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
"""the variable whose attributes are the projection, where it is known"""

PROJECTED = {
    dim: {"standard_name": f"projection_{dim}_coordinate", "units": "m", "axis": dim.upper()}
    for dim in ("y", "x")
}
"""attributes of the axes of a projected grid"""

TIME = {
    "standard_name": "time",
    "long_name": "time",
    "units": "seconds since 1970-01-01",
    "calendar": "proleptic_gregorian",
    "axis": "T",
}


def clip_time(timed: bool) -> dict[str, str]:
    """Attributes of the time inside a clip: seconds, or the number of the frame."""
    # "s" and not "seconds", which readers would take for a duration to decode.
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
"""what a flag whose object is lost reads as"""

MISSING_FRACTION = {
    "long_name": "largest fraction over the variables of pixels without a value",
    "units": "1",
}


def variable_attributes(name: str, source: Mapping[str, Any]) -> dict[str, Any]:
    """A variable's attributes, from those that its file has.

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
    """A coordinate's attributes by the name of its dimension."""
    return dict(_COORDINATES.get(dim, {"long_name": dim}))


def valid_range(attributes: Mapping[str, Any]) -> tuple[float, float]:
    """The limits outside which a value is wrong; infinite where the source gives none."""
    low, high = attributes.get("valid_range", (-np.inf, np.inf))
    low, high = attributes.get("valid_min", low), attributes.get("valid_max", high)
    finite = np.finfo(np.float32)
    return max(float(low), float(finite.min)), min(float(high), float(finite.max))


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value
