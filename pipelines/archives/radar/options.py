"""Options of radar composites. The command line imports this module, so it must load quickly."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import NoReturn

from pipelines.archives.interface import ArchiveOptions, option
from pipelines.errors import UsageError, nearest

FORMATS = ("knmi_hdf5", "odim_hdf5", "mrms_grib2", "fmi_pgm", "radolan", "bom_rf3", "meteonet")
"""every format; each is a module of `pipelines.archives.radar.formats`"""
AUTO, ALL, SOURCE, NONE = "auto", "all", "source", "none"
UNITS = (SOURCE, "dBZ", "mm/h")

_CROP = re.compile(r"(\d+):(\d+),(\d+):(\d+)", re.ASCII)
_RESIZE = re.compile(r"(\d+)x(\d+)", re.ASCII)


@dataclass(frozen=True)
class RadarOptions(ArchiveOptions):
    """How radar frames are read.

    A frame is cropped, averaged to a smaller grid, converted to another unit and cut at a
    threshold, in this order.
    """

    radar_format: str = option(AUTO, ", ".join((AUTO, *FORMATS)))
    """one of `FORMATS`; auto: recognised by content"""
    crop: str = option(ALL, "rows and columns to keep, as in 0:512,100:612")
    """TOP:BOTTOM,LEFT:RIGHT, half open, counted from the source's first row and column; or all"""
    resize: str = option(SOURCE, "average to a smaller grid, as in 128x128")
    """HxW, not larger than the source's grid; source: no averaging"""
    unit: str = option(SOURCE, "dBZ or mm/h: convert by Z = a R^b")
    """one of `UNITS`"""
    zr: str = option("200,1.6", "a,b of Z = a R^b, Z in mm6/m3 and R in mm/h")
    """the default is that of Marshall and Palmer (1948)"""
    threshold: str = option(NONE, "smaller values become no echo, in the store's unit")
    """a number; none: every value is kept"""
    period_gap: int = option(72, "more missing frames than this begin a new period")
    """frames; a shorter gap is flagged as missing frames, which can be filled in later"""

    def __post_init__(self) -> None:
        if self.radar_format not in (AUTO, *FORMATS):
            hint = nearest(self.radar_format, (AUTO, *FORMATS))
            _raise("radar_format", self.radar_format, hint)
        if self.unit not in UNITS:
            _raise("unit", self.unit, nearest(self.unit, UNITS))
        if self.crop != ALL:
            match = _CROP.fullmatch(self.crop)
            numbers = [int(number) for number in match.groups()] if match else [0] * 4
            if not (numbers[0] < numbers[1] and numbers[2] < numbers[3]):
                _raise("crop", self.crop, "give TOP:BOTTOM,LEFT:RIGHT, such as 0:512,100:612")
        if self.resize != SOURCE and min(self.shape or (0,)) < 1:
            _raise("resize", self.resize, "give HxW, such as 128x128")
        numbers = _numbers(self.zr)
        if len(numbers) != 2 or not min(numbers) > 0:
            _raise("zr", self.zr, "give two positive numbers a,b, such as 200,1.6")
        if self.threshold != NONE and len(_numbers(self.threshold)) != 1:
            _raise("threshold", self.threshold, "give a number, such as 15, or none")
        if self.period_gap < 0:
            _raise("period_gap", self.period_gap, "give 0 or more frames")

    @property
    def window(self) -> tuple[int, int, int, int] | None:
        """Top, bottom, left and right of `crop`; None: the whole grid."""
        match = _CROP.fullmatch(self.crop)
        if match is None:
            return None
        top, bottom, left, right = (int(number) for number in match.groups())
        return top, bottom, left, right

    @property
    def shape(self) -> tuple[int, int] | None:
        """(H, W) of `resize`; None: the source's."""
        match = _RESIZE.fullmatch(self.resize)
        return (int(match[1]), int(match[2])) if match else None

    @property
    def coefficients(self) -> tuple[float, float]:
        """a and b of `zr`."""
        a, b = _numbers(self.zr)
        return a, b

    @property
    def least(self) -> float | None:
        """The number of `threshold`, in the store's unit; None: no threshold."""
        return None if self.threshold == NONE else _numbers(self.threshold)[0]

    def of_format(self, name: str) -> RadarOptions:
        """Return the options with the format that was recognised."""
        return replace(self, radar_format=name)


def _numbers(text: str) -> list[float]:
    """Return the numbers of a comma-separated list; empty if one is not a finite number."""
    try:
        numbers = [float(number) for number in text.split(",")]
    except ValueError:
        return []
    return numbers if all(math.isfinite(number) for number in numbers) else []


def _raise(name: str, value: object, remedy: str) -> NoReturn:
    raise UsageError(f"{name} is '{value}'", where=f"--{name}", remedy=remedy)
