"""Finish a conversion: when every shard is there, write everything else, the root last."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from pipelines.conversion.metadata import compose
from pipelines.conversion.plan import Plan
from pipelines.storage import places
from pipelines.stores.ledger import ShardRecord, checksum
from pipelines.stores.writer import Changes, StoreWriter

_PERSONAL = {"owner", "updated_at"}
"""entries of a plan summary that differ from run to run of the same conversion"""


def write_metadata(
    plan: Plan,
    writer: StoreWriter,
    fields: Mapping[str, ShardRecord],
    summary: Mapping[str, Any],
    *,
    new: bool,
) -> Changes:
    """Write coordinates, flags, metadata and the plan summary, the root last.

    Parameters
    ----------
    writer
        Writer that knows every shard of the plan.
    fields
        Records of the static fields, by name.
    summary
        Plan summary, see `pipelines.conversion.resume.summarise`.
    new
        There was no store before, so that nothing is read for comparison.

    Raises
    ------
    BusyError
        Another process took the lease over. Nothing was written.
    """
    # On an object storage the answers arrive while the metadata are composed.
    composing: list[Callable[[], Any]] = [
        partial(compose, plan, writer.moments, unreadable_frames(plan, writer), fields),
        writer.ledger.read_plan,
        writer.check,
    ]
    composed, before, _ = places.in_parallel(writer.store, composing)
    objects: dict[str, bytes] = composed
    sums = {name: checksum(content) for name, content in objects.items()}
    finished = {**summary, "objects": sums, "state": "complete"}
    return writer.write(objects, finished if _differs(before, finished) else None, new=new)


def unreadable_frames(plan: Plan, writer: StoreWriter) -> dict[str, np.ndarray]:
    """Return the frames that the source has but that could not be read, int64, by variable."""
    return {
        layout.name: np.concatenate(
            [writer.records[layout.name, n].unreadable_frames() for n in range(layout.shards)]
        )
        for layout in plan.layouts
    }


def _differs(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> bool:
    return before is None or any(
        before.get(key) != value for key, value in after.items() if key not in _PERSONAL
    )
