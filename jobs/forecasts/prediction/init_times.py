"""Choose the init times of forecasts, and say why others have no forecast. Pure.

An init time is the time of the last frame that a forecast is made from. No frame after it is
needed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.cf import AVAILABLE
from pipelines.errors import PlatformError, SourceError, UsageError
from pipelines.stream.windows import WindowSpec

_REASONS = str(AVAILABLE["flag_meanings"]).split()
_TIME = re.compile(r"\d{4}(-\d\d(-\d\d([T ]\d\d(:\d\d(:\d\d)?)?Z?)?)?)?")
_YEARS = range(1678, 2262)
"""those that 64-bit nanoseconds can count"""


@dataclass(frozen=True)
class Inits:
    """The forecasts that can be made, and those that cannot."""

    frames: tuple[int, ...]
    """frames of the store that are the last input of a forecast, ascending"""
    left_out: tuple[tuple[str, str], ...]
    """(init time, why it has no forecast)"""
    beyond: str | None = None
    """a sentence that the period goes beyond the store; None if it does not"""


def input_offsets(window: WindowSpec) -> np.ndarray:
    """Return the input frames of a forecast, counted from its init time, (input_frames,).

    >>> input_offsets(WindowSpec(3, 1, stride=2))
    array([-4, -2,  0])
    """
    return np.arange(1 - window.input_frames, 1) * window.stride


def choose_inits(
    times: np.ndarray,
    available: np.ndarray,
    cadence: np.timedelta64,
    window: WindowSpec,
    *,
    period: tuple[str, str] | None,
    every: int = 1,
) -> Inits:
    """Return the init times of a period, or the newest one that can be forecast.

    Parameters
    ----------
    times, available, cadence:
        Of the store, see `pipelines.stream.windows.window_starts`.
    period:
        First and last init time, both inclusive; `2018-03` as the last is the whole of March.
        None: the newest init time that can be forecast. Newer ones are left out because of gaps.
    every:
        Frames of the store from one init time to the next.

    Raises
    ------
    UsageError
        Nothing of the period can be forecast.
    SourceError
        The newest frames cannot be used.

    Examples
    --------
    >>> times = np.arange("2020-01-01T00", "2020-01-01T06", dtype="datetime64[h]")
    >>> available = np.array([0, 0, 1, 0, 0, 0], "u1")
    >>> hour, window = np.timedelta64(1, "h"), WindowSpec(2, 1)
    >>> choose_inits(times, available, hour, window, period=("2020", "2020")).frames
    (1, 4, 5)
    >>> choose_inits(times, available, hour, window, period=None).frames
    (5,)
    """
    if every < 1:
        raise UsageError(f"every must be at least 1, not {every}")
    asked, beyond = _asked(times, cadence, period, every)
    frames: list[int] = []
    left_out: list[tuple[str, str]] = []
    for frame in asked:
        reason = _problem(times, available, cadence, frame + input_offsets(window))
        if reason:
            left_out.append((_text(times[frame]), reason))
            continue
        frames.append(frame)
        if period is None:
            break
    if not frames:
        raise _nothing(times, period, left_out)
    return Inits(tuple(frames), tuple(left_out), beyond)


def _asked(
    times: np.ndarray, cadence: np.timedelta64, period: tuple[str, str] | None, every: int
) -> tuple[range, str | None]:
    """Return the frames to try as init times, and a sentence if the period exceeds the store."""
    if period is None:
        return range(len(times) - 1, -1, -1), None
    first, last = _bound(period[0], is_last=False), _bound(period[1], is_last=True)
    begin, end = np.searchsorted(times, first), np.searchsorted(times, last, side="right")
    frames = range(int(begin), int(end), every)
    if first > times[0] - cadence and last < times[-1] + cadence:
        return frames, None
    return frames, (
        f"the store has frames from {_text(times[0])} to {_text(times[-1])}: the rest of "
        f"{period[0]} to {period[1]} has no forecast"
    )


def _problem(
    times: np.ndarray, available: np.ndarray, cadence: np.timedelta64, seen: np.ndarray
) -> str | None:
    """Return why these frames cannot be the input of a forecast; None if they can."""
    if seen[0] < 0:
        return "its input begins before the store"
    if times[seen[-1]] - times[seen[0]] != cadence * (seen[-1] - seen[0]):
        return "its input crosses a jump in time"
    bad = seen[available[seen] != 0].tolist()
    return f"frame {_text(times[bad[-1]])} is {_REASONS[available[bad[-1]]]}" if bad else None


def _bound(text: str, is_last: bool) -> np.datetime64:
    """Return an inclusive bound of a period; the last one is the end of its day, month or year."""
    given = text.strip()
    try:
        # NumPy alone takes more: "now", offsets from UTC, and 20180301 for a year.
        known = _TIME.fullmatch(given) and int(given[:4]) in _YEARS
        time = np.datetime64(given.removesuffix("Z")) if known else None
    except ValueError:
        time = None
    if time is None:
        raise UsageError(
            f"'{text}' is not a time",
            remedy="give it as 2018, 2018-03, 2018-03-01, 2018-03-01T06 or 2018-03-01T06:00, "
            "without an offset from UTC",
        )
    if is_last:
        return (time + 1).astype("datetime64[ns]") - np.timedelta64(1, "ns")
    return time.astype("datetime64[ns]")


def _text(time: Any) -> str:
    return str(time.astype("datetime64[s]"))


def _nothing(
    times: np.ndarray, period: tuple[str, str] | None, left_out: list[tuple[str, str]]
) -> PlatformError:
    if left_out:
        init, reason = left_out[0]
        what = f"none of {len(left_out)} forecasts can be made; that of {init}: {reason}"
        if period is None:
            return SourceError(what, remedy="wait for newer frames, or fetch the bad ones again")
        return UsageError(what, remedy="give another period, or convert more of the archive")
    asked = " to ".join(period) if period else "the newest frames"
    return UsageError(
        f"the store has no frame in {asked}",
        where=f"its frames are {_text(times[0])} to {_text(times[-1])}",
        remedy="give --first and --last inside them",
    )
