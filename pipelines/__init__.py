"""Raw archives to sharded Zarr stores to training batches. Holds no model code.

The names in `__all__` are the public API; `docs/python.md` shows how they are used.

>>> import pipelines
>>> store = pipelines.open_store("t2m.zarr")  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.audit.inspection import StoreDescription, inspect
    from pipelines.audit.verification import Verification, verify
    from pipelines.conversion.convert import convert
    from pipelines.conversion.options import (
        ConversionOptions,
        ConversionReport,
        ConversionRequest,
    )
    from pipelines.errors import PlatformError
    from pipelines.inputs.augmentation import Augmentation
    from pipelines.inputs.normalisation import Normalisation, NormalisedReader
    from pipelines.inputs.static_fields import static_fields
    from pipelines.stores.reader import FrameReader
    from pipelines.stores.store import Store, open_store
    from pipelines.stream.batches import Batch
    from pipelines.stream.order import OrderConfig, rank_lanes
    from pipelines.stream.ray_transport import RayTransport
    from pipelines.stream.torch_dataset import WindowDataset
    from pipelines.stream.window_dataset import read_windows
    from pipelines.stream.window_stream import WindowStream, read_batches
    from pipelines.stream.windows import WindowSpec, split_starts

_MODULES = {
    "Augmentation": "inputs.augmentation",
    "Batch": "stream.batches",
    "ConversionOptions": "conversion.options",
    "ConversionReport": "conversion.options",
    "ConversionRequest": "conversion.options",
    "FrameReader": "stores.reader",
    "Normalisation": "inputs.normalisation",
    "NormalisedReader": "inputs.normalisation",
    "OrderConfig": "stream.order",
    "PlatformError": "errors",
    "RayTransport": "stream.ray_transport",
    "Store": "stores.store",
    "StoreDescription": "audit.inspection",
    "Verification": "audit.verification",
    "WindowDataset": "stream.torch_dataset",
    "WindowSpec": "stream.windows",
    "WindowStream": "stream.window_stream",
    "convert": "conversion.convert",
    "inspect": "audit.inspection",
    "open_store": "stores.store",
    "rank_lanes": "stream.order",
    "read_batches": "stream.window_stream",
    "read_windows": "stream.window_dataset",
    "split_starts": "stream.windows",
    "static_fields": "inputs.static_fields",
    "verify": "audit.verification",
}
"""Public name -> the module of this package that defines it."""

__all__ = [
    "Augmentation",
    "Batch",
    "ConversionOptions",
    "ConversionReport",
    "ConversionRequest",
    "FrameReader",
    "Normalisation",
    "NormalisedReader",
    "OrderConfig",
    "PlatformError",
    "RayTransport",
    "Store",
    "StoreDescription",
    "Verification",
    "WindowDataset",
    "WindowSpec",
    "WindowStream",
    "convert",
    "inspect",
    "open_store",
    "rank_lanes",
    "read_batches",
    "read_windows",
    "split_starts",
    "static_fields",
    "verify",
]


def __getattr__(name: str) -> Any:
    # Importing the package stays quick: usage errors and --help load none of Ray, torch or Zarr.
    if name not in _MODULES:
        raise AttributeError(f"module 'pipelines' has no attribute {name!r}")
    return getattr(importlib.import_module(f"pipelines.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
