"""What the Ray cluster offers a training job: GPUs, room for the workers, shared paths."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from jobs.training.options import TrainOptions
from pipelines import uri as places
from pipelines.errors import UsageError
from pipelines.ray_session import ray_session


@dataclass(frozen=True)
class Cluster:
    """What the cluster has now, and what its autoscaler may add."""

    resources: dict[str, float]
    """the most of each resource that it can come to"""
    nodes: int
    """the most nodes that it can come to"""

    @classmethod
    def describe(cls) -> Cluster:
        """Ask the connected cluster and its autoscaler's configuration."""
        import ray
        from ray._private.state import state

        now: dict[str, float] = dict(ray.cluster_resources())
        alive = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        config: Any = state.get_cluster_config()
        scaled = state.get_max_resources_from_cluster_config() or {}
        added = sum(group.max_count for group in config.node_group_configs) if config else 0
        # The ray head's own group is among them, so the larger of both is the bound, not the sum.
        most = {key: max(now.get(key, 0), scaled.get(key, 0)) for key in {*now, *scaled}}
        return cls(most, max(len(alive), added))

    def wants_gpu(self, options: TrainOptions) -> bool:
        """Whether workers get a GPU each.

        Raises
        ------
        UsageError
            The cluster can never place all the workers: the job would wait for ever.
        """
        gpus = self.resources.get("GPU", 0)
        use_gpu = options.use_gpu == "true" or (options.use_gpu == "auto" and gpus > 0)
        if use_gpu and gpus < options.workers:
            raise UsageError(
                f"{options.workers} workers with a GPU each, but the cluster has at most {gpus:g}",
                remedy=f"--workers {max(1, int(gpus))}, or --use_gpu false",
            )
        cpus = self.resources.get("CPU", 0)
        needed = options.workers * options.cpus_per_worker
        if cpus < needed:
            raise UsageError(
                f"{options.workers} workers of {options.cpus_per_worker} CPU need {needed} CPU, "
                f"but the cluster has at most {cpus:g}",
                remedy=f"--workers {max(1, int(cpus // options.cpus_per_worker))}, "
                "or add nodes to the cluster",
            )
        return use_gpu

    def check_paths(self, options: TrainOptions) -> None:
        """Refuse a local path that workers on another node cannot see.

        Raises
        ------
        UsageError
            The cluster has, or may get, several nodes, and ``--store`` or ``--run`` is local.
        """
        if self.nodes < 2 or options.shared_paths:
            return
        for option, uri in (("--store", options.store), ("--run", options.run)):
            if places.is_local(uri):
                raise UsageError(
                    f"{option} is a local path, but the cluster has up to {self.nodes} nodes",
                    where=uri,
                    remedy="use s3:// or gs://, or declare with --shared_paths true that the path "
                    "is the same file system on every node",
                )


@contextmanager
def connect(options: TrainOptions) -> Iterator[Cluster]:
    """Connect to the cluster of ``RAY_ADDRESS``, or start one here and end it afterwards."""
    # A report waits for the controller's next look; its default of 2 s would stall each checkpoint.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    needed = options.workers * options.cpus_per_worker
    with ray_session(max(os.cpu_count() or 1, needed)):
        yield Cluster.describe()
