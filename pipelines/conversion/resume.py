"""What an earlier run left: its options, whether this run continues it, which shards are due.

A store remembers its options. An option that is not given again is taken from the store; one that
is given differently is an error. A store is a pure function of (source, options), so that a run
which continues it has to reproduce every frame that the store already holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pipelines.archives.contents import SourceFile
from pipelines.conversion.options import ConversionOptions
from pipelines.conversion.plan import Plan, ShardTask
from pipelines.errors import SourceError, StoreError
from pipelines.storage import places
from pipelines.stores.ledger import Ledger, ShardRecord, checksum, object_sizes
from pipelines.stores.recipe import grid_digest
from pipelines.timeline.intervals import as_runs, from_runs, iso

_FIXED = ("chunk_frames", "shard_frames", "regrid")


def remember_options(
    summary: Mapping[str, Any] | None, archive: str, options: ConversionOptions, store: str
) -> ConversionOptions:
    """Return `options`, completed with those of the store.

    Parameters
    ----------
    summary
        Plan summary of the store; None if there is no store yet.

    Raises
    ------
    StoreError
        Another archive wrote the store, or an option differs from that of the store.
    """
    if summary is None:
        return options
    if summary["archive"] != archive:
        raise StoreError(
            f"the store was written by archive '{summary['archive']}', not '{archive}'",
            where=store,
            remedy=f"give --archive {summary['archive']}, or another --store",
        )
    kept = dict(summary["configuration"])
    if options.variables is None:
        options = replace(options, variables=tuple(kept["variables"]))
    if kept["splits"] is not None:
        kept["splits"] = {name: tuple(bounds) for name, bounds in kept["splits"].items()}
    differing, held = [], kept.get("archive_options", {})
    for name, value in options.archive_options.items():
        if held.get(name) != value:
            differing.append(f"{name}: the store has {held.get(name)}, asked {value}")
    static = _static_fields(kept.get("static_fields", ()), options.static_fields, differing)
    options = replace(options, archive_options=held, static_fields=static)
    for name in _FIXED:
        asked = getattr(options, name)
        if asked is None:
            options = replace(options, **{name: kept.get(name)})
        elif asked != kept.get(name):
            differing.append(f"{name}: the store has {kept.get(name)}, asked {asked}")
    if differing:
        raise _other_options("; ".join(differing), store)
    return options if options.splits is not None else replace(options, splits=kept["splits"])


def _static_fields(
    held: Sequence[Sequence[Any]],
    asked: Sequence[tuple[str, float | None]],
    differing: list[str],
) -> tuple[tuple[str, float | None], ...]:
    """Return the store's static fields and new ones, which can be added: no frame depends on them.

    Differences are appended to `differing`.
    """
    fields: dict[str, float | None] = {entry[0]: entry[1] for entry in held}
    for name, fill in asked:
        if fields.setdefault(name, fill) != fill:
            differing.append(
                f"static field {name}: missing pixels are set to {fields[name]}, asked {fill}"
            )
    return tuple(fields.items())


def _other_options(differences: str, store: str) -> StoreError:
    return StoreError(
        f"the store was made with other options ({differences})",
        where=store,
        remedy="leave these options out to continue it, or give another --store",
    )


def remembered_source(summary: Mapping[str, Any] | None, given: str | None) -> str | None:
    """Return the source of the static fields: as given, or else as the last run had it."""
    return given if given is not None else ((summary or {}).get("static") or {}).get("source")


def summarise(
    plan: Plan, source: str, static_source: str | None, owner: str, now: str
) -> dict[str, Any]:
    """Return the plan summary that the ledger keeps, as JSON.

    Parameters
    ----------
    static_source
        Files of the static fields; None: they are among the files of `source`.
    now
        Time of the run.
    """
    summary = {
        "archive": plan.index.archive,
        "source": places.absolute(source),
        "configuration": plan.configuration(),
        "cadence_seconds": plan.index.cadence_seconds,
        "frames": len(plan.times),
        "first_time": plan.label(0),
        "last_time": plan.label(len(plan.times) - 1),
        "times_sha256": _digest(plan, len(plan.times)),
        "grid_sha256": _grid(plan),
        "missing": {name: as_runs(np.flatnonzero(~held)) for name, held in plan.held.items()},
        "sources": [file.as_dict() for file in plan.index.files],
        "owner": owner,
        "updated_at": now,
    }
    if plan.static:
        summary["static"] = _static_summary(plan, static_source)
    return summary


def _static_summary(plan: Plan, static_source: str | None) -> dict[str, Any]:
    own = {file.uri for file in plan.index.files}
    files = {task.variable.file.uri: task.variable.file.as_dict() for task in plan.static}
    others = [file for uri, file in files.items() if uri not in own]
    source = places.absolute(static_source) if static_source and others else None
    return {"source": source, "files": others}


def _recorded_sources(summary: Mapping[str, Any]) -> list[SourceFile]:
    return [SourceFile(**source) for source in summary["sources"]]


def check_continues(summary: Mapping[str, Any] | None, plan: Plan, store: str) -> None:
    """Check that `plan` reproduces what the store holds, and only adds to it.

    Raises
    ------
    StoreError
        The variables, the grid or the cadence differ, or the source begins elsewhere or ends
        earlier.
    SourceError
        Frames that the store holds are missing in the source.
    """
    if summary is None:
        return
    held, asked = summary["configuration"]["variables"], list(plan.options.variables or ())
    if held != asked:
        difference = f"variables: the store has {' '.join(held)}, asked {' '.join(asked)}"
        raise _other_options(difference, store)
    if summary["grid_sha256"] != _grid(plan):
        raise StoreError(
            "the source's grid is not the store's",
            where=store,
            remedy="convert this source to another --store",
        )
    old = summary["frames"]
    if len(plan.times) < old or _digest(plan, old) != summary["times_sha256"]:
        if plan.index.clips is not None:
            raise StoreError(
                f"the source's clips do not continue the store's {old // plan.index.clips.frames}, "
                f"which end with {summary['last_time']}",
                where=store,
                remedy="a store grows at its end only, by clips of its last split: convert the "
                "whole archive to another --store",
            )
        there = {file.name for file in plan.index.files}
        gone = [file.name for file in _recorded_sources(summary) if file.name not in there]
        lost = f"; gone from it: {', '.join(gone[:3])}" if gone else ""
        raise StoreError(
            f"the source does not continue the store: it covers {iso(int(plan.times[0]))} to "
            f"{iso(int(plan.times[-1]))} every {plan.index.cadence_seconds} s, the store "
            f"{summary['first_time']} to {summary['last_time']} every "
            f"{summary['cadence_seconds']} s{lost}",
            where=store,
            remedy="give the whole archive as --source (a store grows at its end only), "
            "or another --store",
        )
    for name, runs in summary["missing"].items():
        was_missing = np.zeros(old, bool)
        was_missing[from_runs(runs)] = True
        lost = np.flatnonzero(~was_missing & ~plan.held[name][:old])
        if len(lost):
            present = {file.name for file in plan.index.files}
            sources = _recorded_sources(summary)
            gone = [source.uri for source in sources if source.name not in present]
            raise SourceError(
                f"{len(lost)} frames of '{name}' that the store holds are gone from the source, "
                f"the first at {plan.label(int(lost[0]))}",
                where=", ".join(gone) or summary["source"],
                remedy="put the files back and run again, or convert to another --store",
            )


def due_tasks(
    plan: Plan, store: str, add_existing: Callable[[ShardRecord], None] = lambda record: None
) -> tuple[list[ShardTask], dict[tuple[str, int], ShardRecord]]:
    """Return the tasks that are still due, and outlines of the records of the other shards.

    A shard is done if its record has the key of the task and its object has the recorded size.

    Parameters
    ----------
    add_existing
        Called with each record of a shard that is done.
    """
    ledger = Ledger(store)
    keys = {(task.layout.name, task.shard): task.key for task in plan.tasks}
    records: dict[tuple[str, int], ShardRecord] = {}
    for layout in plan.layouts:
        sizes: dict[str, int] | None = None
        for record in ledger.read(layout.name, range(layout.shards)):
            if sizes is None:
                # Only now: a new store has no record, and is not listed for nothing.
                sizes = object_sizes(store, layout.name)
            place = layout.name, record.shard
            if sizes.get(record.object_name) == record.bytes and record.key == keys[place]:
                records[place] = record.outline()
                add_existing(record)
    return [task for task in plan.tasks if (task.layout.name, task.shard) not in records], records


def damaged(store: str, records: Mapping[tuple[str, int], ShardRecord]) -> list[tuple[str, int]]:
    """Return the shards whose bytes do not have the recorded checksum; reads all of them.

    Shards with frames that could not be read count as damaged: a disk may have failed for a moment.
    """
    return [
        place
        for place, record in records.items()
        if record.unreadable
        or checksum(places.read_bytes(places.join(store, *record.object_name.split("/"))))
        != record.checksum
    ]


def remove_strays(plan: Plan, store: str) -> list[str]:
    """Remove objects among a variable's shards that the plan does not have; return their names.

    Zarr would take such an object for data as soon as the array grows to it. Anything elsewhere in
    the store is left alone.
    """
    removed = []
    for layout in plan.layouts:
        own = {layout.object_name(shard) for shard in range(layout.shards)}
        for name in object_sizes(store, f"{layout.name}/c"):
            if name not in own:
                places.delete(places.join(store, *name.split("/")))
                removed.append(name)
    return removed


def _grid(plan: Plan) -> str:
    return grid_digest((v.name, v.dims, v.shape, v.coordinates) for v in plan.index.variables)


def _digest(plan: Plan, frames: int) -> str:
    """Return a sha256 of the first `frames` times of the axis, and of their clips."""
    digest = hashlib.sha256(np.ascontiguousarray(plan.times[:frames], "<i8").data)
    if plan.index.clips is not None:
        ids = plan.index.clips.ids[: frames // plan.index.clips.frames]
        digest.update(repr(ids.tolist()).encode())
    return digest.hexdigest()
