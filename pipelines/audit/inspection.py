"""What a store holds, or a plan would make, in one plain dictionary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pipelines import cf
from pipelines.archives.time_axis import iso
from pipelines.conversion.plan import Plan
from pipelines.conversion.resume import due_tasks, object_sizes
from pipelines.conversion.static_plan import StaticTask
from pipelines.stores.ledger import Ledger
from pipelines.stores.store import Store, open_store
from pipelines.timeline.clips import Clips
from pipelines.timeline.intervals import true_runs

_MEANINGS = cf.AVAILABLE["flag_meanings"].split()


def inspect(uri: str) -> dict[str, Any]:
    """A description of the store at ``uri``; StoreError where there is none."""
    store = open_store(uri)
    summary = Ledger(store.uri).read_plan() or {}
    sizes = object_sizes(store.uri, "")
    stored = {name: size for name, size in sizes.items() if not name.startswith(".ledger/")}
    return {
        "store": store.uri,
        "title": store.title,
        "archive": store.attributes["archive"],
        "synthetic": store.synthetic,
        "period": None if store.clips else [_iso(store.times[0]), _iso(store.times[-1])],
        "samples": _samples(store.clips),
        "cadence_seconds": store.attributes["cadence_seconds"],
        "frames": len(store.times),
        "frames_available": int((store.available == cf.OK).sum()),
        "grid": _grid(store),
        "variables": {name: _variable(store, name, stored) for name in store.variables},
        "static_fields": {
            info.name: {
                "long_name": info.long_name,
                "units": info.units,
                "dims": list(info.dims),
                "shape": list(info.shape),
                **info.statistics,
            }
            for info in store.static_fields.values()
        },
        "objects": len(stored),
        "bytes": sum(stored.values()),
        "gaps": _gaps(store),
        "splits": store.attributes["splits"],
        "splits_origin": store.attributes["splits_origin"],
        "splits_embargo": store.attributes["splits_embargo"],
        "statistics": store.statistics,
        "statistics_fingerprint": store.fingerprint,
        "configuration": store.attributes["configuration"],
        "provenance": {
            "source": summary.get("source"),
            "files": summary.get("sources", []),
            "converter_version": store.attributes["converter_version"],
            "owner": summary.get("owner"),
            "updated_at": summary.get("updated_at"),
        },
    }


def _grid(store: Store) -> dict[str, Any]:
    first = next(iter(store.variables.values()))
    grid: dict[str, Any] = {}
    for dim, size in zip(first.dims[-2:], first.shape[-2:], strict=True):
        values = store.coordinates.get(dim)
        ends = [float(values[0]), float(values[-1])] if values is not None else None
        grid[dim] = {"size": size, "from_to": ends}
    return grid


def _variable(store: Store, name: str, sizes: dict[str, int]) -> dict[str, Any]:
    variable = store.variables[name]
    shards = [size for place, size in sizes.items() if place.startswith(f"{name}/c/")]
    frames = len(store.times)
    return {
        "long_name": variable.long_name,
        "units": variable.units,
        "dims": list(variable.dims),
        "shape": list(variable.shape),
        "channels": list(variable.channel_labels),
        "chunk_frames": variable.chunk_frames,
        "shard_frames": variable.shard_frames,
        "shards": len(shards),
        "shards_missing": -(-frames // variable.shard_frames) - len(shards),
        "bytes_raw": 4 * int(np.prod(variable.shape)),
        "bytes_stored": sum(shards),
    }


def _samples(clips: Clips | None) -> dict[str, Any] | None:
    """Of an archive of clips: how many, how long, and the places in time of their frames."""
    if clips is None:
        return None
    return {"count": len(clips.ids), "frames": clips.frames, "offsets": clips.offsets.tolist()}


def _gaps(store: Store) -> list[dict[str, Any]]:
    shown: Callable[[int], str] = (
        (lambda frame: _iso(store.times[frame])) if store.clips is None else store.clips.label
    )
    gaps = [
        (first, last, frames, _MEANINGS[flag])
        for flag in range(1, len(_MEANINGS))
        for first, last, frames in true_runs(store.available == flag)
    ]
    return [
        {"first": shown(first), "last": shown(last), "frames": frames, "why": why}
        for first, last, frames, why in sorted(gaps)
    ]


def _iso(time: np.datetime64) -> str:
    return str(time.astype("datetime64[s]"))


def describe_plan(plan: Plan, store: str) -> dict[str, Any]:
    """What converting ``plan`` to ``store`` would do, in one plain dictionary."""
    due, _ = due_tasks(plan, store)
    variables = {}
    for variable, layout in zip(plan.index.variables, plan.layouts, strict=True):
        attributes = cf.variable_attributes(variable.name, variable.attributes)
        variables[variable.name] = {
            "long_name": attributes.get("long_name", variable.name),
            "units": str(attributes.get("units", "")),
            "dims": layout.array_dims,
            "shape": layout.array_shape(layout.frames),
            "shards": layout.shards,
            "missing_frames": int((~plan.held[variable.name]).sum()),
        }
    return {
        "archive": plan.index.archive,
        "title": plan.index.title,
        "synthetic": plan.index.synthetic,
        "store": store,
        "files": len(plan.index.files),
        "files_bytes": sum(file.size for file in plan.index.files),
        "periods": [[iso(first), iso(last)] for first, last in plan.index.periods],
        "samples": _samples(plan.index.clips),
        "cadence_seconds": plan.cadence_seconds,
        "frames": len(plan.times),
        "variables": variables,
        "static_fields": {task.name: _static(task) for task in plan.static},
        "chunk_frames": plan.options.chunk_frames,
        "shard_frames": plan.options.shard_frames,
        "shards": len(plan.tasks),
        "shards_due": len(due),
        "bytes_raw": plan.raw_bytes,
        "splits": plan.splits_record(),
        "splits_origin": plan.splits.origin,
        "splits_embargo": plan.splits.embargo,
        "gaps": [
            {
                "first": plan.label(first),
                "last": plan.label(last),
                "frames": frames,
                "why": _MEANINGS[cf.MISSING_IN_SOURCE],
            }
            for first, last, frames in plan.gaps()
        ],
        "notes": list(plan.index.notes),
    }


def _static(task: StaticTask) -> dict[str, Any]:
    return {
        "long_name": task.attributes.get("long_name", task.name),
        "units": str(task.attributes.get("units", "")),
        "dims": list(task.variable.dims),
        "shape": list(task.shape),
        "file": task.variable.file.uri,
        "missing_pixels_set_to": task.fill,
    }
