"""Connect to a Ray cluster: one that runs already, one named by `RAY_ADDRESS`, or a local one."""

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
"""small, because field values never pass through the object store, only records of shards"""
_CALL_SECONDS = 30.0
"""longest wait for a function to return on the other nodes"""
_STARTS = 3
"""attempts to start a local Ray"""
UNLIMITED = 2**31
"""number of nodes that stands for an autoscaler without a stated limit"""


@contextmanager
def ray_session(workers: int | None = None) -> Iterator[None]:
    """Provide Ray while the block runs.

    A Ray that is already initialised is used and left running. Otherwise `RAY_ADDRESS` names the
    cluster to join (`ray job submit` sets it). Without it, a local Ray starts and is shut down
    after the block.

    Parameters
    ----------
    workers:
        CPUs of a local Ray; all CPUs of the machine if None.

    Raises
    ------
    UsageError
        No cluster answers at `RAY_ADDRESS`.
    """
    # Workers inherit the environment: without bytecode caches each start would take twice as long.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # Take over what Ray announces for later versions, which also silences its warning: a task that
    # asks for no GPU keeps the variables that name the visible ones.
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
    """Start a local Ray that belongs to this process, even if other Ray clusters run here.

    Ray gives its own processes half a minute to start. On a machine that is busy with other work
    they need longer. A second attempt is faster, because their files are in memory by then.
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
        except Exception as error:  # Ray has no class of its own for a start that timed out
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
            # Ask for a connection first: Ray itself would try for minutes.
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
    """Return the latest reports of the nodes and the autoscaler (`GetClusterStatusReply`)."""
    import ray
    from ray import _raylet
    from ray.core.generated import autoscaler_pb2

    # Both modules are compiled, so a type checker cannot see into them.
    reply: Any = cast(Any, autoscaler_pb2).GetClusterStatusReply()
    client: Any = cast(Any, _raylet).GcsClient(ray.get_runtime_context().gcs_address)
    reply.ParseFromString(client.get_cluster_status(timeout_s=30))
    return reply


def is_autoscaled() -> bool:
    """Return whether an autoscaler starts and ends the nodes of the connected cluster.

    Nodes of an autoscaler carry an identity from their cloud or from Kubernetes. Nodes that were
    started by hand do not.
    """
    return any(node.instance_id for node in cluster_status().cluster_resource_state.node_states)


def on_other_nodes(function: Callable[[], None]) -> None:
    """Run a function once on every other node of the cluster; nodes that end are left out."""
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
        ray.get(pending, timeout=_CALL_SECONDS)


def check_reachable(
    uris: dict[str, str], shared_paths: bool, node_limit: int | None = None
) -> None:
    """Check that workers on other nodes can see every path.

    Parameters
    ----------
    uris:
        Command line option -> URI.
    shared_paths:
        Whether the user declared that local paths are the same on every node.
    node_limit:
        How many nodes the cluster has or may get. None: the nodes that it has now, or no limit if
        an autoscaler adds nodes.

    Raises
    ------
    UsageError
        A path is local, and the cluster has or may get more than one node.
    """
    import ray

    if shared_paths:
        return
    if node_limit is None:
        hosts = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
        node_limit = UNLIMITED if is_autoscaled() else len(hosts)
    if node_limit < 2:
        return
    has = (
        f"has up to {node_limit} nodes"
        if node_limit < UNLIMITED
        else "gets nodes from its autoscaler"
    )
    for option, uri in uris.items():
        if places.is_local(uri):
            raise UsageError(
                f"{option} is a local path, but the cluster {has}",
                where=uri,
                remedy="use s3:// or gs://, or declare with --shared_paths true that the path is "
                "the same file system on every node",
            )
