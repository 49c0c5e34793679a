"""The models by name; each family's module holds one plain function a model.

Unknown names and options are refused with the nearest known one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gmg_model.errors import ConfigurationError, nearest
from gmg_model.models import gmg, motionrnn, srvp

PREFIXES = ("model.", "module.")

_MODELS: dict[str, Callable[..., nn.Module]] = {
    **gmg.MODELS,
    **motionrnn.MODELS,
    **srvp.MODELS,
}

SIZED_BY_WINDOW = frozenset(srvp.MODELS)


def list_models() -> tuple[str, ...]:
    """The names that `create_model` knows, sorted."""
    return tuple(sorted(_MODELS))


def is_sized_by_window(name: str) -> bool:
    """Whether `create_model` takes ``input_frames`` and ``horizon`` for the model called so."""
    return name in SIZED_BY_WINDOW


def create_model(name: str, **overrides: Any) -> nn.Module:
    """A model in training mode with PyTorch's default initialisation.

    Parameters
    ----------
    name:
        One of `list_models`.
    overrides:
        Fields of the model's configuration, for GMG those of `gmg_model.models.gmg.GMGConfig`.

    Raises
    ------
    ConfigurationError
        If the name or an option is unknown, or an option's value cannot work.
    """
    if name not in _MODELS:
        raise ConfigurationError(f"no model is called {name!r}: {nearest(name, _MODELS)}")
    return _MODELS[name](**overrides)


def load_official(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load a state dict into ``model``, with or without a Lightning or DDP prefix.

    Raises
    ------
    ConfigurationError
        If names or shapes do not match, naming them; nothing is loaded then.
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
            hint = "; published GMG checkpoints want compat='official'"
        raise ConfigurationError(f"the tensors are not this model's ({'; '.join(problems)}){hint}")
    model.load_state_dict(stripped)


def _drop_repeats(tensors: dict[str, Tensor], repeat: str, kept: str) -> None:
    """Forget the tensors under ``repeat`` that equal those under ``kept``: one shared module."""
    for name in [name for name in tensors if name.startswith(repeat)]:
        original = tensors.get(kept + name.removeprefix(repeat))
        if original is not None and torch.equal(original, tensors[name]):
            del tensors[name]


def _without_prefix(name: str) -> str:
    while name.startswith(PREFIXES):
        name = name.partition(".")[2]
    return name
