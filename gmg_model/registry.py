"""The models by name: one plain function a model, options as keywords.

Unknown names and options are refused with the nearest known one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

from gmg_model.errors import ConfigurationError, nearest
from gmg_model.gmg import GMG, GMGConfig
from gmg_model.motionrnn import Backbone, BackboneConfig, MotionRNN, MotionRNNConfig
from gmg_model.stack import StackConfig

PREFIXES = ("model.", "module.")

# What compat="official" stands for; initial_states may still be chosen, the rest is the point.
OFFICIAL = {"residual": False, "circular": False}
MOTIONRNN_OFFICIAL = OFFICIAL | {"offsets": "additive", "offset_scale": 1.0, "recurrent": "post"}
GMG_OFFICIAL = OFFICIAL | {
    "decay": "batch_index",
    "offsets": "additive",
    "focus": "full",
    "offset_scale": 1.0,
}


def gmg_l(**overrides: Any) -> GMG:
    """GMG-L: the whole model (31.449 M parameters at patch 4, one channel)."""
    variant = {"attention": True, "global_focus": True}
    return GMG(_configure("gmg-l", GMGConfig, variant, GMG_OFFICIAL, overrides))


def gmg_m(**overrides: Any) -> GMG:
    """GMG-m: GMG-L without the self-attention memory (30.413 M); ignores attention_hidden."""
    variant = {"attention": False, "global_focus": True}
    return GMG(_configure("gmg-m", GMGConfig, variant, GMG_OFFICIAL, overrides))


def gmg_s(**overrides: Any) -> GMG:
    """GMG-s: one convolution in place of the Global Focus Module, Eq. 20-21 (29.228 M)."""
    variant = {"attention": True, "global_focus": False}
    return GMG(_configure("gmg-s", GMGConfig, variant, GMG_OFFICIAL, overrides))


def motionrnn_predrnn(**overrides: Any) -> MotionRNN:
    """MotionRNN around PredRNN (26.912 M)."""
    variant = {"backbone": "predrnn"}
    name = "motionrnn-predrnn"
    return MotionRNN(_configure(name, MotionRNNConfig, variant, MOTIONRNN_OFFICIAL, overrides))


def motionrnn_convlstm(**overrides: Any) -> MotionRNN:
    """MotionRNN around ConvLSTM."""
    variant = {"backbone": "convlstm"}
    name = "motionrnn-convlstm"
    return MotionRNN(_configure(name, MotionRNNConfig, variant, MOTIONRNN_OFFICIAL, overrides))


def predrnn(**overrides: Any) -> Backbone:
    """PredRNN (23.839 M)."""
    variant = {"backbone": "predrnn"}
    return Backbone(_configure("predrnn", BackboneConfig, variant, OFFICIAL, overrides))


def convlstm(**overrides: Any) -> Backbone:
    """ConvLSTM (11.676 M: the published 15.08 M less 3.41 M that no output depends on)."""
    variant = {"backbone": "convlstm"}
    return Backbone(_configure("convlstm", BackboneConfig, variant, OFFICIAL, overrides))


_MODELS: dict[str, Callable[..., nn.Module]] = {
    "convlstm": convlstm,
    "gmg-l": gmg_l,
    "gmg-m": gmg_m,
    "gmg-s": gmg_s,
    "motionrnn-convlstm": motionrnn_convlstm,
    "motionrnn-predrnn": motionrnn_predrnn,
    "predrnn": predrnn,
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
    for place, module in model.named_modules():
        for weight in getattr(module, "DEAD_IN_CHECKPOINTS", ()):
            stripped.pop(f"{place}.{weight}", None)
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


C = TypeVar("C", bound=StackConfig)


def _configure(
    name: str,
    config: type[C],
    variant: dict[str, Any],
    official: dict[str, Any],
    overrides: dict[str, Any],
) -> C:
    """The resolved configuration of one registered model."""
    _refuse_unknown(name, config, overrides, fixed=tuple(variant))
    # A null in a configuration file means the default.
    options = {key: value for key, value in overrides.items() if value is not None}
    if options.get("compat") == "official":
        for option, value in official.items():
            if options.get(option, value) != value:
                raise ConfigurationError(
                    f"{option}={options[option]!r} contradicts compat='official', which means "
                    f"{option}={value!r}: leave out one of the two"
                )
        states = {"initial_states": "xavier"} if "offsets" in official else {}
        options = states | options | official
    return config(**options, **variant)


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
