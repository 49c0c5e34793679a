"""A checksum of grids: whether frames from two places lie on the same points."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

Grid = tuple[str, Sequence[str], Sequence[int], Mapping[str, np.ndarray]]
"""a variable's name, dimensions and shape after time, and the coordinates of its dimensions"""


def grid_digest(variables: Iterable[Grid]) -> str:
    """sha256 of dimensions and coordinates, numbers rounded to five decimals.

    >>> north = np.array([60.0, 50.0])
    >>> one = grid_digest([("t2m", ("latitude",), (2,), {"latitude": north})])
    >>> one == grid_digest([("t2m", ("latitude",), (2,), {"latitude": north[::-1]})])
    False
    """
    digest = hashlib.sha256()
    for name, dims, shape, coordinates in variables:
        digest.update(repr((name, tuple(dims), tuple(shape))).encode())
        for dim, values in sorted(coordinates.items()):
            numeric = np.issubdtype(values.dtype, np.number)
            digest.update(dim.encode())
            # Adding zero makes one of the two zeros of floating point.
            shown = np.round(values.astype(float), 5) + 0.0 if numeric else values
            digest.update(repr(shown.tolist()).encode())
    return digest.hexdigest()
