"""Read the time of a frame from its file's name, so that an index need not open every file."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from pipelines.archives.radar.formats.radar_format import seconds

_PATTERNS = (
    (r"(?<!\d)(\d{8})[-_T ]?(\d{6})(?!\d)", "%Y%m%d%H%M%S"),
    (r"(?<!\d)(\d{8})[-_T ]?(\d{4})(?!\d)", "%Y%m%d%H%M"),
    (r"(?<!\d)(\d{4})-(\d{2})-(\d{2})[-_T ](\d{2})[-:_]?(\d{2})(?!\d)", "%Y%m%d%H%M"),
    (r"(?<!\d)(\d{10})(?!\d)", "%y%m%d%H%M"),
)
_EARLIEST, _LATEST = 0, seconds("2100", "%Y")


def time_in_name(name: str) -> int | None:
    """Return the time in a file name as seconds since 1970-01-01; None if there is no time in it.

    >>> time_in_name("PrecipRate_00.00_20190610-000200.grib2")
    1560124920
    >>> time_in_name("raa01-rw_10000-1906100050-dwd---bin") == time_in_name("201906100050.h5")
    True
    >>> time_in_name("composite_17.h5") is None
    True
    """
    last = name.rsplit("/", 1)[-1]
    for pattern, layout in _PATTERNS:
        for match in re.finditer(pattern, last):
            try:
                time = seconds("".join(match.groups()), layout)
            except ValueError:
                continue
            if _EARLIEST < time < _LATEST:
                return time
    return None


def periods(times: np.ndarray, cadence: int, gap: int) -> tuple[tuple[int, int], ...]:
    """Return the first and last time of each period of increasing `times`.

    More than `gap` missing frames begin a new period.

    >>> periods(np.array([0, 300, 900, 90000]), 300, 2)
    ((0, 900), (90000, 90000))
    """
    ends = np.flatnonzero(np.diff(times) > (gap + 1) * cadence)
    firsts, lasts = [0, *(ends + 1)], [*ends, len(times) - 1]
    return tuple((int(times[a]), int(times[b])) for a, b in zip(firsts, lasts, strict=True))


def spread(count: int, wanted: int) -> Sequence[int]:
    """Return at most `wanted` indices below `count`, at even distances from the first to the last.

    >>> spread(100, 3), spread(2, 3)
    ([0, 50, 99], [0, 1])
    """
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, wanted)).tolist()})
