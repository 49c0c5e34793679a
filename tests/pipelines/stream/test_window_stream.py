"""Streaming: the planned windows, once each, in bounded memory, with errors that reach the user."""

from __future__ import annotations

import gc
import shutil
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import StoreError, UsageError
from pipelines.inputs.normalisation import Normalisation
from pipelines.stores.store import Store, open_store
from pipelines.stream.batches import Load
from pipelines.stream.order import OrderConfig, Pool, rank_lanes
from pipelines.stream.window_stream import DirectTransport, WindowStream, read_batches
from pipelines.stream.windows import WindowSpec, split_starts

FRAMES, HEIGHT, WIDTH = 190, 4, 6
LEVELS = 3


@pytest.fixture(scope="module")
def fields() -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    t2m = random.normal(280.0, 10.0, (FRAMES, HEIGHT, WIDTH)).astype("f4")
    z = random.normal(5e4, 1e3, (FRAMES, LEVELS, HEIGHT, WIDTH)).astype("f4")
    t2m[50, 1, 2] = np.nan
    return {"t2m": t2m, "z": z}


@pytest.fixture(scope="module")
def store(
    tmp_path_factory: pytest.TempPathFactory,
    write_store: Callable[..., Store],
    fields: dict[str, np.ndarray],
) -> Store:
    available = np.zeros(FRAMES, "u1")
    available[[33, 90, 91]] = 1
    return write_store(
        tmp_path_factory.mktemp("stream") / "store",
        fields,
        extra_dims={"z": ("level",)},
        extra_coordinates={"level": np.array([850, 500, 250])},
        available=available,
    )


SPEC = WindowSpec(3, 2)
ORDER = OrderConfig(global_batch=6, seed=11, slab_frames=16, pool_bytes=4000)


def stream_of(store: Store, lanes=range(6), spec=SPEC, order=ORDER, **options) -> WindowStream:
    variables = options.pop("variables", ("t2m",))
    return WindowStream(
        store,
        variables,
        spec,
        split_starts(store, "train", spec),
        order,
        Normalisation.from_store(store, variables, "standardise"),
        lanes,
        **options,
    )


def drawn(stream: WindowStream, epoch: int, first_step: int = 0):
    """Every batch as (step, lanes, starts, frames), copied out of the reused memory."""
    return [
        (batch.step, batch.lanes.tolist(), batch.starts.tolist(), batch.frames_btchw.copy())
        for batch in stream.epoch(epoch, first_step)
    ]


@pytest.mark.parametrize("stride", [1, 2])
def test_batches_contain_the_normalised_frames_of_their_windows(
    store: Store, fields: dict[str, np.ndarray], stride: int
):
    spec = WindowSpec(3, 2, stride)
    stream = stream_of(store, spec=spec, variables=("z", "t2m"))
    mean, std = (store.statistics["variables"]["t2m"][name] for name in ("mean", "std"))
    seen = []
    for _, _, starts, frames_btchw in drawn(stream, 0):
        assert frames_btchw.dtype == np.float32
        assert frames_btchw.shape == (len(starts), 5, LEVELS + 1, HEIGHT, WIDTH)
        for frames_tchw, start in zip(frames_btchw, starts, strict=True):
            chosen = start + stride * np.arange(5)
            expected = np.nan_to_num((fields["t2m"][chosen] - mean) / std, nan=0.0)
            np.testing.assert_allclose(frames_tchw[:, LEVELS], expected, atol=1e-4)
            for level in range(LEVELS):
                of_level = store.statistics["variables"]["z"]["channels"][level]
                np.testing.assert_allclose(
                    frames_tchw[:, level],
                    (fields["z"][chosen, level] - of_level["mean"]) / of_level["std"],
                    atol=1e-4,
                )
        seen += starts
    assert sorted(seen) == split_starts(store, "train", spec).tolist()


def test_missing_pixels_become_zero(store: Store, fields: dict[str, np.ndarray]):
    touching = 0
    for _, _, starts, frames_btchw in drawn(stream_of(store), 0):
        for frames_tchw, start in zip(frames_btchw, starts, strict=True):
            if start <= 50 < start + SPEC.span:
                assert frames_tchw[50 - start, 0, 1, 2] == 0.0
                touching += 1
    assert touching == SPEC.span


@pytest.mark.parametrize("world", [2, 4, 6])
def test_workers_together_serve_the_batches_of_one_worker(store: Store, world: int):
    whole = drawn(stream_of(store), 3)
    shares = [drawn(stream_of(store, rank_lanes(6, world, rank)), 3) for rank in range(world)]
    for step, lanes, starts, frames in whole:
        parts = [share[step] for share in shares]
        assert [lane for part in parts for lane in part[1]] == lanes
        assert [start for part in parts for start in part[2]] == starts
        np.testing.assert_array_equal(np.concatenate([part[3] for part in parts]), frames)


