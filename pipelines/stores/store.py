"""Open, check and describe a store."""

from __future__ import annotations

import contextlib
import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.cf import GRID_MAPPING, NO_FLAG
from pipelines.errors import PlatformError, StoreError, UsageError, nearest
from pipelines.storage import places
from pipelines.storage.lease import LEDGER_FOLDER
from pipelines.stores.ledger import Ledger
from pipelines.timeline.clips import Clips
from pipelines.timeline.splits import split_text

if TYPE_CHECKING:
    import xarray as xr
    import zarr

_NOT_VARIABLES = ("time", "available", "missing_fraction")


@dataclass(frozen=True)
class VariableInfo:
    """One variable of a store."""

    name: str
    dims: tuple[str, ...]
    """`(time, [level, member, channel ...], y, x)`; with clips, `sample` comes first"""
    shape: tuple[int, ...]
    chunk_frames: int
    """frames per chunk"""
    shard_frames: int
    """frames per shard"""
    units: str
    long_name: str
    channel_labels: tuple[str, ...]
    """one label per channel: `(t2m,)` or `(z[850], z[500])`"""

    @property
    def extra_dims(self) -> tuple[str, ...]:
        """The dimensions between time and the grid, such as level, member or channel."""
        return self.dims[self.dims.index("time") + 1 : -2]

    @property
    def extra_shape(self) -> tuple[int, ...]:
        """The lengths of `extra_dims`."""
        return self.shape[self.dims.index("time") + 1 : -2]


@dataclass(frozen=True)
class StaticInfo:
    """One static field of a store: an array without a time axis."""

    name: str
    dims: tuple[str, ...]
    """(y, x)"""
    shape: tuple[int, ...]
    units: str
    long_name: str
    statistics: Mapping[str, float]
    """`mean`, `std`, `min` and `max` over the field"""


@dataclass(frozen=True, eq=False)
class Store:
    """A complete store, as its consolidated metadata describe it. Can be pickled."""

    uri: str
    attributes: Mapping[str, Any]
    """attributes of the root"""
    times: np.ndarray
    """datetime64[ns] (T,); for clips a made-up axis, clip after clip with a jump between two"""
    available: np.ndarray
    """uint8 (T,): 0 if the frame can be used, or one of the flags in `pipelines.cf`"""
    cadence: np.timedelta64
    """time between frames, inside a period without a jump"""
    variables: Mapping[str, VariableInfo]
    coordinates: Mapping[str, np.ndarray]
    """values by dimension, except time"""
    clips: Clips | None = None
    """the clips, if the archive is one of clips; their frames are counted clip after clip"""
    static_fields: Mapping[str, StaticInfo] = field(default_factory=dict)
    """fields on the grid that do not change with time"""
    projection: str | None = None
    """PROJ string of the grid; None if the archive has none"""

    @property
    def title(self) -> str:
        """The title of the archive."""
        return str(self.attributes["title"])

    @property
    def synthetic(self) -> bool:
        """Whether the source says that its data are made up, not observed."""
        return bool(self.attributes["synthetic"])

    @property
    def local_time(self) -> bool:
        """Whether times are local time, not UTC."""
        return bool(self.attributes.get("local_time", False))

    @property
    def splits(self) -> dict[str, tuple[np.datetime64, np.datetime64]]:
        """The first and last time of each split, inclusive, as in `times`."""
        if self.clips is not None:
            ranges = {name: self.clips.frame_range(name) for name in self.clips.splits}
            return {
                name: (self.times[begin], self.times[end - 1])
                for name, (begin, end) in ranges.items()
            }
        return {
            name: (np.datetime64(first, "ns"), np.datetime64(last, "ns"))
            for name, (first, last) in self.attributes["splits"].items()
        }

    @property
    def statistics(self) -> dict[str, Any]:
        """The statistics of the train period: `split`, `period` and `variables`."""
        return self.attributes["statistics"]

    @property
    def fingerprint(self) -> str:
        """The sha256 of the statistics."""
        return self.attributes["statistics_fingerprint"]

    @property
    def spatial_shape(self) -> tuple[int, int]:
        """(H, W) of every variable."""
        height, width = next(iter(self.variables.values())).shape[-2:]
        return height, width

    def period(self, split: str) -> tuple[str, str]:
        """Return first and last of a split as text: times, or numbers of samples."""
        return split_text(self.attributes["splits"][split])

    def label(self, frame: int) -> str:
        """Return the name of a frame: its time, or its clip and its place there."""
        if self.clips is not None:
            return self.clips.label(frame)
        return str(self.times[frame].astype("datetime64[m]"))

    def variable(self, name: str) -> VariableInfo:
        """Return a variable; raise UsageError that suggests the nearest name if it is unknown."""
        if name not in self.variables:
            raise UsageError(
                f"the store has no variable '{name}'",
                where=self.uri,
                remedy=nearest(name, self.variables),
            )
        return self.variables[name]

    def array(self, name: str) -> zarr.Array:
        """Return the array of a variable or a static field, read-only.

        Its shape is `(T, *extra, H, W)`, or `(sample, T, ...)` with clips, or `(H, W)` for a static
        field.
        """
        if name not in self.static_fields:
            self.variable(name)
        return _open_group(self.uri)[name]  # pyright: ignore[reportReturnType]

    def convert_command(self, more: str = "") -> str:
        """Return the command that converts the source again, with more options at its end."""
        return _convert_command(self.uri, f" {more}" if more else "")

    def dataset(self) -> xr.Dataset:
        """Open the store with xarray. Values are read when they are used."""
        import xarray as xr

        options = places.driver_options(self.uri) or None
        return xr.open_zarr(self.uri, consolidated=True, chunks=None, storage_options=options)


