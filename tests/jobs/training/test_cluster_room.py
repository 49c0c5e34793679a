"""Workers that no node can hold are refused; a cluster that would wait for ever says so first."""

from __future__ import annotations

import pytest

from jobs.training.driver.cluster import UNLIMITED, Cluster
from jobs.training.options import TrainOptions
from pipelines.errors import UsageError


def cluster(
    *nodes: dict[str, float], scalable: tuple[tuple[dict[str, float], int], ...] = ()
) -> Cluster:
    """Nodes that run, and groups that an autoscaler may add."""
    kinds = [*((node, 1) for node in nodes), *scalable]
    keys = {key for node, _ in kinds for key in node}
    most = {key: sum(node.get(key, 0) * count for node, count in kinds) for key in keys}
    return Cluster(most, len(nodes), tuple((node, 1) for node in nodes), scalable)


def options(workers: int | str, cpus: int = 1, use_gpu: str = "auto") -> TrainOptions:
    return TrainOptions("store", "run", workers=workers, cpus_per_worker=cpus, use_gpu=use_gpu)  # pyright: ignore


def test_nodes_that_have_enough_in_all_but_not_one_by_one_are_refused() -> None:
    small = cluster({"CPU": 2}, {"CPU": 2}, {"CPU": 2})
    with pytest.raises(UsageError, match=r"room for 0: .* the largest has 2 CPU"):
        small.wants_gpu(options(1, cpus=3))
    with pytest.raises(UsageError, match=r"room for 3: .*\n.*--workers to 3"):
        cluster({"CPU": 3}, {"CPU": 3}, {"CPU": 3}).wants_gpu(options(4, cpus=2))
    assert small.wants_gpu(options(3, cpus=2)) is False


def test_of_a_range_of_workers_the_least_must_have_room() -> None:
    two = cluster({"CPU": 1}, {"CPU": 1})
    assert two.wants_gpu(options("2:8")) is False
    assert cluster({"CPU": 8, "GPU": 1}).wants_gpu(options("1:4")) is True
    with pytest.raises(UsageError, match=r"3 workers of 1 CPU need 3 CPU.* at most 2"):
        two.wants_gpu(options("3:8"))


def test_a_gpu_on_one_node_and_the_cores_on_another_make_no_worker() -> None:
    apart = cluster({"CPU": 1, "GPU": 2}, {"CPU": 8})
    with pytest.raises(UsageError, match="2 workers of 2 CPU and 1 GPU each"):
        apart.wants_gpu(options(2, cpus=2, use_gpu="true"))
    assert apart.wants_gpu(options(1, use_gpu="true")) is True


def test_nodes_that_the_autoscaler_may_add_count() -> None:
    head: dict[str, float] = {"CPU": 0}
    gpus: tuple[dict[str, float], int] = ({"CPU": 8, "GPU": 1}, 4)
    assert cluster(head, scalable=(gpus,)).wants_gpu(options(4, cpus=8)) is True
    assert cluster(head, scalable=(({"CPU": 4}, UNLIMITED),)).wants_gpu(options(9, 3)) is False
    with pytest.raises(UsageError, match="the largest has 4 CPU"):
        cluster(head, scalable=(({"CPU": 4}, UNLIMITED),)).wants_gpu(options(9, 5))
