"""Two Ray nodes with one worker each train exactly as one node with two workers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.training.job import train
from pipelines.errors import UsageError
from tests.training_runs import losses, small_options

pytestmark = pytest.mark.cluster


@pytest.fixture
def two_nodes() -> Iterator[None]:
    """Two raylets of one CPU each."""
    import ray
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 100 * 1024**2}
    cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    try:
        cluster.add_node(**node)
        ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_two_nodes_give_the_loss_curve_of_one(
    two_nodes: None, traffic_store: str, tmp_path: Path
) -> None:
    import ray

    options = small_options(traffic_store, str(tmp_path / "two"), shared_paths=True)
    train(options)
    ray.shutdown()
    train(dataclasses.replace(options, run=str(tmp_path / "one")))
    assert losses(str(tmp_path / "one")) == losses(str(tmp_path / "two"))


def test_a_local_path_is_refused_on_several_nodes_unless_declared_shared(
    two_nodes: None, traffic_store: str, tmp_path: Path
) -> None:
    options = small_options(traffic_store, str(tmp_path / "run"))
    with pytest.raises(UsageError, match="local path, but the cluster has up to 2 nodes"):
        train(options)


def test_more_workers_than_the_cluster_has_room_for_are_refused(
    two_nodes: None, traffic_store: str, tmp_path: Path
) -> None:
    options = small_options(traffic_store, str(tmp_path / "run"), workers=3, shared_paths=True)
    with pytest.raises(UsageError, match="at most 2"):
        train(options)
