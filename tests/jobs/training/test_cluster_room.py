"""A training raises an error if its workers can never fit on the cluster's nodes."""

from __future__ import annotations

import pytest

from jobs.training.driver.cluster import UNLIMITED, Cluster
from jobs.training.options import TrainOptions
from pipelines.errors import UsageError


def cluster(
    *nodes: dict[str, float], scalable: tuple[tuple[dict[str, float], int], ...] = ()
) -> Cluster:
    """Return a cluster of running nodes, and of groups that an autoscaler may add."""
    kinds = [*((node, 1) for node in nodes), *scalable]
    keys = {key for node, _ in kinds for key in node}
    most = {key: sum(node.get(key, 0) * count for node, count in kinds) for key in keys}
    return Cluster(most, len(nodes), tuple((node, 1) for node in nodes), scalable)


def options(workers: int | str, cpus: int = 1, use_gpu: str = "auto") -> TrainOptions:
    return TrainOptions("store", "run", workers=workers, cpus_per_worker=cpus, use_gpu=use_gpu)  # pyright: ignore


def test_enough_cpus_in_total_are_not_enough_if_no_single_node_holds_a_worker() -> None:
    small = cluster({"CPU": 2}, {"CPU": 2}, {"CPU": 2})
    with pytest.raises(UsageError, match=r"1 x 3 CPU, .* room for 0 \(6 CPU .* largest has 2 CPU"):
        small.wants_gpu(options(1, cpus=3))
    with pytest.raises(UsageError, match=r"room for 3 .*\n.*--workers 3"):
        cluster({"CPU": 3}, {"CPU": 3}, {"CPU": 3}).wants_gpu(options(4, cpus=2))
    assert small.wants_gpu(options(3, cpus=2)) is False


def test_the_least_number_of_a_range_of_workers_must_fit() -> None:
    two = cluster({"CPU": 1}, {"CPU": 1})
    assert two.wants_gpu(options("2:8")) is False
    assert cluster({"CPU": 8, "GPU": 1}).wants_gpu(options("1:4")) is True
    with pytest.raises(UsageError, match=r"3 x 1 CPU, .* room for 2 \(2 CPU on 2 node"):
        two.wants_gpu(options("3:8"))


def test_a_worker_cannot_take_its_gpu_and_its_cpus_from_different_nodes() -> None:
    apart = cluster({"CPU": 1, "GPU": 2}, {"CPU": 8})
    with pytest.raises(UsageError, match=r"2 x \(2 CPU and 1 GPU\), .* room for 0 .*\n.*--use_gpu"):
        apart.wants_gpu(options(2, cpus=2, use_gpu="true"))
    assert apart.wants_gpu(options(1, use_gpu="true")) is True


def test_nodes_that_an_autoscaler_may_add_count() -> None:
    head: dict[str, float] = {"CPU": 0}
    gpus: tuple[dict[str, float], int] = ({"CPU": 8, "GPU": 1}, 4)
    assert cluster(head, scalable=(gpus,)).wants_gpu(options(4, cpus=8)) is True
    with pytest.raises(UsageError, match=r"room for 4 \(32 CPU and 4 GPU on 4 node"):
        cluster(head, scalable=(gpus,)).wants_gpu(options(5, cpus=8, use_gpu="true"))
    assert cluster(head, scalable=(({"CPU": 4}, UNLIMITED),)).wants_gpu(options(9, 3)) is False
    with pytest.raises(UsageError, match="the largest has 4 CPU"):
        cluster(head, scalable=(({"CPU": 4}, UNLIMITED),)).wants_gpu(options(9, 5))
