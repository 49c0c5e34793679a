"""What is usual at a place and time, from the train period alone: a baseline and the base of ACC.

Weather with two train years or more: day of year x hour, smoothed over days. With less: hour of
day. Traffic: slot of the week. The definition is a sentence that is printed with every score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipelines.errors import PlatformError, StoreError, UsageError
from pipelines.stores.lost_shards import check_not_lost, describe_frames

if TYPE_CHECKING:
    import xarray as xr

    from pipelines.stores.store import Store, VariableInfo

Cycle = Literal["year", "day", "week"]

SMOOTHING_DAYS = 31
"""Days over which the day-of-year climatology is averaged, centred."""

_DAY = 86_400
_DAYS_OF_YEAR = 366
_TWO_YEARS = 2 * 365 * _DAY
_WEEKLY_ARCHIVES = ("taxibj",)
_BLOCK_BYTES = 32 * 2**20


@dataclass(frozen=True, eq=False)
class Climatology:
    """The usual frame at each place in a cycle."""

    table: np.ndarray
    """(bins, C, H, W) float32, physical units; NaN where the train period has no value at all."""
    cycle: Cycle
    """``year``: day of year x slot of day; ``day``: slot of day; ``week``: slot of week."""
    slot_seconds: int
    """Length of a slot."""
    definition: str
    """One sentence: what it is, how smoothed, from which period."""

    def as_dict(self) -> dict[str, Any]:
        """All but the table, as JSON."""
        known = ("cycle", "slot_seconds", "definition")
        return {name: getattr(self, name) for name in known}

    @property
    def checksum(self) -> str:
        """xxh3-128 of the table."""
        import xxhash

        return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(self.table).tobytes())

    def at(self, times: np.ndarray) -> np.ndarray:
        """The usual frames at ``times`` (datetime64, (...)): (..., C, H, W) float32."""
        return self.table[_bins(np.asarray(times), self.cycle, self.slot_seconds)]


def climatology(
    store: Store, variables: Sequence[str], most_bytes: int | None = None
) -> Climatology:
    """The climatology of a store's train period, from its available frames.

    Memory is the table and a few blocks of frames, whatever the length of the store.

    Parameters
    ----------
    variables:
        Names in channel order, as for a model.
    most_bytes:
        Of the table; None: as many as it takes.

    Raises
    ------
    UsageError
        An unknown variable, a cadence that does not divide a day, no frame in the train period, or
        a table of more bytes.
    StoreError
        A shard of the train period is lost or damaged.
    """
    if store.clips is not None:
        raise UsageError(
            "clips have no calendar, so that nothing is usual at a time",
            where=store.uri,
            remedy="score against persistence only, and train without --data.anomalies",
        )
    for name in variables:
        store.variable(name)
    cadence = int(store.cadence / np.timedelta64(1, "s"))
    first, last = store.splits["train"]
    inside = (store.times >= first) & (store.times <= last) & (store.available == 0)
    frames = np.flatnonzero(inside)
    if not len(frames):
        raise UsageError(
            "the train period has no available frame to make a climatology of",
            where=f"{store.uri}, {_day(first)} to {_day(last)}",
            remedy="convert more of the archive, or name another period with --splits",
        )
    times = store.times
    begin, end = times[frames[0]], times[frames[-1]]
    covered = float((end - begin) / np.timedelta64(1, "s")) + cadence
    cycle, slot = _cycle(str(store.attributes["archive"]), covered, cadence, store.uri)
    frame = sum(math.prod(store.variables[name].shape[1:]) for name in variables)
    size = 4 * frame * _slots(cycle, slot)
    if most_bytes is not None and size > most_bytes:
        raise UsageError(
            f"the climatology of {', '.join(variables)} takes {size / 2**20:.0f} MiB, and at most "
            f"{most_bytes / 2**20:.0f} MiB can be kept with a model",
            where=store.uri,
            remedy="fewer variables, or a store on a coarser grid (reprocess.py convert --regrid)",
        )

    dataset = store.dataset()
    parts = [
        _cycle_means(
            _blocks(store, name, _chunked(dataset, store.variables[name])),
            store.variables[name].shape[1:],
            times,
            frames,
            cycle,
            slot,
            partial(check_not_lost, store, name),
        )
        for name in variables
    ]
    table = np.concatenate([p.reshape(len(p), -1, *p.shape[-2:]) for p in parts], axis=1)
    names = {
        "year": f"mean by day of year and hour, smoothed over {SMOOTHING_DAYS} days",
        "day": "mean by hour of day" if slot == 3600 else f"mean by {slot // 60} min of the day",
        "week": f"mean by {slot // 60} min slot of the week",
    }
    definition = f"{names[cycle]}, of {len(frames)} train frames from {_day(begin)} to {_day(end)}"
    return Climatology(table, cycle, slot, definition)


def _cycle(archive: str, covered: float, cadence: int, uri: str) -> tuple[Cycle, int]:
    """The cycle that the train period can tell, and its slot in seconds."""
    if _DAY % cadence and cadence % _DAY:
        raise UsageError(
            f"a cadence of {cadence} s does not divide a day, so that no time of day repeats",
            where=uri,
            remedy="score against persistence only, and train without --data.anomalies",
        )
    if archive in _WEEKLY_ARCHIVES:
        return "week", cadence
    # Minutes within an hour share a mean: they differ little and are many.
    slot = min(max(cadence, 3600), _DAY)
    return ("year" if covered >= _TWO_YEARS else "day"), slot


def _slots(cycle: Cycle, slot: int) -> int:
    """How many places a cycle has."""
    days = {"year": _DAYS_OF_YEAR, "day": 1, "week": 7}[cycle]
    return days * _DAY // slot


def _bins(times: np.ndarray, cycle: Cycle, slot: int) -> np.ndarray:
    """(...) int64: the place of each time in the cycle."""
    seconds = times.astype("datetime64[s]").astype(np.int64)
    slot_of_day = seconds % _DAY // slot
    if cycle == "day":
        return slot_of_day
    if cycle == "week":
        return seconds % (7 * _DAY) // slot  # weeks from Thursday to Wednesday, as 1970 began
    return _day_of_leap_year(times) * (_DAY // slot) + slot_of_day


def _day_of_leap_year(times: np.ndarray) -> np.ndarray:
    """(...) in [0, 366): 29 February has its own place, so that 1 March is always the same one."""
    days = times.astype("datetime64[D]")
    years = times.astype("datetime64[Y]")
    day = (days - years.astype("datetime64[D]")).astype(np.int64)
    year = years.astype(np.int64) + 1970
    common = (year % 4 != 0) | ((year % 100 == 0) & (year % 400 != 0))
    return day + (common & (day >= 59))


def _chunked(dataset: xr.Dataset, info: VariableInfo) -> xr.DataArray:
    """A variable as a dask array of blocks of whole chunks."""
    frame_bytes = int(np.prod(info.shape[1:])) * 4
    block = max(_BLOCK_BYTES // frame_bytes // info.chunk_frames, 1) * info.chunk_frames
    return dataset[info.name].chunk({info.dims[0]: block})


def _cycle_means(
    blocks: Iterator[tuple[int, np.ndarray]],
    shape: tuple[int, ...],
    times: np.ndarray,
    frames: np.ndarray,
    cycle: Cycle,
    slot: int,
    check: Callable[[np.ndarray, np.ndarray], None],
) -> np.ndarray:
    """(bins, *extra, H, W) float32: means over the train frames, NaN pixels left out."""
    per_day, bins = _DAY // slot, _slots(cycle, slot)
    sums, counts = np.zeros((bins, *shape), np.float64), np.zeros((bins, *shape), np.float32)
    for first, block in blocks:
        chosen = frames[(frames >= first) & (frames < first + len(block))]
        if not len(chosen):
            continue
        check(chosen, block[chosen - first])
        places = _bins(times[chosen], cycle, slot)
        # Frames of one bin are added one round after another: a fancy index adds each bin once.
        for rows in _rounds(places):
            values = block[chosen[rows] - first]
            valid = ~np.isnan(values)
            sums[places[rows]] += np.where(valid, values, 0.0)
            counts[places[rows]] += valid
    if cycle == "year":
        _smooth(sums, per_day)
        _smooth(counts, per_day)
    return _means(sums, counts, per_day)


def _blocks(store: Store, name: str, array: xr.DataArray) -> Iterator[tuple[int, np.ndarray]]:
    """(first frame, values) of the blocks of a dask array, in order of time."""
    first = 0
    for length, block in zip(array.data.chunks[0], array.data.blocks, strict=True):
        try:
            values = block.compute()
        except PlatformError:
            raise
        except Exception as error:  # each codec has errors of its own
            raise StoreError(
                f"cannot read '{name}': {type(error).__name__}: {error}",
                where=describe_frames(store, name, first, first + length),
                remedy=store.convert_command("--repair"),
            ) from error
        yield first, values
        first += length


def _rounds(places: np.ndarray) -> Iterator[np.ndarray]:
    """Rows split so that no place occurs twice in a part."""
    order = np.argsort(places, kind="stable")
    ranked = places[order]
    heads = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    occurrence = np.arange(len(ranked)) - np.repeat(
        heads, np.diff(np.concatenate([heads, [len(ranked)]]))
    )
    for turn in range(int(occurrence.max()) + 1):
        yield order[occurrence == turn]


def _smooth(values: np.ndarray, per_day: int) -> None:
    """Put the sum over a centred run of days, around the turn of the year, in place of each day."""
    half = SMOOTHING_DAYS // 2
    by_day = values.reshape(_DAYS_OF_YEAR, per_day, *values.shape[1:])
    for slot in range(per_day):  # one slot at a time, to bound the padded copy
        days = by_day[:, slot]
        padded = np.concatenate([days[-half - 1 :], days, days[:half]], dtype=np.float64)
        total = np.cumsum(padded, axis=0)
        days[:] = total[2 * half + 1 :] - total[: -2 * half - 1]


def _means(sums: np.ndarray, counts: np.ndarray, per_day: int) -> np.ndarray:
    """Means; a bin that has no value takes the mean of its time of day, else of all."""
    empty = counts < 0.5
    with np.errstate(invalid="ignore"):
        by_slot = (sums.reshape(-1, per_day, *sums.shape[1:]).sum(0)) / counts.reshape(
            -1, per_day, *sums.shape[1:]
        ).sum(0)
        overall = sums.sum(0) / counts.sum(0)
        means = np.divide(sums, counts, out=sums).astype(np.float32)
    if empty.any():
        by_slot = np.where(np.isnan(by_slot), overall, by_slot)
        usual = np.broadcast_to(by_slot, (len(sums) // per_day, *by_slot.shape))
        np.copyto(means, usual.reshape(means.shape), where=empty, casting="same_kind")
    return means


def _day(time: Any) -> str:
    return str(np.datetime64(time, "m"))
