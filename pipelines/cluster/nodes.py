"""Whether workers fit on the nodes of a cluster, and waiting for nodes that an autoscaler adds.

Ray's autoscaler tells no client which nodes it may add. To find out, `wait_for_one` requests a
placement group of the workers' shape. Either the group is placed once the nodes are there, or the
autoscaler reports that its nodes can never hold it.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.cluster.session import UNLIMITED, cluster_status
from pipelines.errors import PlatformError, UsageError

START_WAIT_SECONDS = 1800.0
"""longest wait for the first nodes, if the caller gives no limit of its own"""
AGAIN_SECONDS = 60.0
"""time between two lines about waiting"""
SOON_SECONDS = 5.0
"""time before the first line about waiting, if the nodes are there and only in use"""
LOOK_SECONDS = 0.5
"""time between two looks at the placement group and at the autoscaler's report"""

Worker = dict[str, float]
"""what one worker asks for: resource -> amount"""

NodeGroup = tuple[Mapping[str, float], int]
"""nodes that are alike: the resources of one node, and the number of nodes"""


@dataclass(frozen=True)
class Remedies:
    """What a user can do if the workers do not fit or the nodes do not come."""

    smaller: str = "lower --workers"
    """if the cluster's nodes are too small or too few"""
    longer: str = "run the same command again"
    """if the autoscaler has such nodes, but none came in time"""


_ANY = Remedies()


def groups_of_one(nodes: Iterable[Mapping[str, float]]) -> tuple[NodeGroup, ...]:
    """Return each node as a group of its own, given the resources of each."""
    return tuple((dict(node), 1) for node in nodes)


