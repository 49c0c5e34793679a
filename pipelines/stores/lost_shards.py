"""Frames that a store calls available and that hold nothing: their shard is lost.

Zarr reads fill values where an object is gone. They would train as the mean, score as pixels that
nobody observed, and vanish from a climatology.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipelines.cf import OK
from pipelines.errors import StoreError

if TYPE_CHECKING:
    from pipelines.stores.store import Store

_NAMED = 3
"""shards that an error names"""


def check_not_lost(store: Store, name: str, frames: np.ndarray, values: np.ndarray) -> None:
    """StoreError where a variable has no value in one of ``frames`` that the store calls available.

    An available frame has a value of every variable that has one anywhere.

    Parameters
    ----------
    frames:
        int64 (n,): which of the store.
    values:
        (n, ..., H, W) as read: NaN is missing.
    """
    if not store.statistics["variables"][name]["count"]:
        return
    corner, middle = (0,) * (values.ndim - 1), tuple(size // 2 for size in values.shape[1:])
    # Two pixels of a frame tell nearly always that it is not empty.
    suspect = np.isnan(values[:, *corner]) & np.isnan(values[:, *middle])
    if not suspect.any():
        return
    suspect &= store.available[frames] == OK
    lost = [row for row in np.flatnonzero(suspect).tolist() if np.isnan(values[row]).all()]
    if lost:
        raise StoreError(
            f"{len(lost)} frames that the store calls available hold no value",
            where=describe_frames(store, name, int(frames[lost[0]]), int(frames[lost[-1]]) + 1),
            remedy=store.convert_command("--repair"),
        )


def describe_frames(store: Store, name: str, first: int, last: int) -> str:
    """Frames [first, last) of a variable in words, with the objects that hold them."""
    info = store.variables[name]
    shards = range(first // info.shard_frames, (last - 1) // info.shard_frames + 1)
    rest = ["0"] * (len(info.dims) - 1)
    objects = ["/".join([name, "c", str(shard), *rest]) for shard in shards[:_NAMED]]
    more = f" and {len(shards) - _NAMED} more" if len(shards) > _NAMED else ""
    return (
        f"{store.uri}, {name}, frames {first} to {last - 1} (from {store.label(first)}), "
        f"in {', '.join(objects)}{more}"
    )
