"""After any kill, and with any number of workers, the stream is that of an undisturbed run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.inputs.normalisation import Normalisation
from pipelines.stores.store import Store
from pipelines.stream.order import EpochOrder, FrameLayout, OrderConfig, pool_frames, rank_lanes
from pipelines.stream.window_stream import WindowStream
from pipelines.stream.windows import WindowSpec, split_starts

FRAMES, LANES = 120, 8
SPEC = WindowSpec(2, 2)
quick = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, write_store: Callable[..., Store]) -> Store:
    """A store in which every pixel of a frame is the frame's number; three frames are missing."""
    values = np.broadcast_to(np.arange(FRAMES, dtype="f4")[:, None, None], (FRAMES, 2, 3)).copy()
    available = np.zeros(FRAMES, "u1")
    available[[17, 60, 61]] = 1
    folder = tmp_path_factory.mktemp("properties") / "store"
    return write_store(folder, {"t2m": values}, available=available)


class Runs:
    """Groups of workers that serve one epoch, one group after the other."""

    def __init__(self, store: Store, config: OrderConfig):
        self.starts = split_starts(store, "train", SPEC)
        self._store, self._config = store, config
        self._normalisation = Normalisation("minmax", ("t2m",), (0.0,), (1.0,))

    def stream(self, lanes: range) -> WindowStream:
        arguments = (self._store, ("t2m",), SPEC, self.starts, self._config, self._normalisation)
        return WindowStream(*arguments, lanes)

    def steps(self, world: int, epoch: int, first: int, last: int) -> Iterator[list[int]]:
        """Yield the global batches of the steps [first, last) from `world` workers."""
        streams = [self.stream(rank_lanes(LANES, world, rank)) for rank in range(world)]
        shares = [islice(stream.epoch(epoch, first), last - first) for stream in streams]
        for batches in zip(*shares, strict=True):
            assert len({batch.step for batch in batches}) == 1
            assert [n for batch in batches for n in batch.lanes] == sorted(
                n for batch in batches for n in batch.lanes
            )
            for batch in batches:
                held = batch.frames_btchw[:, :, 0, 0, 0]
                np.testing.assert_array_equal(held, batch.starts[:, None] + np.arange(SPEC.frames))
            yield [int(start) for batch in batches for start in batch.starts]
        for stream in streams:
            stream.close()


@quick
@given(
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 3),
    lives=st.lists(st.tuples(st.integers(1, LANES), st.integers(1, 9)), min_size=1, max_size=4),
    slab=st.sampled_from([8, 16, 64]),
    pool=st.sampled_from([1, 400, 4000]),
)
def test_an_epoch_is_the_same_after_kills_and_with_any_number_of_workers(
    store: Store, seed: int, epoch: int, lives: list[tuple[int, int]], slab: int, pool: int
):
    config = OrderConfig(LANES, seed=seed, slab_frames=slab, pool_bytes=pool)
    runs = Runs(store, config)
    total = runs.stream(range(LANES)).steps_per_epoch
    served: list[list[int]] = []
    for world, survived in lives:
        # A killed group resumes from its last checkpoint: here the step where it was killed.
        last = min(total, len(served) + survived)
        served += runs.steps(world, epoch, len(served), last)
    served += runs.steps(lives[0][0] % LANES + 1, epoch, len(served), total)
    assert len(served) == total
    order = runs.stream(range(LANES)).order(epoch)
    lanes = [order.lane(lane) for lane in range(LANES)]
    calm = [[int(lane[step]) for lane in lanes if step < len(lane)] for step in range(total)]
    assert served == calm
    drawn = [start for batch in served for start in batch]
    assert sorted(drawn) == runs.starts.tolist()


@quick
@given(st.integers(0, 2**40), st.integers(1, LANES), st.integers(1, 8), st.integers(0, 7))
def test_steps_repeated_from_an_older_checkpoint_are_the_same(
    store: Store, seed: int, world: int, killed: int, back: int
):
    runs = Runs(store, OrderConfig(LANES, seed=seed, slab_frames=16, pool_bytes=400))
    before = list(runs.steps(world, 1, 0, killed))
    checkpoint = max(0, killed - back)
    again = list(runs.steps(LANES + 1 - world, 1, checkpoint, killed))
    assert again == before[checkpoint:]


@quick
@given(st.integers(1, LANES), st.integers(1, 64), st.integers(1, 20_000), st.integers(1, 4))
def test_the_memory_of_a_stream_follows_from_its_options(
    store: Store, lanes: int, slab: int, pool: int, prefetch: int
):
    config = OrderConfig(LANES, slab_frames=slab, pool_bytes=pool)
    runs = Runs(store, config)
    stream = WindowStream(
        store,
        ("t2m",),
        SPEC,
        runs.starts,
        config,
        Normalisation("minmax", ("t2m",), (0.0,), (1.0,)),
        range(lanes),
        prefetch_batches=prefetch,
    )
    frame = 2 * 3 * 4
    layout = FrameLayout(store.variable("t2m").chunk_frames, SPEC.span, frame)
    held = pool_frames(config, layout) * frame
    assert held <= max(pool, 2 * SPEC.span * frame)
    slots, buffers = lanes + max(lanes // 4, 2), prefetch + 2
    assert stream.nbytes == slots * held + buffers * lanes * SPEC.frames * frame


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**40), st.integers(1, 6))
def test_each_seed_and_epoch_orders_the_same_windows_differently(seed: int, epoch: int):
    starts, layout = np.arange(500), FrameLayout(4, 4, 64)

    def drawn(seed: int, epoch: int) -> list[int]:
        order = EpochOrder(starts, OrderConfig(LANES, seed=seed), epoch, layout)
        return [int(start) for lane in range(LANES) for start in order.lane(lane)]

    here = drawn(seed, epoch)
    for other in (drawn(seed, epoch - 1), drawn(seed + 1, epoch)):
        assert sorted(other) == sorted(here) == starts.tolist()
        assert other != here
