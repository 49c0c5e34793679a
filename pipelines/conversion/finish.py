"""The end of a conversion: when every shard stands, what is not shards, the root last."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from pipelines.conversion.plan import Plan
from pipelines.conversion.shard_task import checksum
from pipelines.storage import places
from pipelines.storage.lease import Lease
from pipelines.stores.ledger import Ledger, ShardRecord
from pipelines.stores.statistics import Moments


def complete(
    plan: Plan,
    records: Mapping[tuple[str, int], ShardRecord],
    moments: Mapping[str, Moments],
    summary: dict[str, Any],
    lease: Lease,
    store: str,
    fields: Mapping[str, ShardRecord],
    *,
    new: bool,
) -> tuple[bool, bool]:
    """Write what is not shards, the root last; whether anything changed, and the statistics.

    Parameters
    ----------
    records:
        Of every shard of the plan; outlines are enough.
    moments:
        Of every variable.
    summary:
        Of the plan, see :func:`pipelines.conversion.resume.summarise`.
    fields:
        Records of the static fields.
    new:
        There was no store before: nothing of it is looked for.
    """
    from pipelines.conversion.metadata import ROOT, compose

    unreadable = {
        layout.name: np.concatenate(
            [records[layout.name, shard].unreadable_frames() for shard in range(layout.shards)]
        )
        for layout in plan.layouts
    }
    ledger = Ledger(store)
    composing: list[Callable[[], Any]] = [
        partial(compose, plan, moments, unreadable, fields),
        ledger.read_plan,
        lease.check,
    ]
    composed, summary_before, _ = places.in_parallel(store, composing)
    objects: dict[str, bytes] = composed
    uris = {name: places.join(store, *name.split("/")) for name in objects}
    old: dict[str, bytes | None] = dict.fromkeys(objects)
    if not new:
        asking = [partial(_read_or_none, uri) for uri in uris.values()]
        old = dict(zip(uris, places.in_parallel(store, asking), strict=True))
    changed = [name for name, content in objects.items() if old[name] != content]
    sums = {name: checksum(content) for name, content in objects.items()}
    finished = summary | {"objects": sums, "state": "complete"}
    writing: list[Callable[[], Any]] = [
        partial(places.write_bytes, uris[name], objects[name]) for name in changed if name != ROOT
    ]
    if _differs(summary_before, finished):
        writing.append(partial(ledger.write_plan, finished))
    places.in_parallel(store, writing)
    if ROOT not in changed:
        return bool(changed), False
    places.write_bytes(uris[ROOT], objects[ROOT])
    before = old[ROOT]
    if before is None:
        return True, False
    return True, _fingerprint(before) != _fingerprint(objects[ROOT])


def _fingerprint(root: bytes) -> str | None:
    """Of the statistics that a root states; None where it is damaged."""
    try:
        return json.loads(root)["attributes"]["statistics_fingerprint"]
    except (ValueError, LookupError, TypeError):
        return None


def _differs(before: dict[str, Any] | None, after: dict[str, Any]) -> bool:
    personal = {"owner", "updated_at"}
    return before is None or any(
        before.get(key) != value for key, value in after.items() if key not in personal
    )


def _read_or_none(uri: str) -> bytes | None:
    try:
        return places.read_bytes(uri)
    except FileNotFoundError:
        return None
