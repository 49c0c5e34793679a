"""The estimated cost of a conversion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.conversion.convert import plan_conversion
from pipelines.conversion.estimate import Estimate, estimate
from pipelines.conversion.options import ConversionOptions, ConversionRequest
from pipelines.conversion.plan import Plan
from tests.support.archives.small_archives import hourly, write_days, write_netcdf

SMALL = ConversionOptions(chunk_frames=8, shard_frames=16)


def request(folder: Path, **options) -> ConversionRequest:
    return ConversionRequest(
        "weatherbench", str(folder / "a"), str(folder / "s"), options.pop("options", SMALL)
    )


def estimated(plan: Plan) -> Estimate:
    found = estimate(plan, plan.tasks)
    assert found is not None
    return found


def test_all_chunks_of_a_small_archive_are_sampled(tmp_path: Path):
    write_days(tmp_path / "a", 1)
    assert estimated(plan_conversion(request(tmp_path))).chunks == 3


def test_frames_that_are_missing_in_the_source_take_no_bytes(tmp_path: Path):
    write_days(tmp_path / "a", 1, 2)
    whole = estimated(plan_conversion(request(tmp_path)))
    (tmp_path / "a" / "2m_temperature_day02_5.625deg.nc").unlink()
    write_days(tmp_path / "a", 20)
    holed = estimated(plan_conversion(request(tmp_path)))
    assert holed.bytes_stored == pytest.approx(whole.bytes_stored, rel=0.1)


def test_nothing_to_write_takes_no_time(tmp_path: Path):
    write_days(tmp_path / "a", 1)
    cost = estimate(plan_conversion(request(tmp_path)), [])
    assert cost is not None
    assert cost.processor_seconds == 0
    assert cost.bytes_stored > 0


def test_chunks_that_cannot_be_read_are_counted(tmp_path: Path):
    write_days(tmp_path / "a", 1, 2)
    plan = plan_conversion(request(tmp_path))
    (tmp_path / "a" / "2m_temperature_day02_5.625deg.nc").unlink()
    cost = estimated(plan)
    assert (cost.chunks, cost.chunks_unreadable) == (3, 3)
    (tmp_path / "a" / "2m_temperature_day01_5.625deg.nc").unlink()
    assert estimate(plan, plan.tasks) is None


def test_a_coarser_grid_is_estimated_to_take_fewer_bytes(tmp_path: Path):
    times = hourly("2010-01-01", 48)
    values = np.random.default_rng(0).normal(280, 5, (48, 32, 64)).astype(np.float32)
    write_netcdf(tmp_path / "a" / "a.nc", times, values=values)
    fine = estimated(plan_conversion(request(tmp_path)))
    coarse = ConversionOptions(chunk_frames=8, shard_frames=16, regrid="8x16")
    found = estimated(plan_conversion(request(tmp_path, options=coarse)))
    assert found.bytes_stored < fine.bytes_stored / 10
