"""Small stores for the tests of the forecasts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.training.options import DataOptions
from jobs.training.run.checkpoints import Checkpoint
from pipelines.stores.store import Store
from tests.jobs.forecasts.stores import weather, write_store
from tests.support.processes.training_runs import small_options, write_untrained_run


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., Store]:
    """A function that writes a store of the given values, or of `weather()`."""

    def make(values: np.ndarray | None = None, name: str = "store.zarr", **options: Any) -> Store:
        return write_store(tmp_path / name, weather() if values is None else values, **options)

    return make


@pytest.fixture
def store(make_store: Callable[..., Store]) -> Store:
    """A store of `weather()`."""
    return make_store()


@pytest.fixture
def trained(store: Store, tmp_path: Path) -> Checkpoint:
    """A checkpoint with initial weights that forecasts two frames of `store` from three."""
    data = DataOptions(input_frames=3, horizon=2, normalise="standardise", pool_mib=1)
    return write_untrained_run(small_options(store.uri, str(tmp_path / "run"), data=data))
