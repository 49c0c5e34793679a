"""ERA5 as the Climate Data Store delivers it: GRIB, NetCDF or zips of them, by month or year.

Hersbach et al. (2020), doi:10.1002/qj.3803.
"""

from __future__ import annotations

import numpy as np

from pipelines.archives.formats import gridded
from pipelines.archives.series.archive import SeriesArchive
from pipelines.timeline.splits import Splits


def protocol_splits(times: np.ndarray) -> Splits | None:
    """Return None: no protocol defines splits, so they are by fraction or from a file."""
    return None


ARCHIVE = SeriesArchive(
    name="era5",
    title="ERA5",
    suffixes=gridded.SUFFIXES,
    describe=gridded.describe,
    decoder=gridded.decoder,
    protocol_splits=protocol_splits,
)
