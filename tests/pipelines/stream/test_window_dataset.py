"""Windows as a Ray dataset and as a PyTorch dataset."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import pipelines
from pipelines.errors import UsageError
from pipelines.inputs.normalisation import Normalisation
from pipelines.stores.store import Store
from pipelines.stream.order import OrderConfig
from pipelines.stream.window_stream import WindowStream
from pipelines.stream.windows import WindowSpec, split_starts

SPEC = WindowSpec(3, 2)


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    values = np.random.default_rng(1).normal(280, 10, size=(60, 4, 6)).astype("f4")
    values[30, 1, 2] = np.nan
    return values


@pytest.fixture(scope="module")
def store(
    tmp_path_factory: pytest.TempPathFactory,
    write_store: Callable[..., Store],
    values: np.ndarray,
) -> Store:
    available = np.zeros(60, "u1")
    available[20] = 1
    folder = tmp_path_factory.mktemp("windows") / "store"
    return write_store(folder, {"t2m": values}, available=available)


def stream_of(store: Store) -> WindowStream:
    return WindowStream(
        store,
        ("t2m",),
        SPEC,
        split_starts(store, "train", SPEC),
        OrderConfig(global_batch=4, seed=3, slab_frames=16, pool_bytes=4000),
        Normalisation.from_store(store, ("t2m",), "standardise"),
        range(4),
    )


@pytest.mark.usefixtures("ray_cluster")
def test_every_window_is_one_row_in_physical_units(store: Store, values: np.ndarray) -> None:
    windows = pipelines.read_windows(store, input_frames=3, horizon=2, block_bytes=5_000)
    rows = sorted(windows.take_all(), key=lambda row: row["start"])
    assert [row["start"] for row in rows] == split_starts(store, "train", SPEC).tolist()
    for row in rows:
        start = row["start"]
        np.testing.assert_array_equal(row["frames"][:, 0], values[start : start + 5])
        assert np.datetime64(row["time"]) == store.times[start]
    assert windows.materialize().num_blocks() == 5


@pytest.mark.usefixtures("ray_cluster")
def test_normalised_windows_have_no_missing_values(store: Store) -> None:
    normalisation = Normalisation.from_store(store, ("t2m",), "standardise")
    windows = pipelines.read_windows(
        store.uri, ["t2m"], input_frames=3, horizon=2, normalisation=normalisation
    )
    frames = np.concatenate([row["frames"] for row in windows.take_all()])
    assert np.isfinite(frames).all()
    assert abs(frames.mean()) < 0.1
    assert 0.9 < frames.std() < 1.1


def test_an_unknown_split_or_variable_is_named(store: Store) -> None:
    with pytest.raises(UsageError, match="no split 'tests'"):
        pipelines.read_windows(store, split="tests")
    with pytest.raises(UsageError, match="did you mean 't2m'"):
        pipelines.read_windows(store, ["t2n"])


def test_a_torch_loader_yields_the_stream_and_resumes_from_its_state(
    store: Store,
) -> None:
    from torch.utils.data import DataLoader

    from pipelines.stream.torch_dataset import WindowDataset

    expected = [
        batch.frames_btchw.copy() for epoch in range(2) for batch in stream_of(store).epoch(epoch)
    ]
    dataset = WindowDataset(stream_of(store))
    loader = DataLoader(dataset, batch_size=None)
    assert len(loader) * 2 == len(expected)
    drawn = [*loader, *loader]
    for frames, other in zip(drawn, expected, strict=True):
        np.testing.assert_array_equal(frames.numpy(), other)

    interrupted = WindowDataset(stream_of(store))
    for _, _ in zip(range(5), interrupted, strict=False):
        pass
    resumed = WindowDataset(stream_of(store))
    resumed.load_state_dict(interrupted.state_dict())
    np.testing.assert_array_equal(next(iter(resumed)).numpy(), expected[5])


def test_worker_processes_of_a_loader_raise_with_the_option_to_change(store: Store) -> None:
    from torch.utils.data import DataLoader

    from pipelines.stream.torch_dataset import WindowDataset

    loader = DataLoader(WindowDataset(stream_of(store)), batch_size=None, num_workers=1)
    with pytest.raises(UsageError, match="num_workers=0"):
        next(iter(loader))