def open_store(uri: str) -> Store:
    """Open the store at `uri`.

    Raises
    ------
    StoreError
        There is no store, its conversion did not end, it is damaged, or another program wrote it.

    Examples
    --------
    >>> store = open_store("s3://bucket/t2m.zarr")  # doctest: +SKIP
    >>> store.variables["t2m"].units  # doctest: +SKIP
    'K'
    """
    uri = places.absolute(uri)
    metadata, attributes = _read_root(uri)
    group = _open_group(uri)
    one_dimensional = {
        name: np.asarray(group[name])
        for name, array in metadata.items()
        if len(array["shape"]) == 1
    }
    available = np.asarray(group["available"]).reshape(-1)
    _check_not_lost(uri, one_dimensional | {"available": available})
    coordinates = {k: v for k, v in one_dimensional.items() if k not in _NOT_VARIABLES}
    variables = {
        name: _variable(name, array, coordinates)
        for name, array in metadata.items()
        if array["node_type"] == "array" and len(array["shape"]) >= 3
    }
    order = attributes["configuration"]["variables"]
    clips = _clips(attributes, one_dimensional)
    times = one_dimensional["time"] if clips is None else clips.axis()
    cadence = attributes["cadence_seconds"] if clips is None else clips.step
    return Store(
        uri=uri,
        attributes=attributes,
        times=times.astype("datetime64[s]").astype("datetime64[ns]"),
        available=available,
        cadence=np.timedelta64(cadence, "s"),
        variables={name: variables[name] for name in order},
        coordinates=coordinates,
        clips=clips,
        static_fields={
            name: _static(name, metadata[name])
            for name, _ in attributes["configuration"].get("static_fields", ())
        },
        projection=metadata.get(GRID_MAPPING, {}).get("attributes", {}).get("proj4"),
    )


