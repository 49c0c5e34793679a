"""Names of dimensions and coordinates in source files, and their names in a store."""

from __future__ import annotations

TIME = ("time", "valid_time")
Y = {"latitude": "latitude", "lat": "latitude", "y": "y", "projection_y_coordinate": "y"}
X = {"longitude": "longitude", "lon": "longitude", "x": "x", "projection_x_coordinate": "x"}
EXTRA = {
    "number": "member",
    "member": "member",
    "ensemble": "member",
    "realization": "member",
    "level": "level",
    "plev": "level",
    "pressure_level": "level",
    "isobaricInhPa": "level",
}
"""extra dimensions with one name in every store; other dimensions keep the name of the source"""
FLOW_CHANNELS = ("inflow", "outflow")
"""the channels of traffic flows, in the order of TaxiBJ"""


def store_dim(name: str) -> str:
    """Return the name in a store of a source's dimension.

    >>> store_dim("lat"), store_dim("number"), store_dim("depthBelowLandLayer")
    ('latitude', 'member', 'depthBelowLandLayer')
    """
    return Y.get(name) or X.get(name) or EXTRA.get(name, name)


def ordered(dims: tuple[str, ...], time: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the dimensions without time: extra dimensions first, then y and x.

    None if the dimensions do not contain exactly one y and one x.

    >>> ordered(("number", "time", "lat", "lon"), ("time",))
    ('number', 'lat', 'lon')
    """
    rest = [dim for dim in dims if dim not in time]
    y = [dim for dim in rest if dim in Y]
    x = [dim for dim in rest if dim in X]
    if len(y) != 1 or len(x) != 1:
        return None
    return (*(dim for dim in rest if dim not in (y[0], x[0])), y[0], x[0])
