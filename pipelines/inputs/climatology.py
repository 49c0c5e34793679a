"""What is usual at a place and time, from the train period alone.

A climatology is a baseline forecast, the base of anomaly correlations, and what a model of
anomalies adds to its output. Weather with two train years or more is averaged by day of year and
hour, smoothed over days; with less by hour of day; traffic by slot of the week. The definition is a
sentence that is printed with every score.

A store's climatology is kept beside its shards in one object, `.climatology/<variables>.npz`. It
records the sizes and versions of the shards that it was made from, so that it is made again after a
repair, an append or a copy of the store. It can be removed at any time.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipelines.errors import PlatformError, UsageError
from pipelines.storage import places
from pipelines.stores.reader import FrameReader

if TYPE_CHECKING:
    from pipelines.stores.store import Store

Cycle = Literal["year", "day", "week"]

SMOOTHING_DAYS = 31
"""days over which a climatology by day of year is averaged, centred"""
FOLDER = ".climatology"
"""folder of a store that holds its climatologies"""

_log = logging.getLogger(__name__)
_VERSION = 1
"""version of how a climatology is made: another one makes all of them again"""
_DAY = 86_400
_DAYS_OF_YEAR = 366
_TWO_YEARS = 2 * 365 * _DAY
_JANUARY_2000 = 360
"""months from January 1970 to January of a leap year"""
_WEEKLY_ARCHIVES = ("taxibj",)
_BLOCK_BYTES = 32 * 2**20
"""bytes of frames that are read at a time"""


@dataclass(frozen=True, eq=False)
class Climatology:
    """The usual frame at each place in a cycle."""

    table: np.ndarray
    """(bins, C, H, W) float32 in physical units; NaN if the train period has no value at all"""
    cycle: Cycle
    """`year`: day of year x slot of day; `day`: slot of day; `week`: slot of week"""
    slot_seconds: int
    """length of a slot"""
    definition: str
    """one sentence: how the mean is taken, how it is smoothed, from which period"""

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the table, as JSON."""
        known = ("cycle", "slot_seconds", "definition")
        return {name: getattr(self, name) for name in known}

    @property
    def checksum(self) -> str:
        """The xxh3-128 of the table."""
        import xxhash

        return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(self.table).tobytes())

    def at(self, times: np.ndarray) -> np.ndarray:
        """Return the usual frames at `times`.

        Parameters
        ----------
        times
            (...) datetime64, UTC.

        Returns
        -------
        np.ndarray
            (..., C, H, W) float32.
        """
        return self.table[_bins(np.asarray(times), self.cycle, self.slot_seconds)]


def climatology(
    store: Store, variables: Sequence[str], most_bytes: int | None = None
) -> Climatology:
    """Make the climatology of a store's train period, from its available frames.

    The memory is the table and a few blocks of frames. Reading waits for an object storage that is
    away, as it does for batches.

    Parameters
    ----------
    variables
        Names in channel order, as for a model.
    most_bytes
        Largest size of the table; None: any size.

    Raises
    ------
    UsageError
        A variable is unknown, the cadence does not divide a day, the train period has no available
        frame, or the table is larger than `most_bytes`.
    StoreError
        A shard of the train period is lost or damaged.
    """
    _check_has_calendar(store)
    for name in variables:
        store.variable(name)
    frames = _train_frames(store)
    cycle, slot = _cycle(store, frames)
    _check_size(store, variables, _slots(cycle, slot), most_bytes)
    parts = [_cycle_means(store, name, frames, cycle, slot) for name in variables]
    table = np.concatenate(parts, axis=1)
    return Climatology(table, cycle, slot, _definition(store, frames, cycle, slot))


def kept_climatology(
    store: Store, variables: Sequence[str], most_bytes: int | None = None
) -> Climatology:
    """Return the climatology of a store's train period from beside the store, or make it.

    A kept climatology of other shards, another period or another version is made again and
    replaced. If nothing can be written beside the store, a line in the log says so. The parameters
    are those of `climatology`.

    Raises
    ------
    UsageError, StoreError
        As `climatology`.
    """
    place = places.join(store.uri, FOLDER, f"{_file_name(variables)}.npz")
    source = _source_digest(store, variables)
    kept = _read_kept(place, source)
    if kept is not None and (most_bytes is None or kept.table.nbytes <= most_bytes):
        return kept
    made = climatology(store, variables, most_bytes)
    try:
        places.write_bytes(place, _to_bytes(made, source))
    except (OSError, PlatformError) as error:
        _log.warning("the climatology is not kept beside the store: %s", error)
    return made


def _check_has_calendar(store: Store) -> None:
    if store.clips is not None:
        raise UsageError(
            "clips have no calendar, so that nothing is usual at a time",
            where=store.uri,
            remedy="score against persistence only, and train without --data.anomalies",
        )