def _read_root(uri: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the consolidated metadata of a store, by array, and the attributes of its root."""
    try:
        root = json.loads(places.read_bytes(places.join(uri, "zarr.json")))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise _absent(uri) from None
    except ValueError:
        raise StoreError(
            "the store's metadata is damaged",
            where=places.join(uri, "zarr.json"),
            remedy=_convert_command(uri, " --repair"),
        ) from None
    metadata = (root.get("consolidated_metadata") or {}).get("metadata")
    attributes = root.get("attributes", {})
    if not metadata or "statistics_fingerprint" not in attributes:
        raise StoreError(
            "this is not a store of this platform, or its conversion did not end",
            where=uri,
            remedy=_convert_command(uri),
        )
    return metadata, attributes


def _check_not_lost(uri: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Raise StoreError if an object of the times, coordinates or flags is lost.

    Zarr reads a lost object as one value throughout: every latitude 0, every frame of 1970.
    """
    for name, values in arrays.items():
        if name == "available":
            lost = (values == NO_FLAG).any()
        elif name == "missing_fraction":
            lost = np.isnan(values).any()
        else:
            lost = len(np.unique(values)) < len(values)
        if lost:
            raise StoreError(
                f"'{name}' of the store is lost or damaged",
                where=places.join(uri, name),
                remedy=_convert_command(uri, " --repair"),
            )


def _static(name: str, array: Mapping[str, Any]) -> StaticInfo:
    attributes = array["attributes"]
    return StaticInfo(
        name=name,
        dims=tuple(array["dimension_names"]),
        shape=tuple(array["shape"]),
        units=str(attributes.get("units", "")),
        long_name=str(attributes.get("long_name", name)),
        statistics={key: float(attributes[key]) for key in ("mean", "std", "min", "max")},
    )


def _clips(attributes: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Clips | None:
    if "sample" not in arrays:
        return None
    splits = {name: (first, last) for name, (first, last) in attributes["splits"].items()}
    timed = attributes["cadence_seconds"] is not None
    return Clips(arrays["sample"], arrays["time"], splits, timed)


def _open_group(uri: str) -> zarr.Group:
    import zarr
    import zarr.storage

    if places.is_local(uri):
        place: Any = zarr.storage.LocalStore(places.local_path(uri), read_only=True)
    else:
        place = zarr.storage.FsspecStore.from_url(
            uri, storage_options=places.driver_options(uri), read_only=True
        )
    return zarr.open_group(place, mode="r", zarr_format=3, use_consolidated=True)


def _variable(
    name: str, array: Mapping[str, Any], coordinates: Mapping[str, np.ndarray]
) -> VariableInfo:
    dims, shape = tuple(array["dimension_names"]), tuple(array["shape"])
    sharding = array["codecs"][0]["configuration"]
    chunk, shard = sharding["chunk_shape"], array["chunk_grid"]["configuration"]["chunk_shape"]
    head = dims.index("time") + 1
    return VariableInfo(
        name=name,
        dims=dims,
        shape=shape,
        chunk_frames=math.prod(chunk[:head]),
        shard_frames=math.prod(shard[:head]),
        units=str(array["attributes"].get("units", "")),
        long_name=str(array["attributes"].get("long_name", name)),
        channel_labels=_labels(name, dims[head:-2], shape[head:-2], coordinates),
    )


def _labels(
    name: str,
    dims: tuple[str, ...],
    sizes: tuple[int, ...],
    coordinates: Mapping[str, np.ndarray],
) -> tuple[str, ...]:
    if not dims:
        return (name,)
    axes = [
        [_text(value) for value in coordinates.get(dim, np.arange(size))]
        for dim, size in zip(dims, sizes, strict=True)
    ]
    return tuple(f"{name}[{', '.join(index)}]" for index in product(*axes))


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float, np.number)) else str(value)


def _absent(uri: str) -> StoreError:
    begun = places.exists(places.join(uri, LEDGER_FOLDER))
    what = "the conversion of this store did not end" if begun else "there is no store"
    return StoreError(what, where=uri, remedy=_convert_command(uri))


def _convert_command(uri: str, more: str = "") -> str:
    summary = None
    with contextlib.suppress(PlatformError, OSError):
        summary = Ledger(uri).read_plan()
    archive = summary["archive"] if summary else "ARCHIVE"
    source = summary["source"] if summary else "SOURCE"
    return (
        f"python jobs/reprocess.py convert --archive {archive} --source {shlex.quote(source)} "
        f"--store {shlex.quote(uri)}{more}"
    )
