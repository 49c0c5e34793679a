"""A pool of workers finds the same scores as one process, even if workers die."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.command_line import finite
from jobs.forecasts.forecasters.baselines import MemberForecast, persistence
from jobs.forecasts.scoring.ray_pool import share
from jobs.forecasts.scoring.scores import Evaluation
from pipelines.errors import PlatformError, StoreError, UsageError
from pipelines.inputs.normalisation import Normalisation
from pipelines.stores.store import Store
from pipelines.stream.windows import WindowSpec
from tests.jobs.forecasts.running import evaluate
from tests.jobs.forecasts.stores import weather, write_store

WINDOW = WindowSpec(4, 3)


class Noisy(MemberForecast):
    """Persistence with noise that grows with the lead time and differs between windows."""

    def members(self, frames_btchw, horizon, numbers):
        noise = [
            np.random.default_rng(number).normal(size=(3, horizon, *frames_btchw.shape[2:]))
            for number in numbers
        ]
        growth = 0.1 * np.arange(1, horizon + 1)[:, None, None, None]
        still = persistence(frames_btchw, horizon)[:, None]
        return (still + growth * np.stack(noise)).astype(np.float32)


class Mortal(Noisy):
    """Ends its process at the first forecast, and creates `marker` so that it happens once."""

    def __init__(self, marker: Path):
        self.marker = marker

    def members(self, frames_btchw, horizon, numbers):
        if not self.marker.exists():
            self.marker.touch()
            os._exit(1)
        return super().members(frames_btchw, horizon, numbers)


class Doomed(Noisy):
    """Ends its process whenever it forecasts."""

    def members(self, frames_btchw, horizon, numbers):
        os._exit(1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return write_store(tmp_path_factory.mktemp("stores") / "store.zarr", weather())


@pytest.fixture(scope="module")
def alone(store: Store) -> Evaluation:
    """The evaluation by this process alone: 186 windows in three blocks."""
    return run(store)


def run(store: Store, forecast: Any = None, workers: int = 1, **options: Any) -> Evaluation:
    variables = tuple(store.variables)
    return evaluate(
        store,
        forecast or Noisy(),
        variables=variables,
        window=WINDOW,
        normalisation=Normalisation.from_store(store, variables, "standardise"),
        members=3,
        workers=workers,
        **options,
    )


def scores(evaluation: Evaluation) -> str:
    return json.dumps(finite(evaluation.as_dict()))


def test_scores_do_not_depend_on_the_number_of_workers(store, alone, ray_cluster):
    progress: list[tuple[int, int]] = []
    pooled = run(store, workers=3, progress=lambda done, total: progress.append((done, total)))

    assert scores(pooled) == scores(alone)
    assert pooled.fields is not None
    assert alone.fields is not None
    np.testing.assert_array_equal(pooled.fields.bias_stchw, alone.fields.bias_stchw)
    np.testing.assert_array_equal(pooled.fields.rmse_stchw, alone.fields.rmse_stchw)
    assert progress[0] == (0, 186)
    assert progress[-1] == (186, 186)
    assert sorted(progress) == progress


def test_a_worker_that_dies_is_replaced_and_its_windows_are_counted_once(
    store, alone, ray_cluster, tmp_path
):
    marker = tmp_path / "died"
    pooled = run(store, Mortal(marker), workers=2)
    assert marker.exists()
    assert scores(pooled) == scores(alone)


def test_workers_that_die_again_and_again_end_with_a_remedy(store, ray_cluster):
    with pytest.raises(PlatformError, match="could not score a block") as ended:
        run(store, Doomed(), workers=2)
    assert "--batch_size" in str(ended.value)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_lost_shard_is_an_error_and_never_a_better_score(workers, ray_cluster, tmp_path):
    store = write_store(tmp_path / "store.zarr", weather())
    shutil.rmtree(tmp_path / "store.zarr" / "t2m" / "c" / "2")
    with pytest.raises(StoreError, match="hold no value") as raised:
        run(store, workers=workers)
    assert raised.value.exit_code == 4
    assert "--repair" in str(raised.value)


def test_a_local_store_is_an_error_on_a_cluster_of_several_nodes(store, ray_cluster, monkeypatch):
    monkeypatch.setattr("pipelines.cluster.session.is_autoscaled", lambda: True)
    with pytest.raises(UsageError, match="--store is a local path"):
        run(store, workers=2)


def test_workers_share_processors_and_gpus_evenly():
    assert share(4, [{"CPU": 8.0}]) == {"num_cpus": 2, "num_gpus": 0}
    # With two processors each, the first node has room for two workers and the second for one.
    assert share(3, [{"CPU": 4.0}, {"CPU": 3.0}]) == {"num_cpus": 2, "num_gpus": 0}
    assert share(4, [{"CPU": 8.0, "GPU": 4.0}])["num_gpus"] == 1
    assert share(8, [{"CPU": 16.0, "GPU": 3.0}])["num_gpus"] == pytest.approx(1 / 3, abs=1e-3)
    with pytest.raises(UsageError, match=r"3 x 1 CPU, .* room for 2 "):
        share(3, [{"CPU": 2.0}])