def room_for(nodes: Iterable[NodeGroup], shape: Mapping[str, float]) -> int:
    """Return how many workers of a shape fit on the nodes, if nothing else runs there.

    >>> room_for([({"CPU": 4}, 1), ({"CPU": 3, "GPU": 1}, 2)], {"CPU": 2})
    4
    """
    return sum(
        count * min(int(node.get(key, 0) // amount) for key, amount in shape.items() if amount)
        for node, count in nodes
    )


def check_room(
    workers: int,
    shape: Worker,
    nodes: Sequence[NodeGroup],
    remedies: Remedies = _ANY,
    *,
    possible: Sequence[NodeGroup] = (),
) -> None:
    """Check that the cluster can hold all workers of a shape at once.

    Parameters
    ----------
    workers:
        How many workers there are.
    shape:
        What one worker asks for.
    nodes:
        The nodes that are there.
    remedies:
        What the user can do if the workers do not fit.
    possible:
        All nodes that an autoscaler may run at once, including those of `nodes` that it started.

    Raises
    ------
    UsageError
        The workers fit neither on `nodes` nor on `possible`.
    """
    most = max(nodes, possible, key=lambda groups: room_for(groups, shape))
    room = room_for(most, shape)
    if room >= workers:
        return
    largest = _amounts(shape, [max(n.get(key, 0) for n, _ in (*nodes, *possible)) for key in shape])
    fits = f" (--workers {room} fits)" if room else ""
    raise UsageError(
        f"{shortage(workers, shape, most)}: a worker must fit on one node, and the largest has "
        f"{largest}",
        remedy=f"{remedies.smaller}{fits}, or give the cluster more or larger nodes",
    )


def shortage(
    workers: int,
    shape: Worker,
    nodes: Sequence[NodeGroup],
    free: Mapping[str, float] | None = None,
) -> str:
    """Return what the workers ask for and what the cluster has, in words.

    Parameters
    ----------
    workers, shape:
        As in `check_room`.
    nodes:
        The nodes that are there.
    free:
        What nobody uses now, of each resource of the whole cluster; None if it does not matter.

    >>> shortage(3, {"CPU": 2}, [({"CPU": 4}, 1)], {"CPU": 1})
    'the job asks for 3 x 2 CPU, and the cluster has room for 2 (4 CPU on 1 node(s), 1 CPU free)'
    """
    unused = "" if free is None else f", {_amounts(shape, [free.get(k, 0) for k in shape])} free"
    return (
        f"the job asks for {words(workers, shape)}, and the cluster has room for "
        f"{room_for(nodes, shape)} ({_extent(nodes)}{unused})"
    )


def words(workers: int, shape: Worker) -> str:
    """Return what the workers ask for, in words.

    >>> words(2, {"CPU": 4, "GPU": 1})
    '2 x (4 CPU and 1 GPU)'
    >>> words(2, {"CPU": 1})
    '2 x 1 CPU'
    """
    one = _amounts(shape, shape.values())
    return f"{workers} x {one}" if len(shape) == 1 else f"{workers} x ({one})"


def _amounts(resources: Iterable[str], amounts: Iterable[float]) -> str:
    pairs = zip(resources, amounts, strict=True)
    return " and ".join(f"{amount:g} {resource}" for resource, amount in pairs)


def _extent(nodes: Sequence[NodeGroup]) -> str:
    """Return the processors and GPUs of all nodes together, in words."""
    count = sum(number for _, number in nodes)
    if count >= UNLIMITED:
        return "any number of nodes"
    cpus, gpus = (sum(n * node.get(key, 0) for node, n in nodes) for key in ("CPU", "GPU"))
    total = _amounts(("CPU", "GPU"), (cpus, gpus)) if gpus else f"{cpus:g} CPU"
    return f"{total} on {count} node(s)"


def standing_nodes() -> tuple[NodeGroup, ...]:
    """Return the nodes that are alive in the connected cluster."""
    import ray

    return groups_of_one(node["Resources"] for node in ray.nodes() if node["Alive"])


def staying_nodes() -> dict[str, dict[str, float]]:
    """Return the resources of each node that is alive and not being drained, by node id."""
    import ray
    from ray._private.state import state

    going = state.get_draining_nodes() or {}
    return {
        node["NodeID"]: dict(node["Resources"])
        for node in ray.nodes()
        if node["Alive"] and node["NodeID"] not in going
    }


def wait_for_one(
    workers: int,
    shapes: Sequence[Worker],
    say: Callable[[str], None],
    limit: float = 0,
    remedies: Remedies = _ANY,
    welcome: int = 0,
) -> Worker:
    """Wait until the cluster has room for the workers in the first shape that it can provide.

    The nodes stay up and idle, so the next placement request uses them.

    Parameters
    ----------
    workers:
        How many workers there are.
    shapes:
        What one worker asks for: possible shapes, the preferred one first.
    say:
        Called with a line about what is waited for, and again every minute.
    limit:
        Seconds after which waiting ends; 0 waits without a limit.
    remedies:
        What the user can do if the nodes do not come.
    welcome:
        Number of further workers whose nodes are requested as well, but not waited for.

    Returns
    -------
    The shape that the cluster has room for.

    Raises
    ------
    UsageError
        The autoscaler has no such nodes, or too few of them.
    PlatformError
        The autoscaler has such nodes, but they did not come within the limit.
    """
    for shape in shapes:
        if _wait_for(workers, shape, say, limit or math.inf, remedies, welcome):
            return shape
    raise UsageError(
        f"the job asks for {words(workers, shapes[-1])}, which the cluster has no room for and "
        "its autoscaler cannot provide: a worker must fit on one node "
        f"({_extent(standing_nodes())} now)",
        remedy=f"{remedies.smaller}, or give the autoscaler larger node types or a higher "
        "max_workers (`ray status` shows what it refused)",
    )


def _wait_for(
    workers: int,
    shape: Worker,
    say: Callable[[str], None],
    limit: float,
    remedies: Remedies,
    welcome: int,
) -> bool:
    """Wait for room; return False if the autoscaler can never provide it."""
    from ray.util.placement_group import placement_group, remove_placement_group

    def tell(more: str = "") -> None:
        say(
            f"waiting for nodes: asks for {words(workers + welcome, shape)}, the cluster has "
            f"{_extent(standing_nodes())}, the autoscaler may add nodes{more}"
        )

    began = said = time.monotonic()
    if room_for(groups_of_one(staying_nodes().values()), shape) < workers:
        tell()
    else:
        said -= AGAIN_SECONDS - SOON_SECONDS
    group = placement_group([shape] * workers, strategy="PACK")
    # One group per worker: the autoscaler adds nodes for as many of them as its limits permit.
    others = [placement_group([shape]) for _ in range(welcome)]
    refusal = _Refusal(group.id.hex(), shape)
    try:
        while not group.wait(LOOK_SECONDS):
            status = cluster_status()
            if refusal.is_final(status):
                return False
            coming = _coming(status.autoscaling_state)
            if time.monotonic() - said >= AGAIN_SECONDS:
                tell(coming)
                said = time.monotonic()
            if time.monotonic() - began > limit:
                raise PlatformError(
                    f"no nodes for {words(workers, shape)} within {limit:g} s: the cluster has "
                    f"{_extent(standing_nodes())}{coming}",
                    remedy="see `ray status` for what the autoscaler does, or the cloud's quota; "
                    f"{remedies.longer}",
                )
        _use(group, workers, shape)
        return True
    finally:
        for requested in (group, *others):
            remove_placement_group(requested)


class _Refusal:
    """Tells whether the autoscaler refused a placement group for good.

    The autoscaler also refuses a group while other jobs hold the nodes that could take it. Its
    refusal counts only if it has seen the cluster since the other jobs ended.
    """

    def __init__(self, group: str, shape: Worker):
        self._group, self._shape = group, shape
        self._free_since: int | None = None
        """version of the cluster's state since which no other job uses what the group asks for"""

    def is_final(self, status: Any) -> bool:
        """Return whether a report of `cluster_status` refuses the group for good."""
        state, report = status.cluster_resource_state, status.autoscaling_state
        if _others_hold(state.node_states, self._shape):
            self._free_since = None
        elif self._free_since is None:
            self._free_since = state.cluster_resource_state_version
        refused = any(
            request.details.startswith(self._group)
            for request in report.infeasible_gang_resource_requests
        )
        seen = report.last_seen_cluster_resource_state_version
        return refused and self._free_since is not None and seen >= self._free_since


def _use(group: Any, workers: int, shape: Worker) -> None:
    """Run an empty task on every node, so that the autoscaler counts its idle time from now on."""
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
    with contextlib.suppress(RayError):  # if a node is gone again, the job itself waits for it
        ray.get(done, timeout=AGAIN_SECONDS)


def _others_hold(nodes: Iterable[Any], shape: Worker) -> bool:
    """Return whether other jobs use what the workers ask for, and may free it when they end."""
    scarce = ["GPU"] if "GPU" in shape else list(shape)
    return any(
        node.available_resources.get(key, 0) < node.total_resources.get(key, 0)
        for node in nodes
        for key in scarce
    )


def _coming(report: Any) -> str:
    """Return what the autoscaler is starting, and why the last start failed, in words."""
    requested = sum(request.count for request in report.pending_instance_requests)
    starting = requested + len(report.pending_instances)
    text = f"; {starting} starting" if starting else ""
    failed = [request.reason for request in report.failed_instance_requests]
    return f"{text}; the last that failed to start: {failed[-1]}" if failed else text
