"""Read dates from NumPy object arrays without trusting the pickle that holds them.

`numpy.load(allow_pickle=True)` runs whatever a file says. An array of datetimes needs a handful of
constructors; everything else that the pickle names raises an error before it is called.
"""

from __future__ import annotations

import codecs
import datetime
import pickle
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

_ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")


class _Dates(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module in _ARRAY_MODULES and name == "_reconstruct":
            return _empty_array
        known = {
            # The pickle names a type of array; `_empty_array` makes a plain one in any case.
            ("numpy", "ndarray"): _Named,
            ("numpy", "dtype"): np.dtype,
            ("datetime", "datetime"): datetime.datetime,
            ("datetime", "date"): datetime.date,
            # Pickles of Python 2 carry bytes as text.
            ("_codecs", "encode"): _latin1,
        }
        if (module, name) not in known:
            raise ValueError(f"its dates are a pickle of {module}.{name}, which is not read")
        return known[module, name]


def read_dates(stream: BinaryIO) -> list[datetime.date]:
    """Return the dates of a `.npy` stream of objects; raise ValueError for anything else."""
    version = npy.read_magic(stream)
    reader = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = reader(stream)
    if dtype != np.dtype(object):
        if shape != (0,):
            raise ValueError(f"its dates are of type {dtype}, not objects")
        return []
    try:
        values = np.ravel(_Dates(stream).load()).tolist()
    except (pickle.UnpicklingError, EOFError, AttributeError, TypeError, IndexError) as error:
        raise ValueError(f"its dates cannot be read: {error}") from None
    wrong = next((value for value in values if not isinstance(value, datetime.date)), None)
    if wrong is not None:
        raise ValueError(f"its dates hold a {type(wrong).__name__}: {wrong!r}")
    return values


class _Named:
    """A stand-in for a class that a pickle may name but not call."""

    def __init__(self, *arguments: Any):
        raise ValueError("its dates are a pickle that makes arrays of its own")


def _empty_array(kind: type, shape: tuple[int, ...], code: Any) -> np.ndarray:
    return np.ndarray.__new__(np.ndarray, (0,), np.dtype("b"))


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    if encoding != "latin1":
        raise ValueError(f"its dates are a pickle with text in {encoding}, which is not read")
    return codecs.encode(text, "latin1")
