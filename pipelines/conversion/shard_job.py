"""The Ray Data job of a conversion: one row a shard, decoded, written and recorded in its task."""

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

# Shards that a Ray task takes at most, and tasks that a worker gets at least.
_LOCAL = 8, 3
_REMOTE = 16, 1
EXPECTED = 32
"""processors that are asked for at most where an autoscaler adds nodes and no number is given"""
_REMEDIES = Remedies(smaller="see that its nodes have processors")

if TYPE_CHECKING:
    import pyarrow as pa


def converted_on_ray(
    tasks: Sequence[ShardTask],
    workers: int | None,
    destination: Destination,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[tuple[ShardRecord, np.ndarray]]:
    """Outlines of records as they come, and the moments of their frames (n, channels, 6).

    Raises
    ------
    PlatformError
        The first shard that could not be converted; no node came.
    UsageError
        The autoscaler has no node that could.
    """
    import pyarrow as pa
    import ray
    from ray.data import TaskPoolStrategy

    remote = not places.is_local(destination.store)
    logging.getLogger("ray.data").setLevel(logging.ERROR)

    def work(rows: pa.Table) -> Iterator[pa.Table]:
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

    rows = ray.data.from_items(
        [{"task": pickle.dumps(task)} for task in tasks],
        override_num_blocks=_blocks(len(tasks), _processors(len(tasks), workers, say), remote),
    )
    converted = rows.map_batches(
        work,
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=1,
        compute=TaskPoolStrategy(size=workers),
    )
    converted.context.enable_progress_bars = False
    # Budgets guard the object store, which holds records only here, and they let one task run at
    # a time until Ray Data has counted the cluster. One processor a task is the bound.
    converted.context.op_resource_reservation_enabled = False
    for row in converted.iter_rows():
        if row["error"]:
            raise pickle.loads(row["error"])
        record: ShardRecord = pickle.loads(row["record"])
        moments = np.frombuffer(row["moments"]).reshape(-1, *record.moments.shape[1:])
        yield record, moments


def _blocks(shards: int, workers: int, remote: bool) -> int:
    """How many Ray tasks the shards are dealt to: a few rows each, where there are many.

    Between two tasks a worker waits for the driver, and on a remote store for its last uploads; a
    task that takes several shards, one after the other, waits less. Where there are very many every
    worker still gets several tasks, so that none is left with the rest.
    """
    most, tasks = _REMOTE if remote else _LOCAL
    rows = min(most, max(1, shards // (tasks * workers)))
    return math.ceil(shards / rows)


def _processors(shards: int, asked: int | None, say: Callable[[str], None]) -> int:
    """Processors that the shards are dealt to; waits for the first node of an autoscaler.

    On its cluster those that stand now say little: it may have none yet. Each Ray task that waits
    is a reason to add nodes, as far as its limits go.
    """
    import ray

    standing = int(ray.cluster_resources().get("CPU", 0))
    if not is_autoscaled():
        return asked or max(1, standing)
    most = min(shards, asked or max(standing, EXPECTED))
    wait_for_one(1, [{"CPU": 1}], say, START_WAIT_SECONDS, _REMEDIES, welcome=most - 1)
    return most
