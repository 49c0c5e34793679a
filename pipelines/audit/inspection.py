"""Describe a store: its axes, variables, gaps, splits, statistics and provenance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipelines import cf
from pipelines.conversion.estimate import ClipsDescription, Gap, describe_clips
from pipelines.storage.lease import LEDGER_FOLDER
from pipelines.stores.ledger import Ledger, object_sizes
from pipelines.stores.store import Store, open_store
from pipelines.timeline.intervals import true_runs


@dataclass(frozen=True)
class AxisDescription:
    """One axis of a store's grid."""

    size: int
    """number of pixels"""
    from_to: tuple[float, float] | None
    """first and last coordinate; None if the store has no coordinates of this axis"""


@dataclass(frozen=True)
class VariableDescription:
    """One variable of a store."""

    long_name: str
    """its CF attribute"""
    units: str
    """physical unit"""
    dims: tuple[str, ...]
    """names of the axes of its array"""
    shape: tuple[int, ...]
    """sizes of these axes"""
    channels: tuple[str, ...]
    """names of the channels that it becomes"""
    chunk_frames: int
    """frames per chunk"""
    shard_frames: int
    """frames per shard"""
    shards: int
    """shards in the store"""
    shards_missing: int
    """shards that should be in the store and are not"""
    bytes_raw: int
    """bytes of all values as float32"""
    bytes_stored: int
    """bytes of all shards"""


@dataclass(frozen=True)
class StaticFieldDescription:
    """One static field of a store."""

    long_name: str
    """its CF attribute"""
    units: str
    """physical unit"""
    dims: tuple[str, ...]
    """names of its axes"""
    shape: tuple[int, ...]
    """sizes of these axes"""
    mean: float
    """mean over the field, in `units`"""
    std: float
    """standard deviation over the field, in `units`"""
    min: float
    """smallest value, in `units`"""
    max: float
    """largest value, in `units`"""


@dataclass(frozen=True)
class Provenance:
    """Where a store comes from."""

    source: str | None
    """place of the archive"""
    files: tuple[Mapping[str, Any], ...]
    """the source files that were read, as the ledger records them"""
    converter_version: int | str
    """version of the conversion that wrote the store"""
    owner: str | None
    """process that wrote it last"""
    updated_at: str | None
    """when, in UTC"""


@dataclass(frozen=True)
class StoreDescription:
    """What a store holds."""

    store: str
    """URI of the store"""
    title: str
    """title of the archive"""
    archive: str
    """name of the archive"""
    synthetic: bool
    """whether frames are computed and not measured"""
    period: tuple[str, str] | None
    """first and last time; None for clips"""
    samples: ClipsDescription | None
    """the clips; None for a time series"""
    cadence_seconds: int | None
    """seconds between frames; None for clips without time"""
    frames: int
    """frames on the time axis"""
    frames_available: int
    """frames that can be used"""
    grid: Mapping[str, AxisDescription]
    """axis -> its size and ends, rows first"""
    variables: Mapping[str, VariableDescription]
    static_fields: Mapping[str, StaticFieldDescription]
    objects: int
    """objects of the store, without its ledger"""
    bytes: int
    """bytes of these objects"""
    gaps: tuple[Gap, ...]
    """gaps in the order of time"""
    splits: Mapping[str, Any]
    """split -> first and last time, or first and last clip"""
    splits_origin: str
    """what fixed the splits: protocol, fraction or file"""
    splits_embargo: bool
    """whether no window of one split may touch another"""
    statistics: Mapping[str, Any]
    """of the train period, as the store's attributes hold them"""
    statistics_fingerprint: str
    """sha256 of the statistics"""
    configuration: Mapping[str, Any]
    """options of the conversion"""
    provenance: Provenance

    def as_dict(self) -> dict[str, Any]:
        """Return nested dictionaries, for JSON."""
        return asdict(self)


def inspect(uri: str) -> StoreDescription:
    """Describe the store at `uri`.

    Raises
    ------
    StoreError
        No complete store is there.

    Examples
    --------
    >>> inspect("t2m.zarr").variables["t2m"].units  # doctest: +SKIP
    'K'
    """
    store = open_store(uri)
    sizes = object_sizes(store.uri, "")
    stored = {
        name: size for name, size in sizes.items() if not name.startswith(f"{LEDGER_FOLDER}/")
    }
    return StoreDescription(
        store=store.uri,
        title=store.title,
        archive=store.attributes["archive"],
        synthetic=store.synthetic,
        period=None if store.clips else (_iso(store.times[0]), _iso(store.times[-1])),
        samples=describe_clips(store.clips),
        cadence_seconds=store.attributes["cadence_seconds"],
        frames=len(store.times),
        frames_available=int((store.available == cf.OK).sum()),
        grid=_grid(store),
        variables={name: _variable(store, name, stored) for name in store.variables},
        static_fields=_static_fields(store),
        objects=len(stored),
        bytes=sum(stored.values()),
        gaps=_gaps(store),
        splits=store.attributes["splits"],
        splits_origin=store.attributes["splits_origin"],
        splits_embargo=store.attributes["splits_embargo"],
        statistics=store.statistics,
        statistics_fingerprint=store.fingerprint,
        configuration=store.attributes["configuration"],
        provenance=_provenance(store),
    )


def _provenance(store: Store) -> Provenance:
    summary = Ledger(store.uri).read_plan() or {}
    return Provenance(
        source=summary.get("source"),
        files=tuple(summary.get("sources", ())),
        converter_version=store.attributes["converter_version"],
        owner=summary.get("owner"),
        updated_at=summary.get("updated_at"),
    )


def _grid(store: Store) -> dict[str, AxisDescription]:
    first = next(iter(store.variables.values()))
    grid: dict[str, AxisDescription] = {}
    for dim, size in zip(first.dims[-2:], first.shape[-2:], strict=True):
        values = store.coordinates.get(dim)
        ends = (float(values[0]), float(values[-1])) if values is not None else None
        grid[dim] = AxisDescription(size, ends)
    return grid


def _variable(store: Store, name: str, sizes: Mapping[str, int]) -> VariableDescription:
    variable = store.variables[name]
    shards = [size for place, size in sizes.items() if place.startswith(f"{name}/c/")]
    return VariableDescription(
        long_name=variable.long_name,
        units=variable.units,
        dims=tuple(variable.dims),
        shape=tuple(variable.shape),
        channels=tuple(variable.channel_labels),
        chunk_frames=variable.chunk_frames,
        shard_frames=variable.shard_frames,
        shards=len(shards),
        shards_missing=-(-len(store.times) // variable.shard_frames) - len(shards),
        bytes_raw=4 * int(np.prod(variable.shape)),
        bytes_stored=sum(shards),
    )


def _static_fields(store: Store) -> dict[str, StaticFieldDescription]:
    return {
        info.name: StaticFieldDescription(
            info.long_name, info.units, tuple(info.dims), tuple(info.shape), **info.statistics
        )
        for info in store.static_fields.values()
    }


def _gaps(store: Store) -> tuple[Gap, ...]:
    label: Callable[[int], str] = (
        (lambda frame: _iso(store.times[frame])) if store.clips is None else store.clips.label
    )
    runs = sorted(
        (first, last, frames, cf.FLAG_MEANINGS[flag])
        for flag in range(1, len(cf.FLAG_MEANINGS))
        for first, last, frames in true_runs(store.available == flag)
    )
    return tuple(Gap(label(first), label(last), frames, why) for first, last, frames, why in runs)


def _iso(time: np.datetime64) -> str:
    return str(time.astype("datetime64[s]"))