def _train_frames(store: Store) -> np.ndarray:
    """Return the available frames of the train period, int64 (n,)."""
    first, last = store.splits["train"]
    inside = (store.times >= first) & (store.times <= last) & (store.available == 0)
    frames = np.flatnonzero(inside)
    if not len(frames):
        raise UsageError(
            "the train period has no available frame to make a climatology of",
            where=f"{store.uri}, {_minute(first)} to {_minute(last)}",
            remedy="convert more of the archive, or name another period with --splits",
        )
    return frames


def _cycle(store: Store, frames: np.ndarray) -> tuple[Cycle, int]:
    """Return the cycle that the train period is long enough for, and its slot in seconds."""
    cadence = int(store.cadence / np.timedelta64(1, "s"))
    if _DAY % cadence and cadence % _DAY:
        raise UsageError(
            f"a cadence of {cadence} s does not divide a day, so that no time of day repeats",
            where=store.uri,
            remedy="score against persistence only, and train without --data.anomalies",
        )
    if str(store.attributes["archive"]) in _WEEKLY_ARCHIVES:
        return "week", cadence
    # Minutes of one hour share a mean: they differ little, and they are many.
    slot = min(max(cadence, 3600), _DAY)
    begin, end = store.times[frames[0]], store.times[frames[-1]]
    covered = float((end - begin) / np.timedelta64(1, "s")) + cadence
    return ("year" if covered >= _TWO_YEARS else "day"), slot


def _check_size(store: Store, variables: Sequence[str], slots: int, most_bytes: int | None) -> None:
    frame = sum(math.prod(store.variables[name].shape[1:]) for name in variables)
    size = 4 * frame * slots
    if most_bytes is not None and size > most_bytes:
        raise UsageError(
            f"the climatology of {', '.join(variables)} takes {size / 2**20:.0f} MiB, and at most "
            f"{most_bytes / 2**20:.0f} MiB can be kept with a model",
            where=store.uri,
            remedy="fewer variables, or a store on a coarser grid (reprocess.py convert --regrid)",
        )


def _definition(store: Store, frames: np.ndarray, cycle: Cycle, slot: int) -> str:
    names = {
        "year": f"mean by day of year and hour, smoothed over {SMOOTHING_DAYS} days",
        "day": "mean by hour of day" if slot == 3600 else f"mean by {slot // 60} min of the day",
        "week": f"mean by {slot // 60} min slot of the week",
    }
    begin, end = store.times[frames[0]], store.times[frames[-1]]
    period = f"{_minute(begin)} to {_minute(end)}"
    return f"{names[cycle]}, of {len(frames)} train frames from {period}"


def _slots(cycle: Cycle, slot: int) -> int:
    """Return the number of places of a cycle."""
    days = {"year": _DAYS_OF_YEAR, "day": 1, "week": 7}[cycle]
    return days * _DAY // slot


