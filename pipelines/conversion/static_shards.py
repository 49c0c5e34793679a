"""Static fields into a store: found in the sources, decoded, regridded, checked, written, recorded.

They are small, and a wrong one is to be known before hours of frames are converted: the driver
writes them first. What is done and recorded is as for a shard, so that resume, repair, a changed
source and ``verify`` treat both alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec

from pipelines import cf
from pipelines.archives import suggesting_other_archives
from pipelines.archives.contents import ArchiveIndex
from pipelines.archives.interface import AnyArchive
from pipelines.archives.series.archive import SeriesArchive
from pipelines.archives.series.static_variables import (
    describe_static,
    known_static,
    read_static,
    take_static,
)
from pipelines.conversion.options import ConversionOptions
from pipelines.conversion.plan import CONVERTER_VERSION, Plan
from pipelines.conversion.repair import damaged
from pipelines.conversion.resume import object_sizes
from pipelines.conversion.shard_task import checksum, utc_now
from pipelines.conversion.static_plan import StaticTask
from pipelines.errors import SourceError, UsageError, nearest
from pipelines.progress import Progress
from pipelines.storage import places
from pipelines.stores.ledger import Ledger, ShardRecord
from pipelines.stores.shards import COMPRESSION
from pipelines.stores.statistics import COUNT, MAX, MIN, SQUARES, SUM, frame_moments

Records = dict[str, ShardRecord]
"""static field -> its record"""


@suggesting_other_archives()
def index_archive(
    archive: AnyArchive,
    source: str,
    static_source: str | None,
    options: ConversionOptions,
    progress: Progress,
) -> ArchiveIndex:
    """What the archive holds, with the static fields that ``options`` ask for.

    Parameters
    ----------
    static_source:
        NetCDF or GRIB files that hold static fields; None: they are among the archive's own.

    Raises
    ------
    UsageError
        A field is nowhere, or is a variable as well.
    """
    asked = tuple(name for name, _ in options.static_fields)
    both = [name for name in asked if name in (options.variables or ())]
    if both:
        raise UsageError(
            f"'{both[0]}' is asked for as a variable and as a static field",
            where="--static_fields",
            remedy="leave it out of one of the two",
        )
    contents = [] if static_source is None else describe_static(static_source)
    known = known_static(contents)
    if known and not asked:
        raise UsageError(
            "no static field is asked for",
            where=f"--static_source {static_source}",
            remedy=f"--static_fields {' '.join(known)}",
        )
    found, _ = take_static(contents, asked)
    fields = {field.name: field for field in found}
    given = {
        "variables": options.variables,
        "options": options.archive_options,
        "progress": progress,
    }
    if isinstance(archive, SeriesArchive):
        rest = tuple(name for name in asked if name not in fields)
        index = archive.index(source, **given, static=rest)
    else:
        index = archive.index(source, **given)
    fields |= {field.name: field for field in index.static}
    for name in asked:
        if name not in fields:
            raise UsageError(
                f"there is no static field '{name}'",
                where=static_source or source,
                remedy=nearest(name, known)
                if known
                else "give --static_source FILE, a NetCDF or GRIB file that holds it once",
            )
    return replace(index, static=tuple(fields[name] for name in asked))


def standing(tasks: Sequence[StaticTask], store: str) -> Records:
    """The records of the fields that the store holds as they are to be."""
    records: Records = {}
    for task in tasks:
        for record in Ledger(store).read(task.name, range(1)):
            size = object_sizes(store, task.name).get(record.object_name)
            if record.key == task.key and size == record.bytes:
                records[task.name] = record
    return records


def write_static_fields(plan: Plan, store: str, owner: str, repair: bool) -> tuple[Records, int]:
    """Write the fields that are due; records of all, and how many were written.

    Parameters
    ----------
    repair:
        Also write those again whose bytes do not have the recorded checksum.
    """
    records = standing(plan.static, store)
    if repair:
        held = {(name, 0): record for name, record in records.items()}
        for name, _ in damaged(store, held):
            del records[name]
    due = [task for task in plan.static if task.name not in records]
    for task in due:
        records[task.name] = write_field(task, store, owner)
    return records, len(due)


def write_field(task: StaticTask, store: str, owner: str) -> ShardRecord:
    """Write one field, then its record.

    Raises
    ------
    SourceError
        It has missing or infinite pixels and no value to put there, or it cannot be read.
    """
    values = read_static(task.variable)
    if task.average is not None:
        values = task.average(values)
    values = np.ascontiguousarray(values, "<f4")
    missing = ~np.isfinite(values)
    if missing.any():
        if task.fill is None:
            row, column = np.argwhere(missing)[0]
            raise SourceError(
                f"static field '{task.name}' lacks {int(missing.sum())} of {missing.size} pixels, "
                f"the first at row {row}, column {column}",
                where=task.variable.file.uri,
                remedy="a model cannot read missing pixels: name the value that they are to have, "
                f"as in --static_fields {task.name}=0",
            )
        values[missing] = task.fill
    data = _encoded(values)
    record = ShardRecord(
        variable=task.name,
        shard=0,
        start=0,
        stop=0,
        key=task.key,
        object_name=task.object_name,
        bytes=len(data),
        checksum=checksum(data),
        sources=(task.variable.file.as_dict(),),
        moments=frame_moments(values[None]),
        converter_version=CONVERTER_VERSION,
        owner=owner,
        written_at=utc_now(),
    )
    places.write_bytes(places.join(store, *task.object_name.split("/")), data, durable=False)
    Ledger(store).commit(record)
    return record


def declare(root: zarr.Group, plan: Plan, records: Mapping[str, ShardRecord]) -> None:
    """The arrays of the fields, with their statistics, in the group of a finished store."""
    for task in plan.static:
        record = records.get(task.name)  # none where a plan is only estimated
        attributes = task.attributes | (_statistics(record.moments) if record else {})
        if plan.index.grid_mapping:
            attributes["grid_mapping"] = cf.GRID_MAPPING
        root.create_array(
            task.name,
            shape=task.shape,
            chunks=task.shape,
            dtype="float32",
            fill_value=np.nan,
            dimension_names=task.variable.dims,
            compressors=[BloscCodec(typesize=4, **COMPRESSION)],  # pyright: ignore[reportArgumentType]
            attributes=attributes,
        )


def summary_of(plan: Plan, static_source: str | None) -> dict[str, Any]:
    """What the plan summary of the ledger keeps of static fields; nothing where there are none."""
    if not plan.static:
        return {}
    own = {file.uri for file in plan.index.files}
    files = {task.variable.file.uri: task.variable.file.as_dict() for task in plan.static}
    others = [file for uri, file in files.items() if uri not in own]
    source = places.absolute(static_source) if static_source and others else None
    return {"static": {"source": source, "files": others}}


def remembered_source(summary: Mapping[str, Any] | None, given: str | None) -> str | None:
    """Where static fields come from: as given, or as the store was begun."""
    return given if given is not None else ((summary or {}).get("static") or {}).get("source")


def _statistics(moments: np.ndarray) -> dict[str, float]:
    row = moments[0, 0]
    return {
        "mean": float(row[SUM] / row[COUNT]),
        "std": float(np.sqrt(row[SQUARES] / row[COUNT])),
        "min": float(row[MIN]),
        "max": float(row[MAX]),
    }


def _encoded(values: np.ndarray) -> bytes:
    from numcodecs import blosc  # pyright: ignore[reportAttributeAccessIssue]

    blosc.use_threads = False  # its threads place their blocks in the order in which they finish
    shuffle = blosc.SHUFFLE
    codec = blosc.Blosc(cname=COMPRESSION["cname"], clevel=COMPRESSION["clevel"], shuffle=shuffle)
    return bytes(codec.encode(values))
