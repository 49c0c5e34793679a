"""Frames read by Ray Data tasks: exactly the batches of the direct transport."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import PlatformError, StoreError
from pipelines.inputs.augmentation import Augmentation
from pipelines.inputs.normalisation import Normalisation, with_normals
from pipelines.storage.retry import passes
from pipelines.stores.store import Store
from pipelines.stream.order import OrderConfig, rank_lanes
from pipelines.stream.window_stream import WindowStream
from pipelines.stream.windows import WindowSpec, split_starts

pytestmark = pytest.mark.usefixtures("ray_cluster")

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


def stream_of(store: Store, lanes: range, stride: int = 1, **options) -> WindowStream:
    constants = Normalisation.from_store(store, ("t2m",), "standardise")
    # Anomalies depend on the times of the frames that a task reads.
    normalisation = with_normals(constants, store, ("t2m",))
    spec = WindowSpec(4, 3, stride)
    starts = split_starts(store, "train", spec)
    return WindowStream(store, ("t2m",), spec, starts, ORDER, normalisation, lanes, **options)


Served = list[tuple[list[int], list[int], np.ndarray]]


def served(stream: WindowStream, first_step: int = FIRST_STEP) -> Served:
    return [
        (batch.lanes.tolist(), batch.starts.tolist(), batch.frames_btchw.copy())
        for batch in stream.epoch(EPOCH, first_step)
    ]


def assert_equal(one: Served, other: Served) -> None:
    assert len(one) == len(other) > 0
    for (lanes, starts, frames), (same_lanes, same_starts, same_frames) in zip(
        one, other, strict=True
    ):
        assert (lanes, starts) == (same_lanes, same_starts)
        np.testing.assert_array_equal(frames, same_frames)


@pytest.mark.parametrize("task_bytes", [1, 20_000])
def test_each_of_two_workers_gets_the_batches_of_the_direct_transport(
    store: Store, task_bytes: int
) -> None:
    from pipelines.stream.ray_transport import RayTransport

    transport = partial(RayTransport, task_bytes=task_bytes)
    for rank in range(2):
        lanes = rank_lanes(5, 2, rank)
        direct = served(stream_of(store, lanes))
        assert_equal(served(stream_of(store, lanes, transport=transport)), direct)


def test_strided_and_augmented_windows_are_those_of_the_direct_transport(store: Store) -> None:
    from pipelines.stream.ray_transport import RayTransport

    options = {"stride": 2, "augmentation": Augmentation(flip_rows=True, flip_columns=True)}
    direct = served(stream_of(store, range(5), **options))
    assert_equal(served(stream_of(store, range(5), **options, transport=RayTransport)), direct)


def test_leaving_an_epoch_ends_its_tasks_and_the_next_epoch_is_complete(store: Store) -> None:
    from pipelines.stream.ray_transport import RayTransport

    stream = stream_of(store, range(5), transport=partial(RayTransport, task_bytes=1))
    next(iter(stream.epoch(EPOCH)))
    assert_equal(served(stream, 0), served(stream_of(store, range(5)), 0))


def test_a_task_that_finds_a_lost_chunk_names_the_store(
    tmp_path: Path, write_store: Callable[..., Store]
) -> None:
    from pipelines.stream.ray_transport import RayTransport

    store = write_store(tmp_path / "s", {"t2m": np.ones((100, 4, 6), "f4")})
    stream = stream_of(store, range(5), transport=RayTransport)
    (tmp_path / "s" / "t2m" / "c" / "1" / "0" / "0").unlink()
    with pytest.raises(StoreError, match="hold no value") as caught:
        list(stream.epoch(0))
    assert str(tmp_path / "s") in str(caught.value)
    assert not passes(caught.value)


def test_a_task_reports_whether_a_retry_can_help(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.stream import ray_transport

    def fails(*_: object) -> None:
        raise StoreError("cannot read 't2m'", where="frames 0 to 8") from ConnectionResetError()

    monkeypatch.setattr(ray_transport, "load_pool", fails)
    transport = stream_of(store, range(5), transport=ray_transport.RayTransport)._transport
    assert isinstance(transport, ray_transport.RayTransport)
    row = transport._source.rows([[(0, 8)]])
    with pytest.raises(StoreError, match="frames 0 to 8") as caught:
        ray_transport.check_row(row)
    assert passes(caught.value)


def test_an_epoch_without_a_free_cpu_raises_with_what_is_missing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.stream import ray_transport

    monkeypatch.setattr(ray_transport, "CPUS_PER_TASK", 1000.0)
    transport = partial(ray_transport.RayTransport, wait_seconds=2)
    with pytest.raises(PlatformError, match=r"(?s)needs 1000 CPU.*--data.transport direct"):
        list(stream_of(store, range(5), transport=transport).epoch(0))