def test_the_last_step_has_only_the_lanes_with_a_window_left(store: Store):
    windows = len(split_starts(store, "train", SPEC))
    assert windows % 6
    counts = [
        [len(lanes) for _, lanes, _, _ in drawn(stream_of(store, [lane]), 0)] for lane in range(6)
    ]
    assert {len(steps) for steps in counts} == {-(-windows // 6)}
    assert sum(steps[-1] for steps in counts) == windows % 6
    assert all(set(steps[:-1]) == {1} for steps in counts)


@pytest.mark.parametrize("step", [1, 7, 20])
def test_an_epoch_resumes_at_a_step_with_the_same_batches(store: Store, step: int):
    whole = drawn(stream_of(store), 2)
    resumed = drawn(stream_of(store), 2, first_step=step)
    assert [batch[:3] for batch in resumed] == [batch[:3] for batch in whole[step:]]
    for again, once in zip(resumed, whole[step:], strict=True):
        np.testing.assert_array_equal(again[3], once[3])


@pytest.mark.parametrize(("before", "after", "killed"), [(1, 3, 5), (4, 2, 11), (6, 1, 1)])
def test_another_number_of_workers_resumes_a_killed_run(
    store: Store, before: int, after: int, killed: int
):
    def starts_by_step(world: int, first: int, last: int | None) -> list[list[int]]:
        shares = [
            drawn(stream_of(store, rank_lanes(6, world, rank)), 4, first)[:last]
            for rank in range(world)
        ]
        return [
            [start for part in parts for start in part[2]] for parts in zip(*shares, strict=True)
        ]

    whole = starts_by_step(1, 0, None)
    assert starts_by_step(before, 0, killed) + starts_by_step(after, killed, None) == whole


def test_resuming_reads_no_frames_of_finished_pools(store: Store):
    reads: list[int] = []

    class Counted(DirectTransport):
        def loader(self, pools: Iterable[Pool]) -> Load:
            load = super().loader(pools)

            def counted(pool: Pool, out_tchw: np.ndarray) -> None:
                reads.append(pool.frames)
                load(pool, out_tchw)

            return counted

    order = OrderConfig(6, slab_frames=8, pool_bytes=1)
    stream = stream_of(store, order=order, transport=Counted)
    drawn(stream, 0)
    whole = sum(reads)
    reads.clear()
    drawn(stream, 0, first_step=stream.steps_per_epoch - 2)
    assert 0 < sum(reads) < whole / 4


def test_a_batch_is_valid_until_the_batch_after_the_next_is_drawn(store: Store):
    expected = [frames for *_, frames in drawn(stream_of(store), 0)]
    batches = stream_of(store).epoch(0)
    before = next(batches)
    for step, batch in enumerate(batches, start=1):
        np.testing.assert_array_equal(before.frames_btchw, expected[step - 1])
        np.testing.assert_array_equal(batch.frames_btchw, expected[step])
        before = batch


def test_batches_reuse_a_fixed_set_of_buffers(store: Store):
    stream = stream_of(store, prefetch_batches=2)
    addresses = {
        batch.frames_btchw.__array_interface__["data"][0]
        for epoch in range(3)
        for batch in stream.epoch(epoch)
        if len(batch.lanes)
    }
    assert len(addresses) <= 4


def test_memory_does_not_grow_with_the_store(tmp_path: Path, write_store: Callable[..., Store]):
    sizes = set()
    for years in (1, 6):
        values = np.ones((300 * years, 2, 2), "f4")
        sizes.add(stream_of(write_store(tmp_path / str(years), {"t2m": values})).nbytes)
    assert len(sizes) == 1


def live_threads() -> set[str]:
    names = ("batch assembly", "pool reader")
    return {t.name for t in threading.enumerate() if t.name.startswith(names)}


@pytest.mark.parametrize("ending", ["exhausted", "closed", "collected", "another epoch"])
def test_threads_end_with_their_iterator(store: Store, ending: str):
    stream = stream_of(store)
    batches = stream.epoch(0)
    next(batches)
    assert live_threads()
    if ending == "exhausted":
        for _ in batches:
            pass
    elif ending == "closed":
        batches.close()
    elif ending == "collected":
        del batches
        gc.collect()
    else:
        other = stream.epoch(1)
        next(other)
        assert next(batches, None) is None
        other.close()
    assert not live_threads()


def test_the_stream_counts_the_time_its_consumer_waits(store: Store):
    stream = stream_of(store)
    drawn(stream, 0)
    assert stream.wait_seconds > 0


def damaged_copy(store: Store, folder: Path) -> Path:
    shutil.copytree(store.uri, folder)
    return folder / "t2m" / "c" / "3" / "0" / "0"


def test_a_damaged_shard_raises_with_store_variable_and_frames(store: Store, tmp_path: Path):
    shard = damaged_copy(store, tmp_path / "copy")
    shard.write_bytes(shard.read_bytes()[:-40])
    with pytest.raises(StoreError, match="cannot read 't2m'") as caught:
        drawn(stream_of(open_store(str(tmp_path / "copy"))), 0)
    assert str(tmp_path / "copy") in str(caught.value)
    assert "frames" in str(caught.value)
    assert "--repair" in str(caught.value)
    assert not live_threads()


def test_a_lost_shard_raises_instead_of_giving_zeros(store: Store, tmp_path: Path):
    damaged_copy(store, tmp_path / "copy").unlink()
    with pytest.raises(StoreError, match="calls available hold no value"):
        drawn(stream_of(open_store(str(tmp_path / "copy"))), 0)


def test_a_lost_shard_of_one_of_several_variables_raises(store: Store, tmp_path: Path):
    damaged_copy(store, tmp_path / "copy").unlink()
    copy, both = open_store(str(tmp_path / "copy")), ("z", "t2m")
    starts = split_starts(copy, "train", SPEC)
    constants = Normalisation.from_store(copy, both, "standardise")
    stream = WindowStream(copy, both, SPEC, starts, ORDER, constants, range(6))
    with pytest.raises(StoreError, match="calls available hold no value") as caught:
        drawn(stream, 0)
    assert "in t2m/c/3/0/0" in str(caught.value)
    with pytest.raises(StoreError, match="calls available hold no value"):
        list(read_batches(copy, both, SPEC, starts, 8))
    assert len(list(read_batches(copy, ("z",), SPEC, starts, 8))) > 1


def test_lanes_outside_the_global_batch_raise(store: Store):
    with pytest.raises(UsageError, match="not in a global batch of 6"):
        stream_of(store, range(4, 8))


def test_a_normalisation_of_other_channels_raises(store: Store):
    with pytest.raises(UsageError, match="1 channels"):
        WindowStream(
            store,
            ("t2m", "z"),
            SPEC,
            np.arange(10),
            ORDER,
            Normalisation.from_store(store, ("t2m",), "standardise"),
            range(6),
        )


@pytest.mark.parametrize("step", [1, 9])
@pytest.mark.parametrize("stride", [1, 3])
def test_read_batches_yields_windows_in_order_and_physical_units(
    store: Store, fields: dict[str, np.ndarray], step: int, stride: int
):
    spec = WindowSpec(3, 2, stride)
    starts = split_starts(store, "train", spec)[::step]
    batches = list(read_batches(store, ("t2m", "z"), spec, starts, 8))
    np.testing.assert_array_equal(np.concatenate([chosen for chosen, _ in batches]), starts)
    for chosen, frames_btchw in batches:
        for frames_tchw, start in zip(frames_btchw, chosen, strict=True):
            frames = start + stride * np.arange(5)
            np.testing.assert_array_equal(frames_tchw[:, 0], fields["t2m"][frames])
            np.testing.assert_array_equal(frames_tchw[:, 1:], fields["z"][frames])


def test_read_batches_takes_windows_in_any_order(store: Store, fields: dict[str, np.ndarray]):
    starts = split_starts(store, "train", SPEC)[::-7]
    for chosen, frames_btchw in read_batches(store, ("t2m",), SPEC, starts, 5):
        for frames_tchw, start in zip(frames_btchw, chosen, strict=True):
            np.testing.assert_array_equal(frames_tchw[:, 0], fields["t2m"][start : start + 5])


def test_read_batches_reads_each_chunk_about_once(store: Store, monkeypatch: pytest.MonkeyPatch):
    from pipelines.stream import window_stream as module

    monkeypatch.setattr(module, "_AHEAD_BYTES", 1)
    read = []
    original = module.FrameReader.read

    def counted(self, first: int, last: int, out: np.ndarray) -> None:
        read.append((first, last))
        original(self, first, last, out)

    monkeypatch.setattr(module.FrameReader, "read", counted)
    spec = WindowSpec(6, 7)  # longer than a chunk
    starts = split_starts(store, "train", spec)
    batches = read_batches(store, ("t2m",), spec, starts, 8)
    assert sum(len(chosen) for chosen, _ in batches) == len(starts)
    chunk = store.variable("t2m").chunk_frames
    decoded = sum(-(-last // chunk) - first // chunk for first, last in read)
    assert len(read) > 3
    assert decoded == -(-FRAMES // chunk)
