"""Places that forecasts cannot be written to are an error, and are left as they are."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs.forecasts.prediction.netcdf import check_file, write_netcdf
from pipelines.errors import UsageError
from tests.jobs.forecasts.running import predict


@contextmanager
def full_disk(free_bytes: int) -> Iterator[None]:
    """Limit the size of every file that this process writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_read_only_mount_is_noticed_although_access_rights_allow_writing() -> None:
    assert os.path.isdir("/proc")
    with pytest.raises(UsageError, match=r"(?s)NetCDF file cannot be written.*where: /proc/f\.nc"):
        check_file("/proc/f.nc")


def test_the_check_for_a_writable_netcdf_file_leaves_no_file(tmp_path: Path) -> None:
    check_file(str(tmp_path / "f.nc"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("free_bytes", [0, 5000])
def test_a_full_disk_is_an_error_and_leaves_no_netcdf_file(
    store, trained, tmp_path: Path, free_bytes: int
) -> None:
    forecasts, file = tmp_path / "f.zarr", tmp_path / "f.nc"
    predict(trained, store, str(forecasts))
    before = sorted(tmp_path.iterdir())
    with (
        full_disk(free_bytes),
        pytest.raises(UsageError, match=r"(?s)cannot be written.*f\.nc.*disk with room"),
    ):
        write_netcdf(str(forecasts), str(file))
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("complete", [True, False])
def test_forecasts_are_not_written_into_a_store_of_data(
    store, trained, tmp_path, complete: bool
) -> None:
    data = tmp_path / "data.zarr"
    (data / ".ledger").mkdir(parents=True)
    plan = json.dumps({"archive": "era5", "cadence_seconds": 3600, "variables": ["t2m"]})
    (data / ".ledger/plan.json").write_text(plan)
    if complete:
        (data / "zarr.json").write_text("{}")
    with pytest.raises(UsageError, match="this is a store of data"):
        predict(trained, store, str(data))
    assert (data / ".ledger/plan.json").read_text() == plan
