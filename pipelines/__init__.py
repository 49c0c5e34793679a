"""Raw archives to sharded Zarr stores to training batches. Holds no model code.

>>> import pipelines
>>> windows = pipelines.read_windows("s3://bucket/t2m.zarr", split="test")  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.stream.window_dataset import read_windows

__all__ = ["read_windows"]


def __getattr__(name: str) -> Any:
    # Importing the package stays quick: usage errors and --help load none of Ray or Zarr.
    if name not in __all__:
        raise AttributeError(f"module 'pipelines' has no attribute {name!r}")
    from pipelines.stream import window_dataset

    return getattr(window_dataset, name)
