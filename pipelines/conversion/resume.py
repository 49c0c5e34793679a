"""What an earlier run left behind: its options, whether this run continues it, what is due.

A store remembers its options: those that are not given again are taken from it, and those that are
given differently are refused. The store is a pure function of (source, options), so a continuation
has to reproduce every frame that the store already holds.
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
from pipelines.stores.grid_digest import grid_digest
from pipelines.stores.ledger import Ledger, ShardRecord
from pipelines.timeline.intervals import as_runs, from_runs, iso

_FIXED = ("chunk_frames", "shard_frames", "regrid")


def remember_options(
    summary: Mapping[str, Any] | None, archive: str, options: ConversionOptions, store: str
) -> ConversionOptions:
    """``options`` with the store's own where nothing was asked.

    Raises
    ------
    StoreError
        Another archive wrote the store, or an option differs from the store's.
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
    """The store's static fields and new ones: they can be added, for no frame depends on them."""
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


def summarise(plan: Plan, source: str, owner: str, now: str) -> dict[str, Any]:
    """The plan summary that is kept in the ledger."""
    return {
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


def _recorded_sources(summary: Mapping[str, Any]) -> list[SourceFile]:
    return [SourceFile(**source) for source in summary["sources"]]


def check_continues(summary: Mapping[str, Any] | None, plan: Plan, store: str) -> None:
    """Whether ``plan`` reproduces what the store holds and only adds to it.

    Raises
    ------
    StoreError
        Other variables, grid or cadence, or a source that begins elsewhere or ends earlier.
    SourceError
        Frames that the store holds are gone from the source.
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
            sources = [SourceFile(**source) for source in summary["sources"]]
            gone = [source.uri for source in sources if source.name not in present]
            raise SourceError(
                f"{len(lost)} frames of '{name}' that the store holds are gone from the source, "
                f"the first at {plan.label(int(lost[0]))}",
                where=", ".join(gone) or summary["source"],
                remedy="put the files back and run again, or convert to another --store",
            )


def due_tasks(
    plan: Plan, store: str, keep: Callable[[ShardRecord], None] = lambda record: None
) -> tuple[list[ShardTask], dict[tuple[str, int], ShardRecord]]:
    """The tasks that are still to be done, and outlines of the records of those that are not.

    A shard is done where its record has the task's key and its object has the recorded size.

    Parameters
    ----------
    keep:
        Is given each of these records, whole.
    """
    ledger = Ledger(store)
    keys = {(task.layout.name, task.shard): task.key for task in plan.tasks}
    records: dict[tuple[str, int], ShardRecord] = {}
    for layout in plan.layouts:
        sizes: dict[str, int] | None = None
        for record in ledger.read(layout.name, range(layout.shards)):
            if sizes is None:
                # A new store has no record, and then no object counts.
                sizes = object_sizes(store, layout.name)
            place = layout.name, record.shard
            if sizes.get(record.object_name) == record.bytes and record.key == keys[place]:
                records[place] = record.outline()
                keep(record)
    return [task for task in plan.tasks if (task.layout.name, task.shard) not in records], records


def object_sizes(store: str, variable: str) -> dict[str, int]:
    """Name in the store and size of every object under one variable, or in all of it ("")."""
    above = f"{variable}/" if variable else ""
    found = places.objects(places.join(store, *variable.split("/")) if variable else store)
    return {f"{above}{name}": int(info["size"]) for name, info in found.items()}


def _grid(plan: Plan) -> str:
    return grid_digest((v.name, v.dims, v.shape, v.coordinates) for v in plan.index.variables)


def _digest(plan: Plan, frames: int) -> str:
    """sha256 of the first times of the axis, and of the clips that they belong to."""
    digest = hashlib.sha256(np.ascontiguousarray(plan.times[:frames], "<i8").data)
    if plan.index.clips is not None:
        ids = plan.index.clips.ids[: frames // plan.index.clips.frames]
        digest.update(repr(ids.tolist()).encode())
    return digest.hexdigest()
