"""Small stores, written directly in the layout of a conversion."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from pipelines.stores.store import Store, open_store

HOURS = 24 * 30
SPLITS = {
    "train": ("2019-01-01T00:00:00", "2019-01-20T23:00:00"),
    "validation": ("2019-01-21T00:00:00", "2019-01-22T23:00:00"),
    "test": ("2019-01-23T00:00:00", "2019-01-30T23:00:00"),
}


def weather(seed: int = 0) -> np.ndarray:
    """Return hourly kelvin (HOURS, 12, 16): a daily cycle, a travelling wave, and noise."""
    hour = np.arange(HOURS)[:, None, None]
    row, column = np.arange(12)[:, None], np.arange(16)[None]
    wave = 5 * np.sin(2 * np.pi * (column / 16 - hour / 60) + row / 4)
    cycle = 3 * np.cos(2 * np.pi * (hour / 24 - column / 16))
    noise = np.random.default_rng(seed).normal(scale=0.3, size=(HOURS, 12, 16))
    return (285 - (row - 5.5) ** 2 + wave + cycle + noise).astype(np.float32)


def write_store(
    uri: Path,
    values: np.ndarray,
    splits: dict[str, tuple[str, str]] | None = None,
    statistics_period: tuple[str, str] | None = None,
    synthetic: bool = True,
    cadence_seconds: int = 3600,
    units: str = "K",
    grey_level_values: list[float] | None = None,
) -> Store:
    """Write a complete store: `t2m` (time, latitude, longitude) or `flow` (time, channel, y, x)."""
    splits = splits or SPLITS
    times = np.datetime64("2019-01-01", "s") + np.arange(len(values)) * np.timedelta64(
        cadence_seconds, "s"
    )
    period = statistics_period or splits["train"]
    traffic = values.ndim == 4
    name, dims = (
        ("flow", ("time", "channel", "y", "x"))
        if traffic
        else ("t2m", ("time", "latitude", "longitude"))
    )
    statistics = {
        "split": "train",
        "period": list(period),
        "variables": {name: _moments(values, times, period)},
    }
    root = zarr.open_group(uri, mode="w", zarr_format=3)
    array = root.create_array(
        name,
        shape=values.shape,
        chunks=(24, *values.shape[1:]),
        shards=(240, *values.shape[1:]),
        dtype="float32",
        fill_value=np.nan,
        dimension_names=dims,
        attributes={
            "units": "1" if traffic else units,
            "long_name": "traffic" if traffic else name,
            **({"grey_level_values": grey_level_values} if grey_level_values else {}),
        },
    )
    array[:] = values
    coordinates: dict[str, np.ndarray] = {
        "time": times.astype(np.int64),
        "available": np.zeros(len(values), np.uint8),
        "missing_fraction": np.isnan(values).mean(axis=(-2, -1)).reshape(len(values), -1).max(1),
    }
    if not traffic:
        coordinates["latitude"] = np.linspace(55, -55, values.shape[1])
        coordinates["longitude"] = np.arange(values.shape[2]) * 22.5
    attributes = {
        "time": {"units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian"},
        "available": {
            "flag_values": [0, 1, 2, 3],
            "flag_meanings": "ok missing_in_source unreadable out_of_range",
        },
    }
    for key, data in coordinates.items():
        along = key if key in dims else "time"
        written = root.create_array(
            key,
            shape=data.shape,
            dtype=data.dtype,
            chunks=(65536,),
            dimension_names=(along,),
            attributes=attributes.get(key, {}),
        )
        written[:] = data
    canonical = json.dumps(statistics, sort_keys=True, separators=(",", ":"))
    root.attrs.update(
        {
            "Conventions": "CF-1.11",
            "title": "A travelling wave",
            "archive": "taxibj" if traffic else "weatherbench",
            "converter_version": "0.1.0",
            "cadence_seconds": cadence_seconds,
            "synthetic": synthetic,
            "splits": {split: list(bounds) for split, bounds in splits.items()},
            "splits_origin": "file",
            "splits_embargo": False,
            "statistics": statistics,
            "statistics_fingerprint": hashlib.sha256(canonical.encode()).hexdigest(),
            "configuration": {"variables": [name]},
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Zarr 3 has not standardised consolidated metadata yet.
        zarr.consolidate_metadata(root.store)
    return open_store(str(uri))


def _moments(values: np.ndarray, times: np.ndarray, period: tuple[str, str]) -> dict[str, Any]:
    inside = (times >= np.datetime64(period[0])) & (times <= np.datetime64(period[1]))

    def moments(x: np.ndarray) -> dict[str, Any]:
        return {
            "count": int((~np.isnan(x)).sum()),
            "nan_count": int(np.isnan(x).sum()),
            "mean": float(np.nanmean(x, dtype=np.float64)),
            "std": float(np.nanstd(x, dtype=np.float64)),
            "min": float(np.nanmin(x)),
            "max": float(np.nanmax(x)),
        }

    pooled = moments(values[inside])
    if values.ndim == 4:
        pooled["channels"] = [moments(values[inside][:, i]) for i in range(values.shape[1])]
    return pooled
