"""Where forecasts go: what cannot be written, or is something else, is refused and left alone."""

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
    """Files of this process cannot grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_netcdf_file_that_cannot_be_made_is_refused_though_rights_would_allow_it() -> None:
    assert os.path.isdir("/proc")
    with pytest.raises(UsageError, match=r"(?s)NetCDF file cannot be written.*where: /proc/f\.nc"):
        check_file("/proc/f.nc")


def test_asking_whether_a_netcdf_file_can_be_written_leaves_nothing(tmp_path: Path) -> None:
    check_file(str(tmp_path / "f.nc"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("free_bytes", [0, 5000])
def test_a_disk_that_is_full_leaves_no_netcdf_file_and_says_so(
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
def test_a_store_of_data_is_refused_as_one_and_left_as_it_was(
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
