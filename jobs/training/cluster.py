"""What the Ray cluster offers a training job: GPUs, room for the workers, shared paths."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from jobs.training.options import TrainOptions
from pipelines.errors import UsageError
from pipelines.ray_session import check_reachable, ray_session

UNLIMITED = 2**31


@dataclass(frozen=True)
class Cluster:
    """What the cluster has now, and what its autoscaler may add."""

    resources: dict[str, float]
    """the most of each resource that it can come to"""
    nodes: int
    """the most nodes that it can come to"""
    standing: tuple[tuple[dict[str, float], int], ...]
    """the nodes that run now: resources of one, and 1"""
    scalable: tuple[tuple[dict[str, float], int], ...] = ()
    """the autoscaler's groups: resources of one node, and the most of them"""

    @classmethod
    def describe(cls) -> Cluster:
        """Ask the connected cluster and its autoscaler's configuration."""
        import ray
        from ray._private.state import state

        now: dict[str, float] = dict(ray.cluster_resources())
        # The driver writes the run's record, so its node counts even where it offers no CPU.
        used = {ray.get_runtime_context().get_node_id()} | {
            node["NodeID"]
            for node in ray.nodes()
            if node["Alive"] and {"CPU", "GPU"} & set(node["Resources"])
        }
        config: Any = state.get_cluster_config()
        scaled = state.get_max_resources_from_cluster_config() or {}
        groups = [group.max_count for group in config.node_group_configs] if config else []
        added = UNLIMITED if -1 in groups else sum(groups)
        # The nodes that run now belong to these groups, so the larger of both is the bound.
        most = {key: max(now.get(key, 0), scaled.get(key, 0)) for key in {*now, *scaled}}
        standing = [(dict(node["Resources"]), 1) for node in ray.nodes() if node["Alive"]]
        scalable = [
            (dict(group.resources), UNLIMITED if group.max_count == -1 else group.max_count)
            for group in (config.node_group_configs if config else [])
        ]
        return cls(most, max(len(used), added), tuple(standing), tuple(scalable))

    def wants_gpu(self, options: TrainOptions) -> bool:
        """Whether workers get a GPU each.

        Raises
        ------
        UsageError
            The cluster can never place all the workers: the job would wait for ever.
        """
        gpus, cpus = self.resources.get("GPU", 0), self.resources.get("CPU", 0)
        if options.use_gpu == "true" and gpus < options.workers:
            raise UsageError(
                f"{options.workers} workers with a GPU each, but the cluster has at most {gpus:g}",
                remedy=f"--workers {max(1, int(gpus))}, or --use_gpu false",
            )
        needed = options.workers * options.cpus_per_worker
        if cpus < needed:
            raise UsageError(
                f"{options.workers} workers of {options.cpus_per_worker} CPU need {needed} CPU, "
                f"but the cluster has at most {cpus:g}",
                remedy=f"--workers {max(1, int(cpus // options.cpus_per_worker))}, "
                "or add nodes to the cluster",
            )
        use_gpu = options.use_gpu == "true" or (
            options.use_gpu == "auto" and gpus >= options.workers
        )
        self._check_room(options, use_gpu)
        return use_gpu

    def _check_room(self, options: TrainOptions, use_gpu: bool) -> None:
        """UsageError where the nodes have enough in all, but none, or too few, hold a worker."""
        wants = {"CPU": options.cpus_per_worker} | ({"GPU": 1} if use_gpu else {})
        room = max(
            sum(
                count * min(int(node.get(key, 0) // amount) for key, amount in wants.items())
                for node, count in nodes
            )
            for nodes in (self.standing, self.scalable)
        )
        if room >= options.workers:
            return
        worker = " and ".join(f"{amount} {key}" for key, amount in wants.items())
        largest = max(node.get("CPU", 0) for node, _ in self.standing + self.scalable)
        raise UsageError(
            f"{options.workers} workers of {worker} each, but the cluster's nodes have room for "
            f"{room}: a worker must fit on one node, and the largest has {largest:g} CPU",
            remedy="lower --cpus_per_worker"
            + (f" or --workers to {room}" if room else "")
            + ", or give the cluster larger nodes",
        )

    def check_paths(self, options: TrainOptions) -> None:
        """UsageError for a local path that workers on another node cannot see."""
        used = {"--store": options.store, "--run": options.run}
        check_reachable(used, options.shared_paths, self.nodes)


@contextmanager
def connect(options: TrainOptions) -> Iterator[Cluster]:
    """Connect to the cluster of ``RAY_ADDRESS``, or start one here and end it afterwards."""
    # A report waits for the controller's next look; its default of 2 s would stall each checkpoint.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    needed = options.workers * options.cpus_per_worker
    with ray_session(max(os.cpu_count() or 1, needed)):
        yield Cluster.describe()
