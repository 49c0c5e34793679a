"""A Ray to work in: the one that runs already, a cluster that is named, or a small own one."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from pipelines.errors import UsageError
from pipelines.storage import places

_OBJECT_STORE_BYTES = 128 * 1024**2
"""field values never pass through the object store: records of shards need little"""
_CLEARING_SECONDS = 30.0
_STARTS = 3
UNLIMITED = 2**31
"""as many nodes as an autoscaler may add that does not say how many"""


@contextmanager
def ray_session(workers: int | None = None) -> Iterator[None]:
    """Ray for the length of the block.

    An initialised Ray is used and left running. Otherwise ``RAY_ADDRESS`` says which cluster to
    join (``ray job submit`` sets it), and without it a local Ray with ``workers`` CPUs (all of the
    machine's if None) starts and is shut down again.

    Raises
    ------
    UsageError
        There is no cluster at ``RAY_ADDRESS``.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = os.environ.get("RAY_ADDRESS")
    if address:
        _join(address, quiet)
    else:
        start_here(workers or os.cpu_count() or 1, _OBJECT_STORE_BYTES, **quiet)
    try:
        yield
    finally:
        ray.shutdown()


def start_here(cpus: int, object_store_bytes: int, **options: Any) -> None:
    """Start a Ray of this process on this machine, whatever else runs on it.

    Ray gives its own processes half a minute to start. On a machine that is full of other work they
    need longer, but less the next time: their files are in memory then.
    """
    import ray

    for left in reversed(range(_STARTS)):
        try:
            ray.init(
                address="local",
                num_cpus=cpus,
                object_store_memory=object_store_bytes,
                include_dashboard=False,
                **options,
            )
        except Exception as error:  # Ray has no class of its own for it
            if not left or "timed out during startup" not in str(error):
                raise
            ray.shutdown()
        else:
            return


def _join(address: str, options: dict[str, Any]) -> None:
    import ray

    try:
        host, colon, port = address.rpartition(":")
        if colon and "/" not in host and port.isdigit():
            # Ray itself would try for minutes.
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        ray.init(**options)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"there is no Ray cluster at RAY_ADDRESS: {error}",
            where=address,
            remedy="give the head's HOST:6379, start one (ray start --head), or unset RAY_ADDRESS "
            "to work on this machine alone",
        ) from None


def cluster_status() -> Any:
    """What nodes and autoscaler last told the connected cluster (``GetClusterStatusReply``)."""
    import ray
    from ray import _raylet
    from ray.core.generated import autoscaler_pb2

    # Both are made of compiled code, of which a type checker sees nothing.
    reply: Any = cast(Any, autoscaler_pb2).GetClusterStatusReply()
    client: Any = cast(Any, _raylet).GcsClient(ray.get_runtime_context().gcs_address)
    reply.ParseFromString(client.get_cluster_status(timeout_s=30))
    return reply


def is_autoscaled() -> bool:
    """Whether the nodes of the connected cluster are started and ended by an autoscaler.

    Those have the identity that their cloud, or Kubernetes, gave them; nodes that were started by
    hand have none.
    """
    return any(node.instance_id for node in cluster_status().cluster_resource_state.node_states)


def on_other_nodes(function: Callable[[], None]) -> None:
    """Run a function once on every node of the cluster but this one; nodes that go are left out."""
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    others = [n["NodeID"] for n in ray.nodes() if n["Alive"] and n["NodeID"] != here]
    if not others:
        return

    def call() -> None:
        function()

    remote = ray.remote(num_cpus=0, max_retries=0)(call)
    pending = [
        remote.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        ).remote()
        for node in others
    ]
    with contextlib.suppress(RayError):
        ray.get(pending, timeout=_CLEARING_SECONDS)


def check_reachable(
    places_used: dict[str, str], shared_paths: bool, nodes: int | None = None
) -> None:
    """UsageError where workers on other nodes cannot see a local path.

    Parameters
    ----------
    places_used:
        option -> URI.
    shared_paths:
        The user says that local paths are the same on every node.
    nodes:
        How many nodes the cluster has or may get; None: the hosts that it has now, or any number
        where an autoscaler adds nodes.
    """
    import ray

    if shared_paths:
        return
    if nodes is None:
        hosts = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
        nodes = UNLIMITED if is_autoscaled() else len(hosts)
    if nodes < 2:
        return
    has = f"has up to {nodes} nodes" if nodes < UNLIMITED else "gets nodes from its autoscaler"
    for option, place in places_used.items():
        if places.is_local(place):
            raise UsageError(
                f"{option} is a local path, but the cluster {has}",
                where=place,
                remedy="use s3:// or gs://, or declare with --shared_paths true that the path is "
                "the same file system on every node",
            )
