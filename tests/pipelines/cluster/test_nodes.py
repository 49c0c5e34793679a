"""Room on a cluster: free room, room that can never exist, and room that other jobs use for now."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pipelines.cluster.nodes import wait_for_one, words
from pipelines.cluster.session import cluster_status, is_autoscaled, start_here
from pipelines.errors import PlatformError, UsageError
from tests.support.processes import shared_ray
from tests.support.processes.training_runs import wait_until

CPU: dict[str, float] = {"CPU": 1}
GPU: dict[str, float] = {"CPU": 1, "GPU": 1}


@pytest.fixture(scope="module")
def one_cpu() -> Iterator[None]:
    """A Ray of one CPU whose autoscaler (version 2) cannot add nodes."""
    import ray

    shared_ray.end()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_enable_autoscaler_v2", "1")
        patch.setenv("AUTOSCALER_UPDATE_INTERVAL_S", "1")
        start_here(1, 80 * 1024**2, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


def all_is_held() -> bool:
    """Return whether every processor is in use, by the reports of the nodes (a moment late)."""
    nodes = cluster_status().cluster_resource_state.node_states
    return all(node.available_resources.get("CPU", 0) == 0 for node in nodes)


@pytest.mark.usefixtures("one_cpu")
def test_existing_room_needs_no_waiting() -> None:
    assert not is_autoscaled(), "a node without a cloud identity does not belong to an autoscaler"
    assert wait_for_one(1, [CPU], lambda line: None) == CPU


@pytest.mark.usefixtures("one_cpu")
def test_a_shape_that_no_node_can_hold_gives_way_to_the_next_one() -> None:
    said: list[str] = []
    assert wait_for_one(1, [GPU, CPU], said.append) == CPU
    assert "asks for 1 x (1 CPU and 1 GPU), the cluster has 1 CPU on 1 node(s)" in said[0]


@pytest.mark.usefixtures("one_cpu")
def test_workers_wait_for_room_in_use_and_fail_once_it_is_free_but_too_small() -> None:
    import ray

    class Holder:
        def holds(self) -> bool:
            return True

    holder: Any = ray.remote(num_cpus=1)(Holder).remote()
    assert ray.get(holder.holds.remote())
    wait_until(all_is_held, "the node to report what the actor holds")
    with pytest.raises(PlatformError, match=r"no nodes for 2 x 1 CPU within 3 s: .* 1 CPU on 1"):
        wait_for_one(2, [CPU], lambda line: None, limit=3)
    ray.kill(holder)
    with pytest.raises(UsageError, match="asks for 2 x 1 CPU, which the cluster has no room for"):
        wait_for_one(2, [CPU], lambda line: None)


def test_a_request_in_words() -> None:
    assert words(2, CPU) == "2 x 1 CPU"
    assert words(4, {"CPU": 8, "GPU": 1}) == "4 x (8 CPU and 1 GPU)"
