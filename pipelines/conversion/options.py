"""What a conversion is asked to do: the options that decide the content of a store."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.conversion.regrid import CoarseGrid
from pipelines.errors import UsageError
from pipelines.timeline.splits import Bounds


@dataclass(frozen=True)
class ConversionOptions:
    """What decides the content of a store, besides the source."""

    variables: tuple[str, ...] | None = None
    """kept variables, in this order; None: all"""
    chunk_frames: int | None = None
    """frames a chunk; None: at most 64 frames and 4 MiB"""
    shard_frames: int | None = None
    """frames a shard, a multiple of ``chunk_frames``; None: at most 4096 frames and 32 MiB"""
    splits: Bounds | None = None
    """first and last time of each split; None: the archive's protocol, or 70/10/20 by time"""
    regrid: str | None = None
    """coarser grid by area average: degrees (``5.625``) or rows x columns (``32x64``); None: the
    source's own"""
    static_fields: tuple[tuple[str, float | None], ...] = ()
    """fields that do not change with time, each with what its missing pixels become; None: a field
    with missing pixels is refused"""
    archive_options: Mapping[str, Any] = field(default_factory=dict)
    """options of the archive itself that were given, by name; the others have its defaults"""

    def __post_init__(self) -> None:
        if self.regrid is not None:
            CoarseGrid.parse(self.regrid)
        for name in ("chunk_frames", "shard_frames"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}", where=f"--{name}", remedy="give 1 or more")
        if self.chunk_frames and self.shard_frames and self.shard_frames % self.chunk_frames:
            raise UsageError(
                f"shard_frames {self.shard_frames} is no multiple of "
                f"chunk_frames {self.chunk_frames}",
                where="--shard_frames",
                remedy="a shard is a whole number of chunks: give for example "
                f"{math.ceil(self.shard_frames / self.chunk_frames) * self.chunk_frames}",
            )
