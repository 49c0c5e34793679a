"""A store in the published layout that is written without the converter, for tests of readers."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.stores.store import Store, open_store


@pytest.fixture(scope="session")
def write_store() -> Callable[..., Store]:
    """Return a function: `write_store(folder, {"t2m": array}, ...)` returns the opened store."""
    return _write_store


def _write_store(
    folder: Path,
    variables: Mapping[str, np.ndarray],
    *,
    extra_dims: Mapping[str, Sequence[str]] | None = None,
    extra_coordinates: Mapping[str, np.ndarray] | None = None,
    first: str = "2015-01-01",
    cadence: int = 3600,
    times: np.ndarray | None = None,
    available: np.ndarray | None = None,
    splits: Mapping[str, tuple[str, str]] | None = None,
    embargo: bool = False,
    chunk_frames: int = 8,
    shard_frames: int = 32,
    archive: str = "weatherbench",
) -> Store:
    import zarr

    frames, height, width = next((len(values), *values.shape[-2:]) for values in variables.values())
    if times is None:
        times = np.datetime64(first, "s") + np.arange(frames) * np.timedelta64(cadence, "s")
    if available is None:
        available = np.zeros(frames, "u1")
    ends = [str(time.astype("datetime64[s]")) for time in (times[0], times[-1])]
    splits = dict(splits or {"train": (ends[0], ends[1])})

    root = zarr.create_group(folder, zarr_format=3)

    def coordinate(name: str, values: np.ndarray, attributes: Mapping[str, Any]) -> None:
        array = root.create_array(
            name,
            shape=values.shape,
            chunks=(65536,),
            dtype=values.dtype,
            dimension_names=[name if name not in ("available", "missing_fraction") else "time"],
            attributes=dict(attributes),
        )
        array[:] = values

    coordinate(
        "time",
        times.astype("datetime64[s]").astype(np.int64),
        {"units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian"},
    )
    coordinate("available", available, {})
    coordinate("missing_fraction", np.zeros(frames, "f4"), {})
    coordinate("latitude", np.linspace(-80, 80, height), {"units": "degrees_north"})
    coordinate("longitude", np.arange(width) * 360 / width, {"units": "degrees_east"})
    for name, values in (extra_coordinates or {}).items():
        coordinate(name, values, {})

    train = (times >= np.datetime64(splits["train"][0])) & (
        times <= np.datetime64(splits["train"][1])
    )
    statistics: dict[str, Any] = {}
    for name, values in variables.items():
        dims = tuple((extra_dims or {}).get(name, ()))
        array = root.create_array(
            name,
            shape=values.shape,
            chunks=(chunk_frames, *values.shape[1:]),
            shards=(shard_frames, *values.shape[1:]),
            dtype="float32",
            fill_value=float("nan"),
            compressors=zarr.codecs.BloscCodec(cname="lz4", shuffle="shuffle"),
            dimension_names=["time", *dims, "latitude", "longitude"],
            attributes={"units": "K", "long_name": f"the {name}"},
        )
        array[:] = np.where(available.reshape(-1, *[1] * (values.ndim - 1)) == 0, values, np.nan)
        used = values[train & (available == 0)]
        statistics[name] = _moments(used)
        if dims:
            flat = used.reshape(len(used), -1, height, width)
            statistics[name]["channels"] = [_moments(flat[:, i]) for i in range(flat.shape[1])]
    record = {
        "split": "train",
        "period": list(splits["train"]),
        "variables": statistics,
    }
    root.attrs.update(
        {
            "Conventions": "CF-1.11",
            "title": "written by hand",
            "archive": archive,
            "converter_version": "0",
            "cadence_seconds": cadence,
            "synthetic": True,
            "splits": {name: list(period) for name, period in splits.items()},
            "splits_origin": "file",
            "splits_embargo": embargo,
            "statistics": record,
            "statistics_fingerprint": hashlib.sha256(json.dumps(record).encode()).hexdigest(),
            "configuration": {"variables": list(variables)},
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(folder)
    return open_store(str(folder))


def _moments(values: np.ndarray) -> dict[str, Any]:
    missing = np.isnan(values)
    used = values[~missing].astype(np.float64)
    record: dict[str, Any] = {"count": int(used.size), "nan_count": int(missing.sum())}
    for name in ("mean", "std", "min", "max"):
        record[name] = float(getattr(used, name)()) if used.size else None
    return record
