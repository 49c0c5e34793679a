"""TaxiBJ and BikeNYC: flows of people between the cells of a city, one HDF5 file per period.

Zhang et al. (2017), arXiv:1610.00081. `data` (N, 2, H, W) holds inflow and outflow. `date` (N,)
holds the day and the slot of the day, counted from 01, as `YYYYMMDDSS`. A day has 48 slots, or 24
if no slot number is above 24. Times are local times of the city.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.archives.contents import Decode, FileContents, FileVariable, SourceFile
from pipelines.archives.formats.coordinates import FLOW_CHANNELS
from pipelines.archives.formats.netcdf import covering
from pipelines.archives.interface import ArchiveOptions, check_at_least, option
from pipelines.archives.series.archive import SeriesArchive
from pipelines.errors import SourceError
from pipelines.timeline.splits import Splits

TEST_SECONDS = 28 * 86_400
"""length of the test split, which is the last four weeks"""
VALIDATION_FRACTION = 0.1
"""fraction of the frames before the test split; validation takes the last ones"""


@dataclass(frozen=True)
class TrafficOptions(ArchiveOptions):
    """What the files do not state themselves."""

    slots_per_day: int = option(0, "48 half-hourly or 24 hourly; 0: as found")

    def __post_init__(self) -> None:
        check_at_least(self, slots_per_day=0)


def describe(path: str, file: SourceFile, options: TrafficOptions) -> FileContents:
    """Return the variable `flow` and its times."""
    import h5py

    try:
        with h5py.File(path, "r") as content:
            shape = content["data"].shape  # pyright: ignore[reportAttributeAccessIssue]
            dates = np.asarray(content["date"][:])  # pyright: ignore[reportIndexIssue]
            attributes = dict(content.attrs)
    except (OSError, KeyError) as error:
        raise SourceError(
            f"not an HDF5 file in the TaxiBJ layout, or truncated: {error}",
            where=f"{file.uri} ({file.size} bytes)",
            remedy="it must hold 'data' (N, 2, H, W) and 'date' (N,): fetch it again, or leave it "
            "out of the source",
        ) from None
    if (
        len(shape) != 4
        or shape[1] != len(FLOW_CHANNELS)
        or len(dates) != shape[0]
        or not len(dates)
    ):
        raise SourceError(
            f"'data' is {shape} and 'date' ({len(dates)},), not (N, 2, H, W) and (N,)",
            where=file.uri,
            remedy="leave the file out of the source",
        )
    slots = [_slot(date, file) for date in dates.tolist()]
    per_day = options.slots_per_day or (24 if max(slot for _, slot in slots) <= 24 else 48)
    flow = FileVariable(
        name="flow",
        times=np.array([_seconds(day, slot, per_day, file) for day, slot in slots], np.int64),
        dims=("channel", "y", "x"),
        shape=tuple(shape[1:]),
        coordinates={"channel": np.array(FLOW_CHANNELS)},
        attributes={"long_name": "people entering and leaving the cell in a slot", "units": "1"},
    )
    return FileContents(file, (flow,), attributes, 86_400 // per_day, local_time=True)


@contextmanager
def decoder(path: str, file: SourceFile) -> Iterator[Decode]:
    """Yield the function that decodes frames, float32 (n, 2, y, x), and keep the file open."""
    import h5py

    with h5py.File(path, "r") as content:
        yield lambda variable, positions: _frames(content["data"], positions, file)


def _frames(data: Any, positions: np.ndarray, file: SourceFile) -> np.ndarray:
    selection, rest = covering(positions)
    try:
        values = np.asarray(data[selection])
    except OSError as error:
        raise SourceError(
            f"frames of 'flow' cannot be decoded: {error}",
            where=f"{file.uri}, frames {positions.min()} to {positions.max()}",
            remedy="the file is damaged: fetch it again and run the same command",
        ) from None
    return np.ascontiguousarray(values if rest is None else values[rest], dtype=np.float32)


def protocol_splits(times: np.ndarray) -> Splits | None:
    """Return the papers' splits; None if the archive is too short for them.

    The last four weeks are for test, and the last tenth of the rest is for validation.
    """
    rest = times[times <= times[-1] - TEST_SECONDS]
    test = times[times > times[-1] - TEST_SECONDS]
    validation = round(VALIDATION_FRACTION * len(rest))
    if validation < 1 or len(rest) < len(test):
        return None
    train = len(rest) - validation
    return {
        "train": (int(rest[0]), int(rest[train - 1])),
        "validation": (int(rest[train]), int(rest[-1])),
        "test": (int(test[0]), int(test[-1])),
    }


def _slot(date: bytes | str, file: SourceFile) -> tuple[datetime.date, int]:
    """Return the day and the slot of a date such as "2014040148"."""
    text = date.decode() if isinstance(date, bytes) else str(date)
    try:
        day = datetime.date(int(text[:4]), int(text[4:6]), int(text[6:8]))
        return day, int(text[8:])
    except ValueError:
        raise SourceError(
            f"a date is not of the form YYYYMMDDSS: {text!r}",
            where=file.uri,
            remedy="repair the file's 'date', or leave it out of the source",
        ) from None


def _seconds(day: datetime.date, slot: int, per_day: int, file: SourceFile) -> int:
    """Return the local time at which a slot begins, in seconds since 1970-01-01."""
    if not 1 <= slot <= per_day:
        raise SourceError(
            f"slot {slot} of {day} is outside 1 to {per_day}",
            where=file.uri,
            remedy="give the archive's number of slots as --slots_per_day",
        )
    days = (day - datetime.date(1970, 1, 1)).days
    return days * 86_400 + (slot - 1) * (86_400 // per_day)


ARCHIVE = SeriesArchive(
    name="taxibj",
    title="Traffic: inflow and outflow of a city's cells",
    suffixes=(".h5", ".hdf5"),
    describe=describe,
    decoder=decoder,
    protocol_splits=protocol_splits,
    separate_periods=True,
    options=TrafficOptions,
)
