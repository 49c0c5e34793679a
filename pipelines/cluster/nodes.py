"""Waiting for the nodes that an autoscaler adds, on a cluster that starts at zero.

Ray's autoscaler tells no client which nodes it may add, so it is asked: a placement group of the
workers' shape is put up. Either it is placed once the nodes are there, or the autoscaler reports
that no nodes of its can ever hold it.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.cluster.session import cluster_status
from pipelines.errors import PlatformError, UsageError

START_WAIT_SECONDS = 1800.0
"""for the first nodes, where nothing else is asked"""
AGAIN_SECONDS = 60.0
"""between two lines about waiting"""
SOON_SECONDS = 5.0
"""after which waiting is told where there is room that may only be taken"""
LOOK_SECONDS = 0.5
"""between two looks at the placement group and at the autoscaler's report"""

Worker = dict[str, float]
"""What one worker asks for: resource -> amount"""


@dataclass(frozen=True)
class Remedies:
    """What a user can do where the nodes do not come."""

    smaller: str = "lower --workers"
    """where the autoscaler has none that are large enough, or too few"""
    longer: str = "run the same command again"
    """where it has them, and none came in time"""


_ANY = Remedies()


def wait_for_one(
    workers: int,
    shapes: Sequence[Worker],
    say: Callable[[str], None],
    limit: float = 0,
    remedies: Remedies = _ANY,
    welcome: int = 0,
) -> Worker:
    """Wait until the cluster has room for so many workers, of the first shape that it can have.

    The nodes stay, idle from then on: whoever asks next is placed on them.

    Parameters
    ----------
    workers:
        How many.
    shapes:
        What one worker asks for, by preference.
    say:
        Told what is waited for, and again every minute.
    limit:
        Seconds after which waiting ends; 0: for ever.
    remedies:
        What a user can do where the nodes do not come.
    welcome:
        Further workers whose nodes are asked for at the same time and not waited for.

    Raises
    ------
    UsageError
        The autoscaler has no such nodes, or too few of them.
    PlatformError
        It has, but none came within the limit.
    """
    for shape in shapes:
        if _wait_for(workers, shape, say, limit or math.inf, remedies, welcome):
            return shape
    wanted = words(workers, shapes[-1])
    raise UsageError(
        f"the job asks for {wanted}, which the cluster has no room for and its autoscaler cannot "
        f"provide: a worker must fit on one node ({_standing()} now)",
        remedy=f"{remedies.smaller}, or give the autoscaler larger node types or a higher "
        "max_workers (`ray status` shows what it refused)",
    )


def words(workers: int, shape: Worker) -> str:
    """A request as a user reads it.

    >>> words(2, {"CPU": 4, "GPU": 1})
    '2 x (4 CPU and 1 GPU)'
    >>> words(2, {"CPU": 1})
    '2 x 1 CPU'
    """
    one = " and ".join(f"{amount:g} {key}" for key, amount in shape.items())
    return f"{workers} x {one}" if len(shape) == 1 else f"{workers} x ({one})"


def room_for(nodes: Iterable[Mapping[str, float]], worker: Mapping[str, float]) -> int:
    """How many workers fit on nodes that have these resources.

    >>> room_for([{"CPU": 4}, {"CPU": 3, "GPU": 1}], {"CPU": 2})
    3
    """
    return sum(
        min(int(node.get(key, 0) // amount) for key, amount in worker.items() if amount)
        for node in nodes
    )


def staying_nodes() -> dict[str, dict[str, float]]:
    """Node -> resources, of the nodes that are there and not about to be taken away."""
    import ray
    from ray._private.state import state

    going = state.get_draining_nodes() or {}
    return {
        node["NodeID"]: dict(node["Resources"])
        for node in ray.nodes()
        if node["Alive"] and node["NodeID"] not in going
    }


def _wait_for(
    workers: int,
    shape: Worker,
    say: Callable[[str], None],
    limit: float,
    remedies: Remedies,
    welcome: int,
) -> bool:
    """True once there is room, False where the autoscaler will never make it."""
    from ray.util.placement_group import placement_group, remove_placement_group

    def tell(more: str = "") -> None:
        say(
            f"waiting for nodes: asks for {words(workers + welcome, shape)}, the cluster has "
            f"{_standing()}, "
            f"the autoscaler may add nodes{more}"
        )

    began = said = time.monotonic()
    if room_for(staying_nodes().values(), shape) < workers:
        tell()
    else:
        said -= AGAIN_SECONDS - SOON_SECONDS
    group = placement_group([shape] * workers, strategy="PACK")
    # One by one: the autoscaler adds the nodes of as many as its limits permit.
    others = [placement_group([shape]) for _ in range(welcome)]
    try:
        free_since: int | None = None
        while not group.wait(LOOK_SECONDS):
            status = cluster_status()
            state, report = status.cluster_resource_state, status.autoscaling_state
            if _others_hold(state.node_states, shape):
                free_since = None
            elif free_since is None:
                free_since = state.cluster_resource_state_version
            refused = any(
                request.details.startswith(group.id.hex())
                for request in report.infeasible_gang_resource_requests
            )
            # A refusal from before the others' end would be none now.
            seen = report.last_seen_cluster_resource_state_version
            if refused and free_since is not None and seen >= free_since:
                return False
            if time.monotonic() - said >= AGAIN_SECONDS:
                tell(_coming(report))
                said = time.monotonic()
            if time.monotonic() - began > limit:
                raise PlatformError(
                    f"no nodes for {words(workers, shape)} within {limit:g} s: the cluster has "
                    f"{_standing()}{_coming(report)}",
                    remedy="see `ray status` for what the autoscaler does, or the cloud's quota; "
                    f"{remedies.longer}",
                )
        _use(group, workers, shape)
        return True
    finally:
        for asked in (group, *others):
            remove_placement_group(asked)


def _use(group: Any, workers: int, shape: Worker) -> None:
    """Run nothing on every node, so that the first that came does not count as idle since then."""
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    def nothing() -> None:
        pass

    remote = ray.remote(num_cpus=shape["CPU"], num_gpus=0)(nothing)
    done = [
        remote.options(scheduling_strategy=PlacementGroupSchedulingStrategy(group, index)).remote()
        for index in range(workers)
    ]
    with contextlib.suppress(RayError):  # a node that is gone again is waited for by the training
        ray.get(done, timeout=AGAIN_SECONDS)


def _others_hold(nodes: Iterable[Any], shape: Worker) -> bool:
    """Whether other jobs use what the workers ask for, so that more can be had when they end."""
    scarce = ["GPU"] if "GPU" in shape else list(shape)
    return any(
        node.available_resources.get(key, 0) < node.total_resources.get(key, 0)
        for node in nodes
        for key in scarce
    )


def _standing() -> str:
    import ray

    has = ray.cluster_resources()
    nodes = sum(node["Alive"] for node in ray.nodes())
    parts = [f"{has.get('CPU', 0):g} CPU"]
    if has.get("GPU"):
        parts.append(f"{has['GPU']:g} GPU")
    return f"{' and '.join(parts)} on {nodes} node(s)"


def _coming(report: Any) -> str:
    """What the autoscaler is doing about it."""
    asked = sum(request.count for request in report.pending_instance_requests)
    starting = asked + len(report.pending_instances)
    text = f"; {starting} starting" if starting else ""
    failed = [request.reason for request in report.failed_instance_requests]
    return f"{text}; the last that failed to start: {failed[-1]}" if failed else text
