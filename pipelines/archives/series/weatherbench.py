"""WeatherBench at 5.625 degrees: files such as `2m_temperature/2m_temperature_2010_5.625deg.nc`.

Rasp et al. (2020), doi:10.1029/2020MS002203. The protocol of the video prediction papers trains on
2010 to 2015, validates on 2016 and tests on 2017 and 2018.
"""

from __future__ import annotations

import numpy as np

from pipelines.archives.formats import netcdf
from pipelines.archives.series.archive import SeriesArchive
from pipelines.timeline.splits import Splits

PROTOCOL_YEARS = {"train": (2010, 2015), "validation": (2016, 2016), "test": (2017, 2018)}
"""split -> first and last year, inclusive"""


def protocol_splits(times: np.ndarray) -> Splits | None:
    """Return the papers' splits by year; None unless the archive has frames in all three."""
    splits: Splits = {}
    for name, (first, last) in PROTOCOL_YEARS.items():
        begin = np.datetime64(str(first), "s").astype(np.int64)
        end = np.datetime64(str(last + 1), "s").astype(np.int64)
        inside = times[(times >= begin) & (times < end)]
        if not len(inside):
            return None
        splits[name] = (int(inside[0]), int(inside[-1]))
    return splits


ARCHIVE = SeriesArchive(
    name="weatherbench",
    title="WeatherBench, 5.625 degrees",
    suffixes=(".nc",),
    describe=netcdf.describe,
    decoder=netcdf.decoder,
    protocol_splits=protocol_splits,
)
