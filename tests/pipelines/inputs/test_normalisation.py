"""Normalisation: train constants, per level, pooled over channels and members, invertible."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import StoreError, UsageError
from pipelines.inputs.normalisation import Normalisation
from pipelines.stores.store import Store


def random_fields(*shape: int) -> np.ndarray:
    offsets = 100.0 * np.arange(np.prod(shape[1:-2])).reshape(*shape[1:-2], 1, 1)
    return (np.random.default_rng(0).normal(0, 3, shape) + offsets).astype("f4")


def test_standardised_train_frames_have_zero_mean_and_unit_variance(
    tmp_path: Path, write_store: Callable[..., Store]
):
    values = random_fields(40, 5, 4)
    values[20:] += 50.0
    store = write_store(
        tmp_path / "s", {"t2m": values}, splits={"train": ("2015-01-01", "2015-01-01T19")}
    )
    normal = Normalisation.from_store(store, ("t2m",), "standardise").apply(values[:, None])
    assert normal.dtype == np.float32
    assert normal[:20].mean() == pytest.approx(0.0, abs=1e-4)
    assert normal[:20].std() == pytest.approx(1.0, abs=1e-4)
    assert normal[20:].mean() > 5


def test_min_max_brings_train_frames_to_the_unit_interval(
    tmp_path: Path, write_store: Callable[..., Store]
):
    values = random_fields(30, 2, 5, 4)
    store = write_store(tmp_path / "s", {"flow": values}, extra_dims={"flow": ("channel",)})
    normalisation = Normalisation.from_store(store, ("flow",), "minmax")
    assert normalisation.labels == ("flow[0]", "flow[1]")
    # Both channels of one variable keep one scale.
    assert normalisation.offset[0] == normalisation.offset[1]
    normal = normalisation.apply(values)
    assert (normal.min(), normal.max()) == (0.0, pytest.approx(1.0))


def test_levels_have_constants_of_their_own_and_members_share_them(
    tmp_path: Path, write_store: Callable[..., Store]
):
    values = random_fields(30, 2, 3, 5, 4)
    store = write_store(
        tmp_path / "s", {"z": values, "t": values[:, 0, 0]}, extra_dims={"z": ("member", "level")}
    )
    normalisation = Normalisation.from_store(store, ("t", "z"), "standardise")
    assert len(normalisation.labels) == 7
    members, levels = np.array(normalisation.offset[1:]).reshape(2, 3), range(3)
    np.testing.assert_array_equal(members[0], members[1])
    for level in levels:
        assert members[0, level] == pytest.approx(values[:, :, level].mean(dtype="f8"))
        assert normalisation.scale[1 + level] == pytest.approx(
            values[:, :, level].std(dtype="f8"), rel=1e-6
        )


def test_inverting_gives_the_physical_values_back():
    normalisation = Normalisation("standardise", ("a", "b"), (280.0, 1e5), (12.0, 900.0))
    values = np.random.default_rng(1).normal(0, 1, (3, 2, 4, 4)).astype("f4")
    physical = normalisation.invert(values)
    assert physical[:, 1].mean() == pytest.approx(1e5, rel=0.01)
    np.testing.assert_allclose(normalisation.apply(physical), values, atol=1e-4)


def test_applying_in_place_changes_the_array_itself():
    values = np.full((2, 1, 3, 3), 5.0, "f4")
    normalisation = Normalisation("standardise", ("a",), (1.0,), (2.0,))
    assert normalisation.apply(values, out=values) is values
    assert (values == 2.0).all()


def test_a_constant_field_normalises_to_zero(tmp_path: Path, write_store: Callable[..., Store]):
    values = np.full((10, 3, 3), 7.0, "f4")
    store = write_store(tmp_path / "s", {"t2m": values})
    for kind in ("standardise", "minmax"):
        normalisation = Normalisation.from_store(store, ("t2m",), kind)
        assert not normalisation.apply(values[:, None]).any()


def test_json_keeps_every_digit():
    normalisation = Normalisation("minmax", ("a",), (1.0 / 3.0,), (2.0 / 7.0,))
    assert Normalisation.from_dict(json.loads(json.dumps(normalisation.as_dict()))) == normalisation


def test_unknown_names_are_refused_with_the_nearest(
    tmp_path: Path, write_store: Callable[..., Store]
):
    store = write_store(tmp_path / "s", {"t2m": np.ones((10, 3, 3), "f4")})
    with pytest.raises(UsageError, match="did you mean 't2m'"):
        Normalisation.from_store(store, ("t2n",), "standardise")
    with pytest.raises(UsageError, match="did you mean 'minmax'"):
        Normalisation.from_store(store, ("t2m",), "minmaxx")  # pyright: ignore


def test_a_train_period_without_values_is_refused(
    tmp_path: Path, write_store: Callable[..., Store]
):
    store = write_store(
        tmp_path / "s", {"t2m": np.ones((10, 3, 3), "f4")}, available=np.ones(10, "u1")
    )
    with pytest.raises(StoreError, match="no value of 't2m' in the train period"):
        Normalisation.from_store(store, ("t2m",), "standardise")
