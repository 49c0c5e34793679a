"""What a conversion is asked to do, and what it reports at its end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.conversion.regrid import CoarseGrid
from pipelines.errors import UsageError
from pipelines.storage.retry import STORAGE_WAIT_SECONDS
from pipelines.timeline.splits import Bounds


@dataclass(frozen=True)
class ConversionOptions:
    """The options that decide the content of a store, besides the source."""

    variables: tuple[str, ...] | None = None
    """variables of the store, in this order; None: all"""
    chunk_frames: int | None = None
    """frames per chunk; None: at most 64 frames and 4 MiB"""
    shard_frames: int | None = None
    """frames per shard, a multiple of `chunk_frames`; None: at most 4096 frames and 32 MiB"""
    splits: Bounds | None = None
    """first and last time of each split; None: the archive's protocol, or 70/10/20 by time"""
    regrid: str | None = None
    """coarser grid by area average: degrees (`5.625`) or rows x columns (`32x64`); None: the grid
    of the source"""
    static_fields: tuple[tuple[str, float | None], ...] = ()
    """fields that do not change with time, each with the value for its missing pixels; None as the
    value: a field with missing pixels is an error"""
    archive_options: Mapping[str, Any] = field(default_factory=dict)
    """options of the archive itself that were given, by name; the others have their defaults"""

    def __post_init__(self) -> None:
        if self.regrid is not None:
            CoarseGrid.parse(self.regrid)
        for name in ("chunk_frames", "shard_frames"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}", where=f"--{name}", remedy="give 1 or more")
        if self.chunk_frames and self.shard_frames and self.shard_frames % self.chunk_frames:
            raise UsageError(
                f"shard_frames {self.shard_frames} is not a multiple of "
                f"chunk_frames {self.chunk_frames}",
                where="--shard_frames",
                remedy="a shard is a whole number of chunks: give for example "
                f"{math.ceil(self.shard_frames / self.chunk_frames) * self.chunk_frames}",
            )


@dataclass(frozen=True)
class ConversionRequest:
    """One conversion: from where, to where, and how."""

    archive: str
    """name of the archive"""
    source: str
    """URI of the archive's folder, a glob, or one file"""
    store: str
    """URI of the store"""
    options: ConversionOptions = field(default_factory=ConversionOptions)
    repair: bool = False
    """also convert again every shard whose bytes do not have the recorded checksum"""
    workers: int | None = None
    """largest number of shards that are converted at the same time; None: one per CPU. It bounds
    the memory, which is a few shards per worker"""
    static_source: str | None = None
    """NetCDF or GRIB files that hold the static fields; None: the files of the last run, or else
    those of the source"""
    shared_paths: bool = False
    """whether local paths are the same on every node of the cluster"""
    source_cache_bytes: int | None = None
    """bytes of remote sources and members of zips that a node keeps while it converts; None:
    `pipelines.archives.sources.cache.MAX_BYTES`"""
    storage_wait: float = STORAGE_WAIT_SECONDS
    """seconds that an object storage may be away, once work has begun, before the run ends"""


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did."""

    store: str
    """absolute URI of the store"""
    frames: int
    """frames of the time axis"""
    shards: int
    """shards of all variables"""
    shards_written: int
    shards_skipped: int
    """shards that an earlier run had written"""
    gaps: int
    """runs of frames that are missing for some variable"""
    missing_frames: int
    """frames in these runs"""
    unreadable: tuple[str, ...]
    """files with frames that could not be read, each with the reason; the frames are flagged"""
    bytes_raw: int
    """bytes of all values as float32"""
    bytes_stored: int
    """bytes of all shards"""
    bytes_converted: int
    """bytes of the values that this run converted, as float32"""
    seconds: float
    """duration of the whole run"""
    seconds_indexing: float
    """time until the plan was made"""
    seconds_starting: float
    """time from then until Ray was there"""
    seconds_converting: float
    """time from then until the last shard was written"""
    changed: bool
    """whether anything was written"""
    statistics_changed: bool
    """whether the statistics of an existing store changed; checkpoints of the old ones no longer
    fit the store"""
    notes: tuple[str, ...]
    """remarks for the user"""
    static_fields: int = 0
    """static fields of the store"""
    static_fields_written: int = 0
