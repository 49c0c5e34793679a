"""Augmentation changes whole windows, in the same way on any number of workers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import UsageError
from pipelines.inputs.augmentation import Augmentation
from pipelines.inputs.normalisation import Normalisation
from pipelines.inputs.static_fields import static_fields
from pipelines.stores.store import Store
from pipelines.stream.order import OrderConfig, rank_lanes
from pipelines.stream.window_stream import WindowStream
from pipelines.stream.windows import WindowSpec, split_starts

SPEC = WindowSpec(3, 2)


@pytest.fixture(scope="module")
def square(tmp_path_factory: pytest.TempPathFactory, write_store: Callable[..., Store]) -> Store:
    values = np.random.default_rng(0).normal(size=(120, 6, 6)).astype("f4")
    return write_store(tmp_path_factory.mktemp("augmented") / "store", {"t2m": values})


def batches(store: Store, augmentation: Augmentation | None, lanes=range(6), first_step: int = 0):
    order = OrderConfig(global_batch=6, seed=5, slab_frames=16, pool_bytes=4000)
    stream = WindowStream(
        store,
        ("t2m",),
        SPEC,
        split_starts(store, "train", SPEC),
        order,
        Normalisation.from_store(store, ("t2m",), "standardise"),
        lanes,
        augmentation=augmentation,
    )
    return [
        (batch.step, batch.lanes.tolist(), batch.frames_btchw.copy())
        for batch in stream.epoch(2, first_step)
    ]


def variants(window: np.ndarray, name: str) -> list[np.ndarray]:
    if name == "flip_rows":
        return [window, window[..., ::-1, :]]
    if name == "flip_columns":
        return [window, window[..., ::-1]]
    if name == "rot90":
        return [np.rot90(window, turns, axes=(-2, -1)) for turns in range(4)]
    return [np.roll(window, shift, axis=-1) for shift in range(window.shape[-1])]


@pytest.mark.parametrize("name", ["flip_rows", "flip_columns", "rot90", "roll_columns"])
def test_all_frames_of_a_window_change_alike_and_every_change_occurs(
    square: Store, name: str
) -> None:
    plain = batches(square, None)
    seen = set()
    for (_, _, before), (_, _, after) in zip(
        plain, batches(square, Augmentation(**{name: True})), strict=True
    ):
        for original, changed in zip(before, after, strict=True):
            equal = [np.array_equal(changed, each) for each in variants(original, name)]
            assert sum(equal) == 1
            seen.add(equal.index(True))
    assert seen == set(range(len(variants(plain[0][2][0], name))))


def test_changes_do_not_depend_on_workers_or_on_where_an_epoch_resumes(square: Store) -> None:
    everything = Augmentation(True, True, True, True)
    whole = batches(square, everything)
    for rank in range(2):
        lanes = rank_lanes(6, 2, rank)
        for (step, served, frames), (_, all_lanes, expected) in zip(
            batches(square, everything, lanes, first_step=4), whole[4:], strict=True
        ):
            mine = [all_lanes.index(lane) for lane in served]
            np.testing.assert_array_equal(frames, expected[mine], err_msg=f"step {step}")


def test_another_epoch_or_seed_gives_other_changes() -> None:
    augmentation = Augmentation(roll_columns=True)
    window = np.arange(36.0).reshape(1, 1, 1, 1, 36)
    results = []
    for seed, epoch in [(0, 0), (0, 1), (1, 0), (0, 0)]:
        frames = window.copy()
        augmentation.apply(frames, np.array([3]), seed=seed, epoch=epoch, step=7)
        results.append(int(frames.flat[0]))
    assert results[0] == results[3]
    assert len(set(results)) == 3


def test_a_change_that_the_grid_does_not_allow_is_an_error(
    tmp_path: Path, write_store: Callable[..., Store]
) -> None:
    oblong = write_store(tmp_path / "s", {"t2m": np.ones((40, 4, 6), "f4")})
    with pytest.raises(UsageError, match="4 x 6"):
        batches(oblong, Augmentation(rot90=True))
    with pytest.raises(UsageError, match="do not go around"):
        Augmentation(roll_columns=True).check(4, 6, longitudes=np.arange(6) * 2.0)
    with pytest.raises(UsageError, match="do not go around"):
        Augmentation(roll_columns=True).check(4, 6)
    Augmentation(roll_columns=True).check(4, 6, longitudes=np.arange(6) * 60.0)


def test_static_fields_change_with_the_frames_of_their_window(
    write_store: Callable[..., Store], tmp_path: Path
) -> None:
    # A variable that does not change with time is a static field that went the frames' way.
    field = np.random.default_rng(0).random((8, 8)).astype("f4")
    store = write_store(tmp_path / "s.zarr", {"t2m": np.broadcast_to(field, (48, 8, 8)).copy()})
    every = Augmentation(flip_rows=True, flip_columns=True, rot90=True, roll_columns=True)
    normalisation = Normalisation.from_store(store, ("t2m",), "minmax")
    order = OrderConfig(global_batch=8, seed=5)
    fields = static_fields(store, ("cos_longitude",), "minmax")
    alike = replace(fields, values_shw=normalisation.apply(field[None]))
    drawn = WindowStream(
        store,
        ("t2m",),
        WindowSpec(2, 1),
        np.arange(40),
        order,
        normalisation,
        lanes=range(2, 6),
        augmentation=every,
        static_fields=alike,
    )
    seen = set()
    for epoch in (0, 1):
        for batch in drawn.epoch(epoch):
            assert batch.static is not None
            assert batch.static.shape == (len(batch.lanes), 1, 8, 8)
            np.testing.assert_array_equal(batch.static[:, 0], batch.frames_btchw[:, 1, 0])
            seen |= {window.tobytes() for window in batch.static}
    assert len(seen) > 10
