"""Slabs over Ray Data: exactly the batches of the direct reader, on one worker or two."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import StoreError, UsageError
from pipelines.inputs.normalisation import Normalisation
from pipelines.inputs.normals import with_normals
from pipelines.stores.store import Store
from pipelines.stream.order import OrderConfig, rank_lanes
from pipelines.stream.window_stream import WindowStream
from pipelines.stream.windows import WindowSpec, split_starts

SPEC = WindowSpec(4, 3)
ORDER = OrderConfig(global_batch=5, seed=2, slab_frames=16, pool_bytes=6000)
EPOCH, FIRST_STEP = 1, 7


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, write_store: Callable[..., Store]) -> Store:
    values = np.random.default_rng(0).normal(280, 9, (230, 4, 6)).astype("f4")
    available = np.zeros(230, "u1")
    available[[70, 71, 140]] = 1
    return write_store(
        tmp_path_factory.mktemp("rows") / "store", {"t2m": values}, available=available
    )


def plan_of(store: Store, **options):
    from pipelines.stream.ray_transport import SlabPlan

    constants = Normalisation.from_store(store, ("t2m",), "standardise")
    # Of anomalies, which depend on the times of the frames that a task reads.
    normalisation = with_normals(constants, store, ("t2m",))
    starts = split_starts(store, "train", SPEC)
    return SlabPlan(store, ("t2m",), SPEC, starts, ORDER, normalisation, **options)


def directly(store: Store, lanes: range) -> list[tuple[list[int], list[int], np.ndarray]]:
    plan = plan_of(store)
    stream = WindowStream(store, ("t2m",), SPEC, plan.starts, ORDER, plan.normalisation, lanes)
    return copied(stream)


def copied(stream: WindowStream) -> list[tuple[list[int], list[int], np.ndarray]]:
    return [
        (batch.lanes.tolist(), batch.starts.tolist(), batch.frames_btchw.copy())
        for batch in stream.epoch(EPOCH, FIRST_STEP)
    ]


def assert_equal(one, other) -> None:
    assert len(one) == len(other) > 0
    for (lanes, starts, frames), (same_lanes, same_starts, same_frames) in zip(
        one, other, strict=True
    ):
        assert (lanes, starts) == (same_lanes, same_starts)
        np.testing.assert_array_equal(frames, same_frames)


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("task_bytes", [1, 20_000])
def test_the_dataset_of_a_shard_gives_the_batches_of_the_direct_reader(
    store: Store, task_bytes: int
):
    from pipelines.stream.ray_transport import SlabDataConfig

    shards = SlabDataConfig({"train": plan_of(store, task_bytes=task_bytes)}).configure(
        {"train": None}, 2
    )
    for rank, shard in enumerate(shards):
        lanes = rank_lanes(5, 2, rank)
        assert_equal(copied(shard["train"].stream()), directly(store, lanes))


@pytest.mark.usefixtures("ray_cluster")
def test_two_train_workers_draw_the_planned_batches_from_their_shards(store: Store, tmp_path: Path):
    import ray.train
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    from pipelines.stream.ray_transport import SlabDataConfig

    plan, place = plan_of(store), str(tmp_path)

    def loop() -> None:
        rank = ray.train.get_context().get_world_rank()
        stream = ray.train.get_dataset_shard("train").stream()  # pyright: ignore
        for batch in stream.epoch(EPOCH, FIRST_STEP):
            np.savez(
                f"{place}/{rank}-{batch.step}.npz",
                lanes=batch.lanes,
                starts=batch.starts,
                frames=batch.frames_btchw,
            )

    DataParallelTrainer(
        loop,
        scaling_config=ray.train.ScalingConfig(num_workers=2),
        run_config=ray.train.RunConfig(name="slabs", storage_path=f"{place}/run"),
        datasets={"train": plan.description},
        dataset_config=SlabDataConfig({"train": plan}),
    ).fit()
    for rank in range(2):
        steps = sorted(int(path.stem.split("-")[1]) for path in tmp_path.glob(f"{rank}-*.npz"))
        served = [np.load(tmp_path / f"{rank}-{step}.npz") for step in steps]
        assert steps[0] == FIRST_STEP
        assert_equal(
            [(part["lanes"].tolist(), part["starts"].tolist(), part["frames"]) for part in served],
            directly(store, rank_lanes(5, 2, rank)),
        )


@pytest.mark.usefixtures("ray_cluster")
def test_a_reader_that_fails_on_another_node_names_the_store(
    tmp_path: Path, write_store: Callable[..., Store]
):
    from pipelines.stream.ray_transport import SlabDataConfig

    store = write_store(tmp_path / "s", {"t2m": np.ones((100, 4, 6), "f4")})
    [shard] = SlabDataConfig({"train": plan_of(store)}).configure({"train": None}, 1)
    (tmp_path / "s" / "t2m" / "c" / "1" / "0" / "0").unlink()
    with pytest.raises(StoreError, match="hold no value") as caught:
        list(shard["train"].stream().epoch(0))
    assert str(tmp_path / "s") in str(caught.value)


def test_more_workers_than_lanes_are_refused(store: Store):
    from pipelines.stream.ray_transport import SlabDataConfig

    with pytest.raises(UsageError, match="6 workers cannot share a global batch of 5"):
        SlabDataConfig({"train": plan_of(store)}).configure({"train": None}, 6)
