"""Climatological normals: the usual frame at each time, for models that forecast anomalies.

Such a model reads `x - n(t)` and forecasts `y`, to which `n(t)` is added; x, n and y are
normalised. The table n comes from the checkpoint. This module reads it with NumPy alone, so that a
forecast does not need `pipelines`, which made the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gmg_model.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Tensor

TABLE = "normals/table"
"""name of the table in a file of weights, beside the parameters"""

_DAY = 86_400
_DAYS = {"day": 1, "week": 7, "year": 366}
_MONTHS_TO_2000 = 360
"""months from January 1970 to January 2000, which begins a leap year"""


class Normals:
    """The usual frame at each place (slot) of a daily, weekly or yearly cycle.

    Parameters
    ----------
    table:
        (places, C, H, W) float32, normalised.
    cycle:
        `"day"`: by slot of the day; `"week"`: by slot of the week, from Thursday 00 UTC, as
        1970 began; `"year"`: by day of a leap year and slot of the day.
    slot_seconds:
        Length of a slot in seconds.

    Raises
    ------
    ConfigurationError
        The number of places of the table is not that of the cycle.
    """

    def __init__(self, table: np.ndarray, cycle: str, slot_seconds: int):
        _check_places(table, cycle, slot_seconds)
        self.table, self._cycle, self._slot = table, cycle, slot_seconds

    @classmethod
    def saved(cls, record: Any, tensors: Mapping[str, Tensor]) -> Normals:
        """Return the normals of a saved model.

        Parameters
        ----------
        record:
            `cycle` and `slot_seconds`.
        tensors:
            The tensors in the file of its weights, by name.

        Raises
        ------
        ConfigurationError
            The record or the table is missing, or they do not fit each other.
        """
        table = normals_table(record, tensors)
        return cls(table, record["cycle"], int(record["slot_seconds"]))

    def at(self, times: np.ndarray) -> np.ndarray:
        """Return the normals at times, datetime64 of any shape: (..., C, H, W) float32."""
        seconds = times.astype("datetime64[s]").astype(np.int64)
        if self._cycle == "week":
            return self.table[seconds % (7 * _DAY) // self._slot]
        places = seconds % _DAY // self._slot
        if self._cycle == "year":
            places += _day_of_leap_year(times) * (_DAY // self._slot)
        return self.table[places]


def normals_table(record: Any, tensors: Mapping[str, Tensor]) -> np.ndarray:
    """Return the table of a saved model's normals: (places, C, H, W) float32, normalised.

    Parameters and errors are those of `Normals.saved`.
    """
    try:
        table, cycle, slot_seconds = tensors[TABLE], record["cycle"], int(record["slot_seconds"])
    except (KeyError, TypeError) as error:
        raise ConfigurationError(f"the model's normals cannot be read: {error}") from None
    _check_places(table, cycle, slot_seconds)
    return table.numpy()


def _check_places(table: np.ndarray | Tensor, cycle: str, slot_seconds: int) -> None:
    """Raise ConfigurationError unless the table has as many places as the cycle."""
    if _DAYS.get(cycle, 0) * _DAY != len(table) * slot_seconds:
        raise ConfigurationError(
            f"normals of {len(table)} places by cycle '{cycle}' of {slot_seconds} s"
        )


def _day_of_leap_year(times: np.ndarray) -> np.ndarray:
    """Return the day's number from 0 to 365 in a leap year, so that a date has one place."""
    months = times.astype("datetime64[M]")
    day_of_month = times.astype("datetime64[D]") - months.astype("datetime64[D]")
    in_2000 = _MONTHS_TO_2000 + months.astype(np.int64) % 12
    day = in_2000.astype("datetime64[M]").astype("datetime64[D]") + day_of_month
    return (day - np.datetime64("2000-01-01")).astype(np.int64)


def frame_times(
    newest: Any, samples: int, input_frames: int, horizon: int, step: int
) -> np.ndarray:
    """Return the times of the input frames and the forecast frames, (B, T + horizon) datetime64.

    Parameters
    ----------
    newest:
        Time of the last input frame in UTC, one for all B samples or (B,), in any form that NumPy
        reads as datetime64.
    step:
        Seconds between frames.

    Raises
    ------
    ConfigurationError
        `newest` is not a time, or the number of times is neither 1 nor B.
    """
    try:
        # NumPy would silently read a number as seconds since 1970.
        numbers = np.issubdtype(np.asarray(newest).dtype, np.number)
        given = None if numbers else np.asarray(newest, "datetime64[s]")
        last = None if given is None else np.broadcast_to(given, (samples,))
    except (ValueError, TypeError):
        last = None
    if last is None or np.isnat(last).any():
        raise ConfigurationError(
            f"newest={newest!r}: give the time of the newest frame, such as '2019-03-31T06:00' "
            f"(UTC), or one for each of {samples} samples"
        )
    offsets = np.arange(1 - input_frames, horizon + 1) * np.timedelta64(step, "s")
    return last[:, None] + offsets
