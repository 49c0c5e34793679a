"""What ``convert --repair`` does before it converts: find damaged shards, remove stray ones."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.conversion.plan import Plan
from pipelines.conversion.resume import object_sizes
from pipelines.conversion.shard_task import checksum
from pipelines.storage import places
from pipelines.stores.ledger import ShardRecord


def damaged(store: str, records: Mapping[tuple[str, int], ShardRecord]) -> list[tuple[str, int]]:
    """The shards whose bytes do not have the recorded checksum; reads every one of them.

    Those with frames that could not be read are among them: a disk may have failed for a moment.
    """
    return [
        place
        for place, record in records.items()
        if record.unreadable
        or checksum(places.read_bytes(places.join(store, *record.object_name.split("/"))))
        != record.checksum
    ]


def remove_strays(plan: Plan, store: str) -> list[str]:
    """Remove what lies among a variable's shards and is none; returns the names.

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
