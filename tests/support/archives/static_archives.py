"""Archives in the layout of WeatherBench with static fields, and their conversion without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from pipelines.conversion.convert import convert, plan_conversion
from pipelines.conversion.options import ConversionOptions, ConversionReport, ConversionRequest
from pipelines.conversion.resume import summarise
from pipelines.conversion.shard_task import Destination, convert_shards
from pipelines.stores.ledger import Ledger, ShardRecord, utc_now

LATITUDE, LONGITUDE = np.arange(-87.1875, 90, 5.625), np.arange(0, 360, 5.625)
SHAPE = (32, 64)


def constants(seed: int = 0) -> xr.Dataset:
    """Return the layout of `constants_5.625deg.nc`: no time, and no soil type over the sea."""
    rng = np.random.default_rng(seed)
    land = (rng.random(SHAPE) < 0.4).astype("f4")
    heights = (land * rng.gamma(2, 300, SHAPE)).astype("f4")
    soil = np.where(land > 0, rng.integers(1, 7, SHAPE), np.nan).astype("f4")
    latitudes, longitudes = np.meshgrid(LATITUDE, LONGITUDE, indexing="ij")
    dims = ("lat", "lon")
    return xr.Dataset(
        {
            "orography": (dims, heights, {"units": "m", "long_name": "Orography"}),
            "lsm": (dims, land, {"units": "(0 - 1)", "long_name": "Land-sea mask"}),
            "slt": (dims, soil, {"units": "~", "long_name": "Soil type"}),
            "lat2d": (dims, latitudes, {"units": "degrees", "long_name": "Latitude"}),
            "lon2d": (dims, longitudes, {"units": "degrees", "long_name": "Longitude"}),
        },
        coords={"lat": LATITUDE, "lon": LONGITUDE},
    )


def temperatures(frames: int = 60) -> xr.Dataset:
    """Return hourly `t2m` of 2015."""
    values = np.random.default_rng(1).normal(280, 10, (frames, *SHAPE)).astype("f4")
    times = pd.date_range("2015-01-01", periods=frames, freq="h")
    attributes = {"units": "K", "long_name": "2 metre temperature"}
    return xr.Dataset(
        {"t2m": (("time", "lat", "lon"), values, attributes)},
        coords={"time": times, "lat": LATITUDE, "lon": LONGITUDE},
    )


def write_weatherbench(folder: Path) -> None:
    """Write the archive's folders `2m_temperature` and `constants`."""
    for name, dataset in (
        ("2m_temperature/2m_temperature_2015_5.625deg.nc", temperatures()),
        ("constants/constants_5.625deg.nc", constants()),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        dataset.to_netcdf(folder / name)


def request(folder: Path, *fields: tuple[str, float | None], **changes: Any) -> ConversionRequest:
    """Return the request to convert the archive in `folder` to a store with static fields."""
    options = changes.pop("options", {})
    values: dict[str, Any] = {
        "archive": "weatherbench",
        "source": str(folder / "2m_temperature"),
        "store": str(folder / "store.zarr"),
        "options": ConversionOptions(static_fields=fields, **options),
        "static_source": str(folder / "constants") if fields else None,
    }
    return ConversionRequest(**{**values, **changes})


def converted(asked: ConversionRequest) -> ConversionReport:
    """Convert without Ray: write the shards in this process, then let `convert` do the rest."""
    plan = plan_conversion(asked)
    summary = summarise(plan, asked.source, asked.static_source, "tests", utc_now())
    Ledger(asked.store).write_plan(summary | {"objects": {}, "state": "converting"})
    destination = Destination(asked.store, asked.archive, "tests", plan.index.options)
    outcomes = list(convert_shards(plan.tasks, destination))
    assert all(isinstance(outcome, ShardRecord) for outcome in outcomes), outcomes
    return convert(asked)
