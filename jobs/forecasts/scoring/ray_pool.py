"""Score blocks of windows on a pool of Ray actors.

The rows of the Ray dataset are ranges of windows. Each actor holds the model and its baselines,
reads the store itself, and returns sums, so that no frame passes through the object store. The
blocks are returned in their order, so that any number of workers gives the same sums. A worker that
dies is restarted, and its block is scored again.
"""

from __future__ import annotations

import logging
import math
import os
import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.command_line import say
from jobs.forecasts.scoring.sums import WindowGroups
from pipelines.cluster.nodes import (
    START_WAIT_SECONDS,
    Worker,
    check_room,
    groups_of_one,
    room_for,
    wait_for_one,
)
from pipelines.cluster.session import check_reachable, is_autoscaled, ray_session
from pipelines.errors import PlatformError

if TYPE_CHECKING:
    from jobs.forecasts.scoring.blocks import BlockScores, Scorer

_LEAST: Worker = {"CPU": 1}
_SHAPES: list[Worker] = [{"CPU": 1, "GPU": 1}, _LEAST]
"""the resources that a worker asks an autoscaler for, in order of preference"""

RETRIES = 3
"""how often a block is scored again after its worker has died"""


@dataclass(frozen=True)
class Pool:
    """Workers of a Ray cluster: that of `RAY_ADDRESS`, or one that is started on this machine."""

    workers: int
    places: Mapping[str, str]
    """command-line option -> URI that every worker reads"""
    shared_paths: bool = False
    """local paths are the same on every node of the cluster"""

    def score(
        self,
        scorer: Scorer,
        starts: np.ndarray,
        groups: WindowGroups,
        blocks: Sequence[slice],
        report: Callable[[int], None] = lambda windows: None,
    ) -> Iterator[BlockScores]:
        """Yield the sums of each block, in order; `report` is called with the windows of each.

        Raises
        ------
        UsageError
            The cluster has no room for the workers, or cannot read a local path.
        PlatformError
            A worker raised it, or workers died too often.
        """
        workers = min(self.workers, len(blocks))
        with ray_session(max(workers, os.cpu_count() or 1)):
            check_reachable(dict(self.places), self.shared_paths)
            yield from _in_order(self._on_ray(scorer, starts, groups, blocks, workers), report)

    def _on_ray(
        self,
        scorer: Scorer,
        starts: np.ndarray,
        groups: WindowGroups,
        blocks: Sequence[slice],
        workers: int,
    ) -> Iterator[tuple[int, int, BlockScores]]:
        """Yield (number, windows, sums) of the blocks in the order in which they are scored."""
        import ray
        from ray.data import ActorPoolStrategy
        from ray.exceptions import RayError
        from ray.util.annotations import RayDeprecationWarning

        logging.getLogger("ray.data").setLevel(logging.ERROR)
        # Put once, so that there is one copy of the climatology per node, not per worker.
        work = ray.put((scorer, starts, groups))
        rows = ray.data.from_items(
            [
                {"block": number, "first": part.start, "last": part.stop}
                for number, part in enumerate(blocks)
            ],
            override_num_blocks=len(blocks),
        )
        with warnings.catch_warnings():
            # Ray 2.60 warns that options of actors will be renamed, but has no new name yet for the
            # limit of retries. Without a limit, a block that cannot be scored is retried for ever.
            warnings.simplefilter("ignore", RayDeprecationWarning)
            scored = rows.map_batches(
                BlockActor,
                fn_constructor_args=([work],),
                batch_size=1,  # one block; with GPUs Ray Data requires a number
                compute=ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2),
                max_restarts=RETRIES,
                max_task_retries=RETRIES,
                **share(workers, _nodes(workers)),
            )
        scored.context.enable_progress_bars = False
        # Ray's memory budgets protect the object store, which holds little here: only sums.
        scored.context.op_resource_reservation_enabled = False
        try:
            for row in scored.iter_rows():
                outcome = pickle.loads(row["outcome"])
                if isinstance(outcome, PlatformError):
                    raise outcome
                yield int(row["block"]), int(row["windows"]), outcome
        except RayError as error:
            raise PlatformError(
                f"the workers could not score a block of windows: {_first_line(error)}",
                remedy="give them more memory, a smaller --batch_size or fewer --workers",
            ) from error


class BlockActor:
    """One worker; it reads the weights of the model when it scores its first block."""

    def __init__(self, work: list[Any]):
        import ray

        # The reference is in a list, so that Ray does not replace it by a copy for each worker.
        self._scorer, self._starts, self._groups = ray.get(work[0])

    def __call__(self, rows: dict[str, np.ndarray]) -> dict[str, Any]:
        """Score the blocks of some rows; errors for users are returned as outcomes."""
        outcomes = []
        for first, last in zip(rows["first"].tolist(), rows["last"].tolist(), strict=True):
            part = slice(first, last)
            outcome: Any
            try:
                (outcome,) = self._scorer.score(self._starts, self._groups, [part])
            except PlatformError as error:
                outcome = error
            outcomes.append(pickle.dumps(outcome, protocol=5))
        return {
            "block": rows["block"],
            "windows": rows["last"] - rows["first"],
            "outcome": outcomes,
        }


def _nodes(workers: int) -> list[Mapping[str, float]]:
    """Return the resources of each node; wait for nodes if an autoscaler adds them."""
    import ray

    def standing() -> list[Mapping[str, float]]:
        return [node["Resources"] for node in ray.nodes() if node["Alive"]]

    nodes = standing()
    if room_for(groups_of_one(nodes), _LEAST) < workers and is_autoscaled():
        wait_for_one(workers, _SHAPES, say, START_WAIT_SECONDS)
        nodes = standing()
    return nodes


def share(workers: int, nodes: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Return the resources that each worker asks Ray for, given those of the nodes.

    Workers share the processors evenly, and the GPUs if there are any. If there are more workers
    than GPUs, several workers share one.

    >>> share(2, [{"CPU": 8.0}]), share(3, [{"CPU": 16.0, "GPU": 2.0}])
    ({'num_cpus': 4, 'num_gpus': 0}, {'num_cpus': 5, 'num_gpus': 0.5})

    Raises
    ------
    UsageError
        The cluster has fewer processors than workers.
    """
    check_room(workers, _LEAST, groups_of_one(nodes))
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    own = max(1, sum(cpus) // workers)
    while sum(cpu // own for cpu in cpus) < workers:
        own -= 1
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    if not gpus:
        return {"num_cpus": own, "num_gpus": 0}
    together = math.ceil(workers / gpus)
    return {"num_cpus": own, "num_gpus": 1 if together == 1 else math.floor(1e4 / together) / 1e4}


def _in_order(
    scored: Iterator[tuple[int, int, BlockScores]], report: Callable[[int], None]
) -> Iterator[BlockScores]:
    """Yield the sums in the order of the blocks; keep those that are scored early."""
    early: dict[int, BlockScores] = {}
    due = 0
    for number, windows, scores in scored:
        early[number] = scores
        report(windows)
        while due in early:
            yield early.pop(due)
            due += 1


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
