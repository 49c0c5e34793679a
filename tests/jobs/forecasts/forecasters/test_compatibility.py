"""A checkpoint can be scored only on the store that it was trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import zarr

from jobs.forecasts.forecasters.compatibility import check_match, check_selection
from jobs.training.run.checkpoints import Checkpoint
from pipelines.errors import StoreError
from pipelines.inputs.normalisation import Normalisation
from pipelines.stores.recipe import Recipe
from pipelines.stores.store import Store, open_store
from tests.jobs.forecasts.stores import weather


def trained_on(store: Store, **changes: Any) -> Checkpoint:
    variables = tuple(store.variables)
    normalisation = Normalisation.from_store(store, variables, "standardise")
    record = {
        "variables": list(variables),
        "normalisation": normalisation.as_dict(),
        "statistics_fingerprint": store.fingerprint,
        "grid": list(store.spatial_shape),
    }
    return Checkpoint("/runs/one/step_000000040", record | changes)


def test_a_checkpoint_matches_the_store_that_it_was_trained_on(make_store):
    store = make_store()
    check_match(trained_on(store), store)


def test_an_error_about_other_statistics_names_both_fingerprints(make_store):
    store, other = make_store(), make_store(weather(seed=5), name="other.zarr")
    with pytest.raises(StoreError) as raised:
        check_match(trained_on(store), other)
    assert raised.value.exit_code == 4
    assert store.fingerprint[:12] in str(raised.value)
    assert other.fingerprint[:12] in str(raised.value)
    assert "/runs/one/step_000000040" in str(raised.value)


def test_an_error_about_another_grid_names_both_shapes(make_store):
    store, coarse = make_store(), make_store(weather()[:, ::2, ::2], name="coarse.zarr")
    with pytest.raises(StoreError, match=r"12 x 16, and the store's is 6 x 8"):
        check_match(trained_on(store), coarse)


def test_the_same_values_on_other_grid_points_do_not_match(make_store):
    """A moved region and reversed rows keep the shape and the statistics."""
    store, moved = make_store(), make_store(name="moved.zarr")
    root = zarr.open_group(moved.uri, mode="r+", use_consolidated=False)
    root["latitude"][:] = np.linspace(-55, 55, 12)  # pyright: ignore[reportIndexIssue, reportArgumentType]
    moved = open_store(moved.uri)
    assert moved.fingerprint == store.fingerprint
    known = {"store": {"recipe": Recipe.of(store, ["t2m"]).as_dict()}}
    trained = Checkpoint("/runs/one/step_000000040", trained_on(store).record | known)
    check_match(trained, store)
    with pytest.raises(StoreError, match="the grid differs") as raised:
        check_match(trained, moved)
    assert raised.value.exit_code == 4


def test_an_error_about_a_missing_variable_names_those_of_the_store(make_store):
    store = make_store()
    with pytest.raises(StoreError, match="forecasts tp, and the store holds t2m"):
        check_match(trained_on(store, variables=["tp"]), store)


def test_other_channels_of_the_same_variable_do_not_match(make_store):
    store = make_store()
    other = {"kind": "standardise", "labels": ["t2m[0]"], "offset": [0.0], "scale": [1.0]}
    with pytest.raises(StoreError, match=r"t2m\[0\], and the store's are t2m"):
        check_match(trained_on(store, normalisation=other), store)


def test_the_period_that_chose_the_checkpoint_cannot_be_the_test_period(make_store):
    store = make_store()
    trained = trained_on(store, validation_period=list(store.attributes["splits"]["test"]))
    with pytest.raises(StoreError, match="the validation period that chose this checkpoint"):
        check_selection(trained, store, "test")
    apart = trained_on(store, validation_period=list(store.attributes["splits"]["validation"]))
    check_selection(apart, store, "test")
    check_selection(apart, store, "validation")
