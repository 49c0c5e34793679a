"""Write the static fields of a store: find them, decode, regrid, check, write and record them.

Static fields are small, and a wrong one should be found before hours of frames are converted. So
the driver writes them first. A field is written and recorded like a shard, so that resuming,
repairing, a changed source and `verify` need no second way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

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
from pipelines.conversion.plan import Plan
from pipelines.conversion.resume import damaged
from pipelines.conversion.static_plan import StaticTask
from pipelines.errors import SourceError, UsageError, nearest
from pipelines.progress import Progress
from pipelines.storage import places
from pipelines.stores.ledger import Ledger, ShardRecord, checksum, object_sizes, utc_now
from pipelines.stores.moments import frame_moments
from pipelines.stores.shards import CONVERTER_VERSION, blosc_codec

Records = dict[str, ShardRecord]
"""record by name of the static field"""


@suggesting_other_archives()
def index_archive(
    archive: AnyArchive,
    source: str,
    static_source: str | None,
    options: ConversionOptions,
    progress: Progress,
) -> ArchiveIndex:
    """Return the index of an archive, with the static fields that `options` ask for.

    Parameters
    ----------
    static_source
        NetCDF or GRIB files that hold static fields; None: they are among the archive's files.

    Raises
    ------
    UsageError
        A field is missing in all files, or is asked for as a variable too.
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
    """Return the records of the fields that the store holds and that are still right."""
    records: Records = {}
    for task in tasks:
        for record in Ledger(store).read(task.name, range(1)):
            size = object_sizes(store, task.name).get(record.object_name)
            if record.key == task.key and size == record.bytes:
                records[task.name] = record
    return records


def write_static_fields(plan: Plan, store: str, owner: str, repair: bool) -> tuple[Records, int]:
    """Write the fields that are due; return the records of all, and how many were written.

    Parameters
    ----------
    repair
        Also write the fields again whose bytes do not have the recorded checksum.
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
        The field has missing or infinite pixels and no value for them, or it cannot be read.
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
                f"{int(missing.sum())} of {missing.size} pixels of static field '{task.name}' are "
                f"missing, the first at row {row}, column {column}",
                where=task.variable.file.uri,
                remedy="a model cannot read missing pixels: give the value for them, "
                f"as in --static_fields {task.name}=0",
            )
        values[missing] = task.fill
    data = bytes(blosc_codec().encode(values))
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
