"""What the Ray cluster offers a training job: GPUs, room for the workers, shared paths."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from jobs.command_line import say
from jobs.training.options import TrainOptions
from pipelines.cluster.nodes import (
    NodeGroup,
    Remedies,
    Worker,
    check_room,
    standing_nodes,
    wait_for_one,
)
from pipelines.cluster.session import UNLIMITED, check_reachable, is_autoscaled, ray_session
from pipelines.errors import UsageError

REMEDIES = Remedies(
    smaller="lower --workers or --cpus_per_worker",
    longer="a longer --elastic.start_wait waits longer",
)
GPU_REMEDIES = replace(
    REMEDIES, smaller="lower --workers or --cpus_per_worker, or give --use_gpu false"
)


@dataclass(frozen=True)
class Cluster:
    """What the cluster has now, and what its autoscaler may add."""

    resources: dict[str, float]
    """the most of each resource that the cluster can have"""
    nodes: int
    """the most nodes that the cluster can have; UNLIMITED if an autoscaler does not say"""
    standing: tuple[NodeGroup, ...]
    """the nodes that run now: resources of one, and 1"""
    scalable: tuple[NodeGroup, ...] = ()
    """the autoscaler's groups: resources of one node, and the most nodes of the group"""
    open_ended: bool = False
    """whether an autoscaler adds nodes and does not say which"""

    @classmethod
    def describe(cls) -> Cluster:
        """Make it from the connected cluster and the configuration of its autoscaler."""
        import ray
        from ray._private.state import state

        now: dict[str, float] = dict(ray.cluster_resources())
        # The driver writes the run's record, so its node counts even if it offers no CPU.
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
        scalable = [
            (dict(group.resources), UNLIMITED if group.max_count == -1 else group.max_count)
            for group in (config.node_group_configs if config else [])
        ]
        open_ended = config is None and is_autoscaled()
        bound = UNLIMITED if open_ended else max(len(used), added)
        return cls(most, bound, standing_nodes(), tuple(scalable), open_ended)

    @property
    def extent(self) -> str:
        """How large the cluster may get, in words."""
        return "nodes as needed" if self.open_ended else f"up to {self.nodes} node(s)"

    def wants_gpu(self, options: TrainOptions) -> bool:
        """Return whether workers get a GPU each. Waits for nodes if an autoscaler adds them.

        Raises
        ------
        UsageError
            The cluster can never place all workers, so that the job would wait for ever.
        """
        if self.open_ended:
            cpu: Worker = {"CPU": options.cpus_per_worker}
            gpu = cpu | {"GPU": 1}
            shapes = {"true": [gpu], "false": [cpu], "auto": [gpu, cpu]}[options.use_gpu]
            least, limit = options.worker_range.least, options.elastic.start_wait
            return "GPU" in wait_for_one(least, shapes, say, limit, REMEDIES)
        least = options.worker_range.least
        enough = self.resources.get("GPU", 0) >= least
        use_gpu = options.use_gpu == "true" or (options.use_gpu == "auto" and enough)
        shape: Worker = {"CPU": options.cpus_per_worker}
        if use_gpu:
            shape["GPU"] = 1
        remedies = GPU_REMEDIES if use_gpu else REMEDIES
        check_room(least, shape, self.standing, remedies, possible=self.scalable)
        return use_gpu

    def check_reading_room(self, options: TrainOptions) -> None:
        """Raise UsageError if the workers leave no CPU for the tasks of `--data.transport ray`."""
        if options.data.transport == "direct" or self.open_ended:
            return
        cpus = self.resources.get("CPU", 0)
        needed = options.worker_range.least * options.cpus_per_worker + options.reading_cpus
        if cpus >= needed:
            return
        raise UsageError(
            f"--data.transport ray reads with tasks of {options.reading_cpus} CPU, and "
            f"{options.worker_range.least} workers of {options.cpus_per_worker} CPU leave none of "
            f"the {cpus:g} that the cluster has at most",
            remedy="give fewer --workers or --cpus_per_worker, add nodes, or read in the workers "
            "(--data.transport direct)",
        )

    def check_paths(self, options: TrainOptions) -> None:
        """Raise UsageError for a local path that workers on another node cannot see."""
        used = {"--store": options.store, "--run": options.run}
        check_reachable(used, options.shared_paths, self.nodes)


@contextmanager
def connect(options: TrainOptions) -> Iterator[Cluster]:
    """Connect to the cluster of `RAY_ADDRESS`, or start one here and end it afterwards."""
    # A report waits for the controller's next look. The default of 2 s would stall each checkpoint.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    needed = options.worker_range.least * options.cpus_per_worker + options.reading_cpus
    with ray_session(max(os.cpu_count() or 1, needed)):
        yield Cluster.describe()
