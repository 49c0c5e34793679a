"""The error for a model, loss, protocol or sampling schedule that cannot be made as requested."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ConfigurationError(ValueError):
    """A name, option or size is unknown or impossible; the message says what to write instead."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint for a misspelt name: the most similar known name, and all known names.

    >>> nearest("gmg-x", ["gmg-l", "mim"])
    "did you mean 'gmg-l'? known: gmg-l, mim"
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}known: {', '.join(names)}"


def require_one_of(option: str, value: object, known: tuple[str, ...]) -> None:
    """Raise ConfigurationError unless `value` is one of the known values of an option.

    >>> require_one_of("decay", "unit", ("unit", "none"))
    """
    if value not in known:
        raise ConfigurationError(f"{option}={value!r} is unknown: {nearest(str(value), known)}")
