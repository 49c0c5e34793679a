"""Names of dimensions: what archives call time, levels, members and grid, and what stores do."""

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
"""extra dimensions that have one name in every store; others keep the source's"""


def store_dim(name: str) -> str:
    """The name of a source's dimension in a store.

    >>> store_dim("lat"), store_dim("number"), store_dim("depthBelowLandLayer")
    ('latitude', 'member', 'depthBelowLandLayer')
    """
    return Y.get(name) or X.get(name) or EXTRA.get(name, name)


def ordered(dims: tuple[str, ...], time: tuple[str, ...]) -> tuple[str, ...] | None:
    """``dims`` without time, extra dimensions first and the grid (y, x) last; None without a grid.

    >>> ordered(("number", "time", "lat", "lon"), ("time",))
    ('number', 'lat', 'lon')
    """
    rest = [dim for dim in dims if dim not in time]
    y = [dim for dim in rest if dim in Y]
    x = [dim for dim in rest if dim in X]
    if len(y) != 1 or len(x) != 1:
        return None
    return (*(dim for dim in rest if dim not in (y[0], x[0])), y[0], x[0])