def _bins(times: np.ndarray, cycle: Cycle, slot: int) -> np.ndarray:
    """Return the place of each time in the cycle, (...) int64."""
    seconds = times.astype("datetime64[s]").astype(np.int64)
    slot_of_day = seconds % _DAY // slot
    if cycle == "day":
        return slot_of_day
    if cycle == "week":
        return seconds % (7 * _DAY) // slot  # from Thursday to Wednesday, as 1970 began
    return _day_of_leap_year(times) * (_DAY // slot) + slot_of_day


def _day_of_leap_year(times: np.ndarray) -> np.ndarray:
    """Return the day of each time in the leap year 2000, (...) from 0 to 365.

    1 March has the same place in every year. `gmg_model.normals` has the same formula.
    """
    months = times.astype("datetime64[M]")
    day_of_month = times.astype("datetime64[D]") - months.astype("datetime64[D]")
    in_2000 = _JANUARY_2000 + months.astype(np.int64) % 12
    day = in_2000.astype("datetime64[M]").astype("datetime64[D]") + day_of_month
    return (day - np.datetime64("2000-01-01")).astype(np.int64)


def _cycle_means(
    store: Store, name: str, frames: np.ndarray, cycle: Cycle, slot: int
) -> np.ndarray:
    """Return the means of one variable over the train frames, NaN pixels left out.

    Parameters
    ----------
    frames
        int64 (n,): the frames that are averaged.

    Returns
    -------
    np.ndarray
        (bins, channels, H, W) float32.
    """
    reader = FrameReader(store, (name,))
    per_day, bins = _DAY // slot, _slots(cycle, slot)
    shape = (bins, *reader.frame_shape)
    sums, counts = np.zeros(shape, np.float64), np.zeros(shape, np.float32)
    for chosen, first, block in _blocks(reader, frames):
        bin_of = _bins(store.times[chosen], cycle, slot)
        # A fancy index adds to each bin once only, so frames of one bin are added in rounds.
        for rows in _rounds(bin_of):
            values = block[chosen[rows] - first]
            valid = ~np.isnan(values)
            sums[bin_of[rows]] += np.where(valid, values, 0.0)
            counts[bin_of[rows]] += valid
    if cycle == "year":
        _smooth(sums, per_day)
        _smooth(counts, per_day)
    return _means(sums, counts, per_day)


def _blocks(
    reader: FrameReader, frames: np.ndarray
) -> Iterator[tuple[np.ndarray, int, np.ndarray]]:
    """Read the whole chunks that hold `frames`, int64 (n,) ascending, a block at a time.

    Yields
    ------
    chosen, first : np.ndarray, int
        The part of `frames` that lies in the block, and the first frame of the block.
    values : np.ndarray
        (n, C, H, W) float32.
    """
    chunk = reader.chunk_frames
    length = max(_BLOCK_BYTES // reader.frame_bytes // chunk, 1) * chunk
    for block in np.unique(frames // length).tolist():
        chosen = frames[frames // length == block]
        # Nothing beyond the chunks of the chosen frames: another shard may be damaged without harm.
        first = int(chosen[0]) // chunk * chunk
        last = min((int(chosen[-1]) // chunk + 1) * chunk, len(reader.store.times))
        values = np.empty((last - first, *reader.frame_shape), np.float32)
        reader.read(first, last, values)
        yield chosen, first, values


def _rounds(bin_of: np.ndarray) -> Iterator[np.ndarray]:
    """Yield rows in groups, so that no bin occurs twice in a group."""
    order = np.argsort(bin_of, kind="stable")
    ranked = bin_of[order]
    heads = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    occurrence = np.arange(len(ranked)) - np.repeat(
        heads, np.diff(np.concatenate([heads, [len(ranked)]]))
    )
    for turn in range(int(occurrence.max()) + 1):
        yield order[occurrence == turn]


def _smooth(values: np.ndarray, per_day: int) -> None:
    """Replace each day by the sum over the days around it, across the turn of the year."""
    half = SMOOTHING_DAYS // 2
    by_day = values.reshape(_DAYS_OF_YEAR, per_day, *values.shape[1:])
    for slot in range(per_day):  # one slot at a time bounds the padded copy
        days = by_day[:, slot]
        padded = np.concatenate([days[-half - 1 :], days, days[:half]], dtype=np.float64)
        total = np.cumsum(padded, axis=0)
        days[:] = total[2 * half + 1 :] - total[: -2 * half - 1]


def _means(sums: np.ndarray, counts: np.ndarray, per_day: int) -> np.ndarray:
    """Return the means; an empty bin takes the mean of its time of day, or else of all times."""
    # Smoothed counts are differences of sums, which may not be exactly 0.
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


def _minute(time: Any) -> str:
    return str(np.datetime64(time, "m"))


def _file_name(variables: Sequence[str]) -> str:
    """Return a file name of bounded length for a climatology of these variables.

    >>> _file_name(["t2m", "z"])
    't2m-z-afc16ab5'
    """
    names = "-".join(variables)
    return f"{names[:60]}-{hashlib.sha256(json.dumps(list(variables)).encode()).hexdigest()[:8]}"


def _source_digest(store: Store, variables: Sequence[str]) -> str:
    """Return a digest of everything that a climatology depends on."""
    shards = [[name, *shard] for name in variables for shard in _list_shards(store, name)]
    period = [str(moment) for moment in store.splits.get("train", ())]
    times = np.ascontiguousarray(store.times.astype("datetime64[s]").astype(np.int64))
    digest = hashlib.sha256(times.tobytes() + np.ascontiguousarray(store.available).tobytes())
    facts = [_VERSION, SMOOTHING_DAYS, list(variables), period, digest.hexdigest(), shards]
    facts += [str(store.attributes["archive"]), str(store.cadence)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _list_shards(store: Store, name: str) -> list[tuple[str, int, str]]:
    """Return name, size and version of each shard of a variable."""
    found = places.objects(places.join(store.uri, name, "c"))
    return [(place, info["size"], places.etag(info)) for place, info in found.items()]


def _to_bytes(made: Climatology, source: str) -> bytes:
    about = {**made.as_dict(), "source": source}
    content = io.BytesIO()
    np.savez(content, table=made.table, about=np.array(json.dumps(about)))
    return content.getvalue()


def _read_kept(place: str, source: str) -> Climatology | None:
    """Return the kept climatology; None if it is missing, damaged or made from another source."""
    try:
        content = places.read_bytes(place)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        # Zip files have checksums, so that a damaged table raises an error.
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            if about["source"] != source:
                return None
            known = about["cycle"], about["slot_seconds"], about["definition"]
            return Climatology(file["table"], *known)
    except Exception:  # NumPy, zip files and tokens of a header have errors of their own
        _log.warning("%s is damaged: the climatology is made again", place)
        return None
