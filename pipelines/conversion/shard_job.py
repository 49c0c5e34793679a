"""The Ray Data job of a conversion: one row per shard, which a task decodes, writes and records."""

from __future__ import annotations

import logging
import math
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipelines.cluster.nodes import START_WAIT_SECONDS, Remedies, wait_for_one
from pipelines.cluster.session import is_autoscaled
from pipelines.conversion.plan import ShardTask
from pipelines.conversion.shard_task import Destination, convert_shards
from pipelines.errors import PlatformError
from pipelines.storage import places
from pipelines.stores.ledger import ShardRecord

_LOCAL = 8, 3
"""on a local store: most shards per Ray task, and fewest Ray tasks per worker"""
_REMOTE = 16, 1
"""the same on a remote store"""
EXPECTED = 32
"""most processors that an autoscaler is asked for, if `workers` is not given"""
_REMEDIES = Remedies(smaller="see that its nodes have processors")

if TYPE_CHECKING:
    import pyarrow as pa


def converted_on_ray(
    tasks: Sequence[ShardTask],
    workers: int | None,
    destination: Destination,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[tuple[ShardRecord, np.ndarray]]:
    """Convert shards on Ray; yield each record as it comes.

    Parameters
    ----------
    workers
        Largest number of shards at the same time; None: one per processor.
    say
        Called with a line if nodes have to be waited for.

    Yields
    ------
    record : ShardRecord
        Outline of the record of a shard that was written.
    moments : np.ndarray
        Moments of its frames, float64 (n, channels, 6).

    Raises
    ------
    PlatformError
        A shard could not be converted, or no node came up in time.
    UsageError
        The autoscaler has no type of node that could run a task.
    """
    import ray
    from ray.data import TaskPoolStrategy

    remote = not places.is_local(destination.store)
    logging.getLogger("ray.data").setLevel(logging.ERROR)

    rows = ray.data.from_items(
        [{"task": pickle.dumps(task)} for task in tasks],
        override_num_blocks=_blocks(len(tasks), _processors(len(tasks), workers, say), remote),
    )
    converted = rows.map_batches(
        _convert_rows,  # pyright: ignore[reportArgumentType] (Ray's types ignore fn_kwargs)
        fn_kwargs={"destination": destination},
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=1,
        compute=TaskPoolStrategy(size=workers),
    )
    converted.context.enable_progress_bars = False
    # Ray Data's budgets protect the object store, which holds only records here. Until the cluster
    # is counted they allow one task at a time. One processor per task is bound enough.
    converted.context.op_resource_reservation_enabled = False
    for row in converted.iter_rows():
        if row["error"]:
            raise pickle.loads(row["error"])
        record: ShardRecord = pickle.loads(row["record"])
        moments = np.frombuffer(row["moments"]).reshape(-1, *record.moments.shape[1:])
        yield record, moments


def _convert_rows(rows: pa.Table, destination: Destination) -> Iterator[pa.Table]:
    """Convert the shards of some rows; give one row each: the record and moments, or the error."""
    import pyarrow as pa

    due: list[ShardTask] = [pickle.loads(task) for task in rows["task"].to_pylist()]
    for task, outcome in zip(due, convert_shards(due, destination), strict=True):
        record, moments, error = b"", b"", b""
        if isinstance(outcome, ShardRecord):
            record, moments = pickle.dumps(outcome.outline()), outcome.moments.tobytes()
        elif isinstance(outcome, PlatformError):
            error = pickle.dumps(outcome)
        else:
            wrapped = PlatformError(
                f"a shard could not be converted: {type(outcome).__name__}: {outcome}",
                where=places.join(destination.store, task.layout.object_name(task.shard)),
                remedy="run the same command again: it resumes",
            )
            error = pickle.dumps(wrapped)
        yield pa.table({"record": [record], "moments": [moments], "error": [error]})


def _blocks(shards: int, workers: int, remote: bool) -> int:
    """Return the number of Ray tasks for the shards.

    Between two tasks a worker waits for the driver, and on a remote store for its last uploads. A
    task with several shards waits less often. Each worker still gets several tasks, if the shards
    are many: then no worker has to do a large rest alone.
    """
    most, tasks = _REMOTE if remote else _LOCAL
    rows = min(most, max(1, shards // (tasks * workers)))
    return math.ceil(shards / rows)


def _processors(shards: int, asked: int | None, say: Callable[[str], None]) -> int:
    """Return the number of processors to expect; wait for the first node of an autoscaler.

    With an autoscaler, the processors of now say little: it may have no node yet. It adds nodes for
    Ray tasks that wait, up to its limits.
    """
    import ray

    standing = int(ray.cluster_resources().get("CPU", 0))
    if not is_autoscaled():
        return asked or max(1, standing)
    most = min(shards, asked or max(standing, EXPECTED))
    wait_for_one(1, [{"CPU": 1}], say, START_WAIT_SECONDS, _REMEDIES, welcome=most - 1)
    return most
