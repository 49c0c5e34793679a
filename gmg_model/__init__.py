"""Video prediction models in plain PyTorch: GMG and its relatives behind one interface.

>>> import gmg_model
>>> gmg_model.list_models()  # doctest: +ELLIPSIS
(...'gmg-l', 'gmg-m', 'gmg-s'...)
>>> model = gmg_model.create_model("gmg-s", in_shape=(1, 32, 64), patch_size=2)
>>> # model(frames_btchw, horizon=12) -> (B, 12, C, H, W)

Importing this package does not import PyTorch; the first call does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gmg_model import metrics
    from gmg_model.exported import load_exported
    from gmg_model.registry import (
        create_model,
        is_sized_by_window,
        list_models,
        load_official,
    )

__all__ = [
    "create_model",
    "is_sized_by_window",
    "list_models",
    "load_exported",
    "load_official",
    "metrics",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'gmg_model' has no attribute {name!r}")
    if name == "metrics":
        return import_module("gmg_model.metrics")
    from gmg_model import exported, registry

    return getattr(exported if name == "load_exported" else registry, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
