"""Options of one archive: a frozen dataclass beside the code that reads it, a flag a field.

The command line shows every archive's fields, a store keeps them as resolved, and a conversion that
continues it takes them from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from pipelines.errors import UsageError, nearest


@dataclass(frozen=True)
class ArchiveOptions:
    """No options. An archive that has some derives a class, each field an :func:`option`."""


Options = TypeVar("Options", bound=ArchiveOptions)


def option(default: Any, text: str) -> Any:
    """A field of :class:`ArchiveOptions`: its default, and its line in ``--help``."""
    return field(default=default, metadata={"help": text})


def resolve(archive: str, options: type[Options], given: Mapping[str, Any]) -> Options:
    """``given`` with the defaults of the rest.

    Raises
    ------
    UsageError
        The archive has no option of that name, or the option not that value.
    """
    known = [known.name for known in fields(options)]
    for name in given:
        if name not in known:
            raise UsageError(
                f"archive '{archive}' has no option '{name}'",
                where=f"--{name}",
                remedy=nearest(name, known) if known else "leave it out",
            )
    return options(**given)


def check_at_least(options: ArchiveOptions, **least: int) -> None:
    """Refuse whole numbers that are too small."""
    for name, smallest in least.items():
        if getattr(options, name) < smallest:
            raise UsageError(
                f"{name} is {getattr(options, name)}",
                where=f"--{name}",
                remedy=f"give {smallest} or more",
            )
