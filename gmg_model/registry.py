"""The models by name: one plain function a model, options as keywords.

Unknown names and options are refused with the nearest known one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from gmg_model.errors import ConfigurationError, nearest
from gmg_model.gmg import GMG, GMGConfig

PREFIXES = ("model.", "module.")

# What compat="official" of GMG stands for; initial_states may be chosen, the rest is the point.
GMG_OFFICIAL = {
    "decay": "batch_index",
    "offsets": "additive",
    "focus": "full",
    "offset_scale": 1.0,
    "residual": False,
    "circular": False,
}


def gmg_l(**overrides: Any) -> GMG:
    """GMG-L: the whole model (31.449 M parameters at patch 4, one channel)."""
    return GMG(gmg_config("gmg-l", {"attention": True, "global_focus": True}, overrides))


def gmg_m(**overrides: Any) -> GMG:
    """GMG-m: GMG-L without the self-attention memory (30.413 M); ignores attention_hidden."""
    return GMG(gmg_config("gmg-m", {"attention": False, "global_focus": True}, overrides))


def gmg_s(**overrides: Any) -> GMG:
    """GMG-s: one convolution in place of the Global Focus Module, Eq. 20-21 (29.228 M)."""
    return GMG(gmg_config("gmg-s", {"attention": True, "global_focus": False}, overrides))


_MODELS: dict[str, Callable[..., nn.Module]] = {
    "gmg-l": gmg_l,
    "gmg-m": gmg_m,
    "gmg-s": gmg_s,
}


def list_models() -> tuple[str, ...]:
    """The names that `create_model` knows, sorted."""
    return tuple(sorted(_MODELS))


def create_model(name: str, **overrides: Any) -> nn.Module:
    """A model in training mode with PyTorch's default initialisation.

    Parameters
    ----------
    name:
        One of `list_models`.
    overrides:
        Fields of the model's configuration, for GMG those of `gmg_model.gmg.GMGConfig`.

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
    stripped = {_without_prefix(name): tensor for name, tensor in tensors.items()}
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


def gmg_config(name: str, variant: dict[str, Any], overrides: dict[str, Any]) -> GMGConfig:
    """The resolved configuration of one GMG variant."""
    _refuse_unknown(name, GMGConfig, overrides, fixed=tuple(variant))
    options = dict(overrides)
    if options.get("compat") == "official":
        for option, value in GMG_OFFICIAL.items():
            if options.get(option, value) != value:
                raise ConfigurationError(
                    f"{option}={options[option]!r} contradicts compat='official', which means "
                    f"{option}={value!r}: leave out one of the two"
                )
        options = {"initial_states": "xavier"} | options | GMG_OFFICIAL
    return GMGConfig(**options, **variant)


def _refuse_unknown(
    name: str, config: type, overrides: Mapping[str, Any], fixed: tuple[str, ...] = ()
) -> None:
    known = [field.name for field in dataclasses.fields(config) if field.name not in fixed]
    for option in overrides:
        if option == "reverse_scheduled_sampling":
            raise ConfigurationError(
                f"{name} cannot be trained with reverse scheduled sampling: it ignores frames "
                "hidden from the input part; use the scheduled sampling of gmg_model.sampling"
            )
        if option in fixed:
            raise ConfigurationError(
                f"{option} is what tells {', '.join(list_models())} apart: choose the model by name"
            )
        if option not in known:
            raise ConfigurationError(f"{name} has no option {option!r}: {nearest(option, known)}")


def _without_prefix(name: str) -> str:
    while name.startswith(PREFIXES):
        name = name.partition(".")[2]
    return name
