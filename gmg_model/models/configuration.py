"""Resolve a model's name and overrides to its configuration, and check the options."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from gmg_model.errors import ConfigurationError, nearest

C = TypeVar("C")

OFFICIAL: Mapping[str, Any] = {
    "residual": False,
    "circular": False,
    "noise": 0,
    "static_channels": 0,
}
"""The options that compat="official" sets in every recurrent model."""


def configure(
    name: str,
    config: type[C],
    variant: Mapping[str, Any],
    official: Mapping[str, Any],
    overrides: Mapping[str, Any],
) -> C:
    """Return the resolved configuration of one registered model.

    Parameters
    ----------
    name:
        Name of the model, for error messages.
    config:
        The frozen dataclass of its options.
    variant:
        Fields that the name of the model fixes: they cannot be overridden.
    official:
        Fields that `compat="official"` fixes.
    overrides:
        The caller's options; None means the default.

    Raises
    ------
    ConfigurationError
        If an option is unknown, fixed by the name, or contradicts `compat="official"`.
    """
    _check_known(name, config, overrides, fixed=tuple(variant))
    # A null in a configuration file means the default.
    options = {key: value for key, value in overrides.items() if value is not None}
    if options.get("compat") == "official":
        for option, value in official.items():
            if options.get(option, value) != value:
                raise ConfigurationError(
                    f"{option}={options[option]!r} contradicts compat='official', which sets "
                    f"{option}={value!r}: leave out one of the two"
                )
        # The published code of the models with motion draws its first states at random.
        states = {"initial_states": "xavier"} if "offsets" in official else {}
        options = states | options | dict(official)
    return config(**options, **variant)


def _check_known(
    name: str, config: type, overrides: Mapping[str, Any], fixed: tuple[str, ...] = ()
) -> None:
    known = [field.name for field in dataclasses.fields(config) if field.name not in fixed]
    for option in overrides:
        if option == "reverse_scheduled_sampling":
            raise ConfigurationError(
                f"reverse_scheduled_sampling is not an option of {name}: reverse scheduled "
                "sampling is a schedule of gmg_model.training.sampling, for models that can do "
                "without some input frames, as predrnn can and gmg-* cannot"
            )
        if option in fixed:
            raise ConfigurationError(
                f"{option} is fixed by the name {name}: choose the model by name"
            )
        if option not in known:
            raise ConfigurationError(f"{name} has no option {option!r}: {nearest(option, known)}")
