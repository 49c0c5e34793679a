"""Process decoded frames as the options ask: crop, average, convert, cut at a threshold.

Averages are taken in linear units: reflectivity factors in mm6/m3 instead of decibels, rain rates
and sums as they are. A pixel without echo counts as zero; a pixel without measurement does not
count. Rates and reflectivities are related by Z = a R^b (Marshall and Palmer, 1948).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pipelines.archives.radar.formats.radar_format import Quantity
from pipelines.archives.radar.options import RadarOptions
from pipelines.area_average import AreaAverage, equal_parts

MEASURED_AREA = 0.5
"""An average is missing if less than this fraction of its area was measured."""
NO_ECHO_DBZ = -32.0
"""dBZ of a pixel without rain, after a conversion to reflectivity."""


def converted_quantity(held: Quantity, options: RadarOptions) -> Quantity:
    """Return the quantity in the store, of a quantity in the files."""
    if options.unit in ("source", held.unit):
        return held
    if options.unit == "dBZ":
        return held.converted("reflectivity", NO_ECHO_DBZ)
    return held.converted("rain_rate", 0.0)


@dataclass(frozen=True)
class Processing:
    """The way from the frames of a file to the frames of the store."""

    options: RadarOptions
    held: Quantity
    stored: Quantity

    def __call__(self, values_nyx: np.ndarray) -> np.ndarray:
        """Return float32 (n, *grid of the store) of decoded (n, rows, columns)."""
        options, held, stored = self.options, self.held, self.stored
        if options.window is not None:
            top, bottom, left, right = options.window
            values_nyx = values_nyx[:, top:bottom, left:right]
        # Some files hold values below their own value of no echo. NaN stays NaN.
        values = np.maximum(values_nyx, np.float32(held.no_echo))
        if options.shape is not None:
            values = _averaged(values, options.shape, held)
        if stored.name != held.name:
            values = _converted(values, held, stored, options.coefficients)
        if options.least is not None:
            values = np.where(values < options.least, np.float32(stored.no_echo), values)
        return np.ascontiguousarray(values, dtype=np.float32)


def area_mean(values_nyx: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the mean over each pixel of a coarser grid, weighted by measured area.

    Parameters
    ----------
    values_nyx:
        (n, rows, columns); NaN where nothing was measured.

    Returns
    -------
    float64 (n, *shape); NaN where less than `MEASURED_AREA` of a pixel was measured.
    """
    _, rows, columns = values_nyx.shape
    return _average((rows, columns), shape)(values_nyx, MEASURED_AREA)


@lru_cache(maxsize=8)
def _average(fine: tuple[int, int], coarse: tuple[int, int]) -> AreaAverage:
    return AreaAverage(equal_parts(fine[0], coarse[0]), equal_parts(fine[1], coarse[1]))


def _averaged(values: np.ndarray, shape: tuple[int, int], held: Quantity) -> np.ndarray:
    if held.unit != "dBZ":
        return area_mean(values, shape)
    linear = _reflectivity_factor(values, held.no_echo)
    return np.maximum(_decibels(area_mean(linear, shape)), held.no_echo)


def _reflectivity_factor(values: np.ndarray, no_echo: float) -> np.ndarray:
    """Return mm6/m3 of dBZ; no echo becomes zero."""
    linear = 10 ** (values.astype(np.float64) / 10)
    return np.where(values <= np.float32(no_echo), 0.0, linear)


def _decibels(linear: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return 10 * np.log10(linear)


def _converted(
    values: np.ndarray, held: Quantity, stored: Quantity, zr: tuple[float, float]
) -> np.ndarray:
    a, b = zr
    rate = values.astype(np.float64)
    if held.name == "rainfall":
        rate = rate * 3600 / held.accumulation_seconds
    if stored.name == "rain_rate":
        if held.name == "reflectivity":
            return (_reflectivity_factor(values, held.no_echo) / a) ** (1 / b)
        return rate
    return np.maximum(_decibels(a * np.maximum(rate, 0.0) ** b), stored.no_echo)
