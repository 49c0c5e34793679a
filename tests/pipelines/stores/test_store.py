"""A store whose times, coordinates or flags are lost does not open: Zarr would read zeros."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.conversion.convert import convert
from pipelines.conversion.options import ConversionRequest
from pipelines.errors import StoreError
from pipelines.stores.store import open_store
from tests.support.archives.small_archives import write_days


@pytest.fixture(scope="module")
def made(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with `days`, an archive, and `store.zarr`, its store."""
    folder = tmp_path_factory.mktemp("made")
    write_days(folder / "days", 1, 2)
    convert(request(folder, folder / "store.zarr"))
    return folder


def request(made: Path, store: Path, repair: bool = False) -> ConversionRequest:
    return ConversionRequest("weatherbench", str(made / "days"), str(store), repair=repair)


@pytest.mark.parametrize("name", ["time", "available", "missing_fraction", "latitude", "longitude"])
def test_a_lost_axis_is_named_by_the_error_and_written_again_by_a_repair(
    made: Path, tmp_path: Path, name: str
):
    store = tmp_path / "store.zarr"
    shutil.copytree(made / "store.zarr", store)
    whole = open_store(str(store))
    shutil.rmtree(store / name / "c")
    with pytest.raises(StoreError, match=f"'{name}' of the store is lost") as refused:
        open_store(str(store))
    assert "--repair" in (refused.value.remedy or "")
    convert(request(made, store, repair=True))
    again = open_store(str(store))
    assert (again.times == whole.times).all()
    assert (again.available == whole.available).all()
    for dim, values in whole.coordinates.items():
        assert (again.coordinates[dim] == values).all()
