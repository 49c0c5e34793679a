"""Small stores for the tests of the forecasts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.store import Store
from tests.jobs.forecasts.stores import weather, write_store


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., Store]:
    """Writes a store of the given values; the weather of ``stores`` by default."""

    def make(values: np.ndarray | None = None, name: str = "store.zarr", **options: Any) -> Store:
        return write_store(tmp_path / name, weather() if values is None else values, **options)

    return make
