"""Climatological normals: what is usual at a time, taken off what a model of anomalies is given.

Such a model is given ``x - n(t)`` and forecasts ``y``, to which ``n(t)`` is added; x, n and y are
normalised. The table is that of the checkpoint; here it is read without what made it, so that a
forecast needs PyTorch and NumPy alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gmg_model.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Tensor

TABLE = "normals/table"
"""name of the table where a file of weights holds it beside the parameters"""

_DAY = 86_400
_DAYS = {"day": 1, "week": 7, "year": 366}
_MONTHS_TO_2000 = 360
"""from 1970 to January of a leap year"""


class Normals:
    """The usual frame at each place in a cycle.

    Parameters
    ----------
    table:
        (places, C, H, W) float32, normalised.
    cycle:
        ``"day"``: by slot of the day; ``"week"``: by slot of the week, from Thursday 00 UTC, as
        1970 began; ``"year"``: by day of a leap year and slot of the day.
    slot_seconds:
        Length of a slot.

    Raises
    ------
    ConfigurationError
        The table has not as many places as the cycle.
    """

    def __init__(self, table: np.ndarray, cycle: str, slot_seconds: int):
        if _DAYS.get(cycle, 0) * _DAY != len(table) * slot_seconds:
            raise ConfigurationError(
                f"normals of {len(table)} places by cycle '{cycle}' of {slot_seconds} s"
            )
        self.table, self._cycle, self._slot = table, cycle, slot_seconds

    @classmethod
    def saved(cls, record: Any, tensors: Mapping[str, Tensor]) -> Normals:
        """Of a model that was saved.

        Parameters
        ----------
        record:
            ``cycle`` and ``slot_seconds``.
        tensors:
            What the file of its weights holds.

        Raises
        ------
        ConfigurationError
            They are not there, or do not fit each other.
        """
        try:
            return cls(tensors[TABLE].numpy(), record["cycle"], int(record["slot_seconds"]))
        except (KeyError, TypeError) as error:
            raise ConfigurationError(f"the model's normals cannot be read: {error}") from None

    def at(self, times: np.ndarray) -> np.ndarray:
        """The normals at times (datetime64 (...)): (..., C, H, W) float32."""
        seconds = times.astype("datetime64[s]").astype(np.int64)
        if self._cycle == "week":
            return self.table[seconds % (7 * _DAY) // self._slot]
        places = seconds % _DAY // self._slot
        if self._cycle == "year":
            places += _day_of_leap_year(times) * (_DAY // self._slot)
        return self.table[places]


def _day_of_leap_year(times: np.ndarray) -> np.ndarray:
    """(...) from 0 to 365: a day has the same place in all years."""
    months = times.astype("datetime64[M]")
    day_of_month = times.astype("datetime64[D]") - months.astype("datetime64[D]")
    in_2000 = _MONTHS_TO_2000 + months.astype(np.int64) % 12
    day = in_2000.astype("datetime64[M]").astype("datetime64[D]") + day_of_month
    return (day - np.datetime64("2000-01-01")).astype(np.int64)


def moments(newest: Any, samples: int, input_frames: int, horizon: int, step: int) -> np.ndarray:
    """(B, T + horizon) datetime64 of the frames of a forecast.

    Parameters
    ----------
    newest:
        Time of the last input frame, for all samples or (B,): what NumPy reads as datetime64, UTC.
    step:
        Seconds between frames.

    Raises
    ------
    ConfigurationError
        It is no time, or as many as there are samples are wanted.
    """
    try:
        # A number would be read as seconds since 1970, silently.
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
