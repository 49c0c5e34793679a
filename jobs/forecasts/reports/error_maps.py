"""Maps of errors as a CF store: `<variable>_bias` and `<variable>_rmse` by system and lead time.

Letters of array names: S systems, T lead times, C channels, H and W rows and columns of the grid.
"""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.forecasts.fields import grid_fields
from jobs.forecasts.scoring.scores import Evaluation
from pipelines.cf import CONVENTIONS
from pipelines.errors import UsageError
from pipelines.storage import places
from pipelines.storage.lease import LEDGER_FOLDER

if TYPE_CHECKING:
    import xarray as xr

    from jobs.forecasts.scoring.sums import ErrorFields
    from pipelines.stores.store import Store

ROOT = "zarr.json"
SYSTEM = "system"
"""The coordinate that is written first. Incomplete maps of errors are recognised by it."""
COUNTED = "windows_scored"
"""The root attribute by which complete maps of errors are recognised."""


def error_dataset(
    evaluation: Evaluation, store: Store, variables: tuple[str, ...]
) -> xr.Dataset | None:
    """Return the maps as an xarray dataset, or None if the evaluation kept no maps.

    Parameters
    ----------
    variables
        Variables in the order of the model's channels.
    """
    import xarray as xr

    fields = evaluation.fields
    if fields is None:
        return None
    return xr.Dataset(
        _arrays(fields, store, variables),
        coords={
            SYSTEM: (SYSTEM, list(fields.systems), {"long_name": "forecasting system"}),
            "lead_time": _lead_time(evaluation),
            **{
                key: (field.dims, field.values, dict(field.attributes))
                for key, field in grid_fields(store).items()
            },
        },
        attrs={
            "Conventions": CONVENTIONS,
            "title": f"Errors of forecasts of {store.title}",
            "synthetic": int(store.synthetic),
            "store": store.uri,
            "split": evaluation.split,
            "period": " to ".join(evaluation.period),
            COUNTED: evaluation.windows_scored,
        },
    )


def _arrays(fields: ErrorFields, store: Store, variables: tuple[str, ...]) -> dict[str, Any]:
    """Return bias, RMSE and count of every variable, in the form that xarray accepts."""
    arrays: dict[str, Any] = {}
    begin = 0
    for name in variables:
        end = begin + len(store.variables[name].channel_labels)
        arrays |= _maps_of(name, store, fields, slice(begin, end))
        begin = end
    return arrays


def _maps_of(name: str, store: Store, fields: ErrorFields, channels: slice) -> dict[str, Any]:
    """Return the maps of one variable: bias, root mean square error and counts."""
    info = store.variables[name]
    grid = info.dims[info.dims.index("time") + 1 :]
    known = dict(store.array(name).attrs)
    described = {"units": info.units or "1"}
    if "grid_mapping" in known:
        described["grid_mapping"] = str(known["grid_mapping"])
    maps: dict[str, Any] = {}
    for kind, values, meaning in (
        ("bias", fields.bias_stchw, "mean of forecast minus truth"),
        ("rmse", fields.rmse_stchw, "root mean square error"),
    ):
        own = values[:, :, channels]
        maps[f"{name}_{kind}"] = (
            (SYSTEM, "lead_time", *grid),
            own.reshape(*own.shape[:2], *info.extra_shape, *own.shape[-2:]),
            {"long_name": f"{meaning} of {info.long_name or name}", **described},
        )
    counts = fields.count_tchw[:, channels]
    maps[f"{name}_count"] = (
        ("lead_time", *grid),
        counts.reshape(len(counts), *info.extra_shape, *counts.shape[-2:]),
        {"long_name": "windows whose truth was observed", "units": "1"},
    )
    return maps


def write_error_fields(uri: str, dataset: xr.Dataset) -> None:
    """Write the maps to `uri` in Zarr format 3.

    Maps of an earlier evaluation are removed first. The root is written last, so that it exists
    only if the maps are complete.

    Raises
    ------
    UsageError
        If `uri` holds something other than maps of errors.
    """
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.sync import sync
    from zarr.storage import MemoryStore

    memory = MemoryStore()
    with warnings.catch_warnings():
        # Zarr warns that strings and consolidated metadata are not yet part of format 3.
        warnings.simplefilter("ignore")
        dataset.to_zarr(memory, zarr_format=3, consolidated=True)

    async def collect() -> dict[str, bytes]:
        found = {}
        for name in sorted([name async for name in memory.list()]):
            buffer = await memory.get(name, default_buffer_prototype())
            if buffer is not None:
                found[name] = buffer.to_bytes()
        return found

    objects = sync(collect())
    root = objects.pop(ROOT)
    remove_error_fields(uri)
    for name in sorted(objects, key=lambda name: (name.partition("/")[0] != SYSTEM, name)):
        places.write_bytes(places.join(uri, name), objects[name], durable=False)
    places.write_bytes(places.join(uri, ROOT), root)


def remove_error_fields(uri: str) -> None:
    """Remove the maps of an earlier evaluation, if there are any.

    Raises
    ------
    UsageError
        If `uri` holds something other than maps of errors.
    """
    check_overwriting(uri)
    if places.exists(uri):
        fs, path = places.filesystem(uri)
        fs.rm(path, recursive=True)


def _lead_time(evaluation: Evaluation) -> tuple[str, np.ndarray, dict[str, str]]:
    leads = np.array(evaluation.lead_seconds, np.int64)
    if not evaluation.timed:
        return "lead_time", leads, {"long_name": "frames after the last input frame", "units": "1"}
    described = {
        "standard_name": "forecast_period",
        "long_name": "time since the last frame that the forecast was given",
    }
    return "lead_time", leads.astype("timedelta64[s]").astype("timedelta64[ns]"), described


def check_overwriting(fields: str) -> None:
    """Check that maps of errors replace nothing but earlier maps of errors.

    Raises
    ------
    UsageError
        If `fields` holds something else. For example, the maps of a page `t2m.html` go to
        `t2m.zarr`, which may be the store.
    """
    held = places.names(fields)
    if held and not _are_maps(fields, held):
        raise UsageError(
            "maps of errors go here, and something else is here that they would replace",
            where=fields,
            remedy="give a --report of another name",
        )


def _are_maps(fields: str, held: list[str]) -> bool:
    try:
        root = json.loads(places.read_bytes(places.join(fields, ROOT)))
    except FileNotFoundError:
        # An evaluation that was killed while it wrote maps leaves them without a root.
        return SYSTEM in held and LEDGER_FOLDER not in held
    except (NotADirectoryError, ValueError):
        return False
    return isinstance(root, dict) and COUNTED in root.get("attributes", {})
