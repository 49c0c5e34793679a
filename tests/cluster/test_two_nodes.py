"""Two Ray nodes with one worker each train exactly as one node with two workers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.training.job import train
from jobs.training.options import TrainOptions
from pipelines.errors import UsageError
from tests import shared_ray
from tests.training_runs import losses

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("two_nodes")]


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[None]:
    """Two raylets of one CPU each: two workers have to be on both."""
    import ray
    from ray.cluster_utils import Cluster

    node: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 * 1024**2}
    shared_ray.end()
    cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    try:
        cluster.add_node(**node)
        ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture
def options(finished_run: TrainOptions, tmp_path: Path) -> TrainOptions:
    """The run that one node has finished, once more."""
    return dataclasses.replace(finished_run, run=str(tmp_path / "run"))


def test_two_nodes_give_the_loss_curve_of_one(
    options: TrainOptions, finished_run: TrainOptions
) -> None:
    train(dataclasses.replace(options, shared_paths=True))
    curve = losses(options.run)
    assert len(curve) > 40
    assert curve == losses(finished_run.run)


def test_a_local_path_is_refused_on_several_nodes_unless_declared_shared(
    options: TrainOptions,
) -> None:
    with pytest.raises(UsageError, match="local path, but the cluster has up to 2 nodes"):
        train(options)


def test_more_workers_than_the_cluster_has_room_for_are_refused(options: TrainOptions) -> None:
    with pytest.raises(UsageError, match=r"3 workers of 1 CPU need 3 CPU.* at most 2"):
        train(dataclasses.replace(options, workers=3, shared_paths=True))
