"""The order of an epoch: complete, the same for any number of workers, resumable, well mixed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import UsageError
from pipelines.stream.order import (
    EpochOrder,
    FrameLayout,
    OrderConfig,
    Pool,
    pool_frames,
    rank_lanes,
    slab_frames,
    steps_per_epoch,
)

# A busy machine makes examples slow, which says nothing about the order.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

FRAME_BYTES = 1024


@st.composite
def orders(draw: st.DrawFn) -> EpochOrder:
    """Draw orders over windows with gaps, short splits, odd batches, small and large pools."""
    frames = draw(st.integers(1, 400))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    keep = rng.random(frames) < draw(st.sampled_from([0.05, 0.5, 1.0]))
    keep[draw(st.integers(0, frames - 1))] = True
    span = draw(st.integers(1, 30))
    config = OrderConfig(
        global_batch=draw(st.integers(1, 17)),
        seed=draw(st.integers(0, 2**40)),
        slab_frames=draw(st.integers(1, 64)),
        pool_bytes=draw(st.integers(1, 100)) * FRAME_BYTES,
    )
    layout = FrameLayout(draw(st.sampled_from([1, 4, 16])), span, FRAME_BYTES)
    return EpochOrder(np.flatnonzero(keep), config, draw(st.integers(0, 5)), layout)


def every_lane(order: EpochOrder) -> list[np.ndarray]:
    return [order.lane(lane) for lane in range(order.config.global_batch)]


def global_batches(order: EpochOrder) -> list[list[int]]:
    lanes = every_lane(order)
    return [[int(lane[s]) for lane in lanes if s < len(lane)] for s in range(order.steps)]


@given(orders())
def test_every_window_is_drawn_exactly_once_per_epoch(order: EpochOrder):
    drawn = np.concatenate(every_lane(order))
    np.testing.assert_array_equal(np.sort(drawn), order._starts)


@given(orders())
def test_lanes_differ_by_at_most_one_window_and_only_the_last_step_is_short(order: EpochOrder):
    lengths = [len(lane) for lane in every_lane(order)]
    assert lengths == [order.length(lane) for lane in range(order.config.global_batch)]
    assert max(lengths) - min(lengths) <= 1
    assert order.steps == max(lengths)
    assert all(len(batch) == order.config.global_batch for batch in global_batches(order)[:-1])


@given(orders(), st.integers(1, 8))
def test_any_number_of_workers_serves_the_same_global_batches(order: EpochOrder, world: int):
    world = min(world, order.config.global_batch)
    shares = [rank_lanes(order.config.global_batch, world, rank) for rank in range(world)]
    assert [lane for share in shares for lane in share] == list(range(order.config.global_batch))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    lanes = every_lane(order)
    served = [
        [int(lanes[lane][s]) for share in shares for lane in share if s < len(lanes[lane])]
        for s in range(order.steps)
    ]
    assert served == global_batches(order)


@given(orders(), st.data())
def test_a_lane_resumes_at_any_step_without_the_pools_before_it(
    order: EpochOrder, data: st.DataObject
):
    lane = data.draw(st.integers(0, order.config.global_batch - 1))
    step = data.draw(st.integers(0, order.length(lane)))
    pools = list(order.pools(lane, step))
    if step < order.length(lane):
        assert pools[0].first_step <= step < pools[0].first_step + len(pools[0].starts)
    else:
        assert not pools
    resumed = [start for pool in pools for start in pool.starts]
    skipped = step - pools[0].first_step if pools else 0
    assert resumed[skipped:] == order.lane(lane)[step:].tolist()


@given(orders())
def test_pools_hold_the_frames_of_their_windows_within_their_bytes(order: EpochOrder):
    layout = order.layout
    limit = max(order.config.pool_bytes, 2 * layout.span * layout.frame_bytes)
    for lane in range(order.config.global_batch):
        for pool in order.pools(lane):
            assert pool.frames * layout.frame_bytes <= limit
            assert pool.frames <= pool_frames(order.config, layout)
            held = np.concatenate([np.arange(first, last) for first, last in pool.pieces])
            for start, position in zip(pool.starts, pool.positions, strict=True):
                np.testing.assert_array_equal(
                    held[position : position + layout.span], start + np.arange(layout.span)
                )


def week_of_windows(seed: int = 7, epoch: int = 0, **options: int) -> EpochOrder:
    config = OrderConfig(64, seed=seed, **options)
    return EpochOrder(np.arange(52_561), config, epoch, FrameLayout(32, 24, 8192))


def test_the_order_is_a_function_of_seed_and_epoch():
    first = week_of_windows().lane(5)
    np.testing.assert_array_equal(first, week_of_windows().lane(5))
    assert not np.array_equal(first, week_of_windows(epoch=1).lane(5))
    assert not np.array_equal(first, week_of_windows(seed=8).lane(5))


def test_the_order_of_a_seed_never_changes_between_versions():
    order = EpochOrder(
        np.arange(12), OrderConfig(3, seed=1, slab_frames=2), 4, FrameLayout(2, 2, 4)
    )
    assert [order.lane(lane).tolist() for lane in range(3)] == GOLDEN_LANES


def test_windows_of_a_pool_are_shuffled_across_its_slabs():
    pool = max(week_of_windows(pool_bytes=8 * 2**20).pools(0), key=lambda pool: len(pool.pieces))
    assert len(pool.pieces) > 1
    starts = pool.starts[: len(pool.starts) // 2]
    from_first = [first <= start < last for first, last in pool.pieces[:1] for start in starts]
    assert 0 < sum(from_first) < len(starts)
    assert abs(np.corrcoef(np.arange(len(pool.starts)), pool.starts)[0, 1]) < 0.5


@settings(max_examples=30)
@given(st.integers(0, 1000), st.integers(64 * 32, 64 * 200), st.sampled_from([0.0, 0.3]))
def test_a_batch_comes_from_at_least_half_as_many_slabs_as_lanes(
    seed: int, frames: int, missing: float
):
    keep = np.random.default_rng(seed).random(frames) >= missing
    starts = np.flatnonzero(keep)
    layout = FrameLayout(16, 24, FRAME_BYTES)
    config = OrderConfig(64, seed=seed)
    order = EpochOrder(starts, config, 0, layout)
    slab = slab_frames(config, layout, len(starts))
    for batch in global_batches(order)[:-1]:
        assert len({start // slab for start in batch}) >= 32


def test_an_epoch_reads_less_than_a_fifth_more_frames_than_exist():
    order = week_of_windows()
    read = sum(pool.frames for lane in range(64) for pool in order.pools(lane))
    assert read < 1.2 * 52_561


def test_more_workers_than_lanes_raise_with_the_largest_number():
    with pytest.raises(UsageError, match="9 workers cannot share a global batch of 8") as caught:
        rank_lanes(8, 9, 0)
    assert "at most 8 workers" in str(caught.value)


@pytest.mark.parametrize("field", ["global_batch", "slab_frames", "pool_bytes"])
def test_an_order_with_a_size_below_one_raises(field: str):
    with pytest.raises(UsageError, match=field):
        OrderConfig(**{"global_batch": 8, field: 0})


def test_an_epoch_without_windows_raises():
    with pytest.raises(UsageError, match="at least one window"):
        EpochOrder(np.empty(0, np.int64), OrderConfig(4), 0, FrameLayout(1, 2, 4))


def test_the_number_of_steps_includes_a_short_last_step():
    assert [steps_per_epoch(windows, 8) for windows in (1, 8, 9, 16)] == [1, 1, 2, 2]


def test_a_pool_knows_where_its_windows_start():
    pool = Pool(0, 0, np.array([8, 3, 9]), ((8, 12), (3, 6)))
    assert pool.frames == 7
    assert pool.positions.tolist() == [0, 4, 1]


GOLDEN_LANES = [[3, 2, 8, 9], [0, 5, 4, 1], [10, 6, 11, 7]]
