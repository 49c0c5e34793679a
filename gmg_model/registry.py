"""The models by name. The module of each family has one plain function per model.

For an unknown name or option the error names the nearest known one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gmg_model.errors import ConfigurationError, nearest
from gmg_model.models import gmg, motionrnn, srvp

PREFIXES = ("model.", "module.")
"""What Lightning and DistributedDataParallel put in front of the names of tensors."""

_MODELS: dict[str, Callable[..., nn.Module]] = {
    **gmg.MODELS,
    **motionrnn.MODELS,
    **srvp.MODELS,
}

SIZED_BY_WINDOW = frozenset(srvp.MODELS)
"""Models whose configuration has `input_frames` and `horizon`."""


def list_models() -> tuple[str, ...]:
    """Return the names of all models, sorted."""
    return tuple(sorted(_MODELS))


def is_sized_by_window(name: str) -> bool:
    """Return whether this model has the options `input_frames` and `horizon`."""
    return name in SIZED_BY_WINDOW


def create_model(name: str, **overrides: Any) -> nn.Module:
    """Create a model in training mode with PyTorch's default initialisation.

    Parameters
    ----------
    name:
        One of `list_models`.
    overrides:
        Fields of the model's configuration, such as those of `gmg_model.models.gmg.GMGConfig`.

    Raises
    ------
    ConfigurationError
        If the name or an option is unknown, or an option's value cannot work.
    """
    if name not in _MODELS:
        raise ConfigurationError(f"unknown model {name!r}: {nearest(name, _MODELS)}")
    return _MODELS[name](**overrides)


def load_official(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load a published state dict into `model`, with or without a Lightning or DDP prefix.

    Weights that published checkpoints hold although no output depends on them, and repetitions of a
    shared module, are skipped.

    Raises
    ------
    ConfigurationError
        If names or shapes do not match. The message names them, and the model stays as it was.
    """
    rename: Callable[[str], str] = getattr(model, "own_name", str)
    stripped = {rename(_without_prefix(name)): tensor for name, tensor in tensors.items()}
    for place, module in model.named_modules():
        for weight in getattr(module, "DEAD_IN_CHECKPOINTS", ()):
            stripped.pop(f"{place}.{weight}", None)
        for repeat, kept in getattr(module, "REPEATED_IN_CHECKPOINTS", {}).items():
            _drop_repeats(stripped, f"{place}.{repeat}", f"{place}.{kept}")
    expected = model.state_dict()
    missing = sorted(set(expected) - set(stripped))
    unexpected = sorted(set(stripped) - set(expected))
    shapes = [
        f"{name} {tuple(stripped[name].shape)} for {tuple(expected[name].shape)}"
        for name in sorted(set(expected) & set(stripped))
        if stripped[name].shape != expected[name].shape
    ]
    problems = [
        f"{kind}: {', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}"
        for kind, names in (("missing", missing), ("unknown", unexpected), ("shapes", shapes))
        if names
    ]
    if problems:
        hint = ""
        if any("fc_global" in name for name in unexpected):
            hint = "; published GMG checkpoints need compat='official'"
        raise ConfigurationError(f"the tensors do not fit this model ({'; '.join(problems)}){hint}")
    model.load_state_dict(stripped)


def _drop_repeats(tensors: dict[str, Tensor], repeat: str, kept: str) -> None:
    """Delete the tensors under `repeat` that equal those under `kept`: one shared module."""
    for name in [name for name in tensors if name.startswith(repeat)]:
        original = tensors.get(kept + name.removeprefix(repeat))
        if original is not None and torch.equal(original, tensors[name]):
            del tensors[name]


def _without_prefix(name: str) -> str:
    while name.startswith(PREFIXES):
        name = name.partition(".")[2]
    return name
