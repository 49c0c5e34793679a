"""Write a store: one process at a time, and in an order that makes it safe to stop anywhere.

A shard is written in one request, then its ledger record. When all shards are there, flags and
coordinates follow, and the root with the consolidated metadata is written last. A reader sees the
metadata of before or of after, and shards that fit both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np

from pipelines.storage import places
from pipelines.storage.lease import Lease, Permit, hold
from pipelines.stores.ledger import Ledger, ShardRecord, read_or_none
from pipelines.stores.moments import COUNT, MomentsTable, moments_tables

ROOT = "zarr.json"
"""name of the root, whose consolidated metadata make a store complete"""


@dataclass(frozen=True)
class Changes:
    """What `StoreWriter.write` changed."""

    any: bool
    """whether any object was written"""
    statistics: bool
    """whether the store had a root before, with other statistics"""


class StoreWriter:
    """The one process that may change a store: its lease, its ledger and its objects.

    `StoreWriter.open` makes one, and takes the lease.
    """

    def __init__(self, store: str, lease: Lease, ending: ExitStack):
        self.store = store
        self.ledger = Ledger(store)
        self.records: dict[tuple[str, int], ShardRecord] = {}
        """outlines of the records of all shards that are there, by variable and shard"""
        self.moments: Mapping[str, MomentsTable] = {}
        """moments of these shards, by variable; empty before `open_tables`"""
        self.variables_with_values: set[str] = set()
        """variables with at least one value that is not NaN"""
        self._lease, self._ending = lease, ending

    @classmethod
    @contextmanager
    def open(
        cls, store: str, say: Callable[[str], None], *, confirmed: bool = True
    ) -> Iterator[Self]:
        """Take the lease of a store, and give its writer while the block runs.

        Parameters
        ----------
        say
            Called with a line if the lease has to be waited for.
        confirmed
            Wait until the lease is sure. If False, the block calls `confirm` before it writes.

        Raises
        ------
        BusyError
            Another process holds the lease.
        UsageError
            The store cannot be written.
        """
        with hold(store, say, confirmed=confirmed) as lease, ExitStack() as ending:
            yield cls(store, lease, ending)

    @property
    def owner(self) -> str:
        """User, host and process that hold the lease."""
        return self._lease.owner

    @property
    def permit(self) -> Permit:
        """The lease as workers know it. Can be pickled."""
        return self._lease.permit

    def confirm(self) -> None:
        """Wait until the lease is sure; raise BusyError if another process holds it."""
        self._lease.permit.confirm()

    def check(self) -> None:
        """Raise BusyError if another process took the lease over: nothing may be written then."""
        self._lease.check()

    def open_tables(self, channels: Mapping[str, int]) -> None:
        """Open a table of moments for each variable, given its number of channels."""
        self.moments = self._ending.enter_context(moments_tables(channels))

    def add_existing(self, record: ShardRecord) -> None:
        """Take note of a shard that an earlier run wrote, given its whole record."""
        self.add_record(record.outline(), record.moments)

    def add_record(self, record: ShardRecord, moments: np.ndarray) -> None:
        """Take note of a shard that was written.

        Parameters
        ----------
        record
            Outline of its record.
        moments
            Moments of its frames, float64 (n, channels, 6).
        """
        self.records[record.variable, record.shard] = record
        self.moments[record.variable].write(record.start, moments)
        if moments[..., COUNT].any():
            self.variables_with_values.add(record.variable)

    @contextmanager
    def write_plan_in_background(self, summary: Mapping[str, Any]) -> Iterator[Future[None]]:
        """Write the plan summary as soon as the lease is sure, while the block runs.

        On an object storage a lease is sure only after a moment, which is time to start workers in.
        The block must not write before the future has a result; workers ask the `permit`.
        """

        def write() -> None:
            self.confirm()
            self.ledger.write_plan(summary)

        with ThreadPoolExecutor(1) as pool:
            # A thread starts without the retry settings of its caller.
            written = pool.submit(copy_context().run, write)
            if places.is_local(self.store):
                written.result()
            yield written

    def write(
        self,
        objects: Mapping[str, bytes],
        summary: Mapping[str, Any] | None = None,
        *,
        new: bool,
        durable: bool = True,
    ) -> Changes:
        """Write the objects that differ from the store's, the root last.

        Parameters
        ----------
        objects
            Every object of the store except its shards, by name. The root is among them.
        summary
            New plan summary, which is written before the root; None: it stays as it is.
        new
            There was no store before, so that nothing is read for comparison.
        durable
            Wait until a local disk has the bytes.
        """
        uris = {name: places.join(self.store, *name.split("/")) for name in objects}
        old: dict[str, bytes | None] = dict.fromkeys(objects)
        if not new:
            reading = [partial(read_or_none, uri) for uri in uris.values()]
            old = dict(zip(uris, places.in_parallel(self.store, reading), strict=True))
        changed = [name for name, content in objects.items() if old[name] != content]
        writing: list[Callable[[], Any]] = [
            partial(places.write_bytes, uris[name], objects[name], durable=durable)
            for name in changed
            if name != ROOT
        ]
        if summary is not None:
            writing.append(partial(self.ledger.write_plan, summary))
        places.in_parallel(self.store, writing)
        if ROOT not in changed:
            return Changes(bool(changed), statistics=False)
        places.write_bytes(uris[ROOT], objects[ROOT], durable=durable)
        before = old[ROOT]
        other = before is not None and _fingerprint(before) != _fingerprint(objects[ROOT])
        return Changes(any=True, statistics=other)


def _fingerprint(root: bytes) -> str | None:
    """Return the fingerprint of the statistics in a root; None if the root is damaged."""
    try:
        return json.loads(root)["attributes"]["statistics_fingerprint"]
    except (ValueError, LookupError, TypeError):
        return None
