"""The definition of a study, read from YAML and checked before any stage runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipelines.errors import UsageError, nearest

FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Study:
    """A comparison of systems on one archive, with equal numbers of steps and equal scores."""

    name: str
    title: str
    archive: str
    """kind of archive, as in `reprocess.py --archive`"""
    job: str
    """training job that trains the systems; its defaults apply"""
    systems: Mapping[str, Mapping[str, Any]]
    """name of a system -> the training options of this system alone"""
    train: Mapping[str, Any] = field(default_factory=dict)
    """training options of all systems"""
    convert: Mapping[str, Any] = field(default_factory=dict)
    """options of the conversion"""
    splits: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """split -> first and last time; if empty, the splits of the archive"""
    evaluate: Mapping[str, Any] = field(default_factory=dict)
    """options of the evaluation"""
    scores: Sequence[Sequence[str]] = (("strict", "rmse"),)
    """(protocol, score) of each table"""

    def chosen(self, names: Sequence[str] | None) -> tuple[str, ...]:
        """Return the systems with the given names in the study's order; all if `names` is None.

        Raises
        ------
        UsageError
            A name is unknown.
        """
        for name in names or ():
            if name not in self.systems:
                raise UsageError(
                    f"study {self.name} has no system '{name}'",
                    remedy=f"--systems: {nearest(name, self.systems)}",
                )
        return tuple(name for name in self.systems if names is None or name in names)

    def training_flags(self, system: str, seed: int, epochs: int | None) -> list[str]:
        """Return the command-line options of one training; `epochs` replaces those of the study."""
        values = {**self.train, **self.systems[system], "training.seed": seed}
        if epochs is not None:
            values["training.epochs"] = epochs
        return flags(values)


def known() -> tuple[str, ...]:
    """Return the names of the studies that come with the project."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def load(name: str) -> Study:
    """Read a study of the project by its name, or another study from the path of its YAML file.

    Raises
    ------
    UsageError
        The study does not exist, or a key is unknown or missing.
    """
    own = name.endswith((".yaml", ".yml"))
    path = Path(name) if own else FOLDER / f"{name}.yaml"
    if not path.is_file():
        remedy = "give the path of a YAML file" if own else f"--study: {nearest(name, known())}"
        raise UsageError(f"there is no study '{name}'", remedy=remedy)
    try:
        return Study(name=path.stem, **yaml.safe_load(path.read_text()))
    except (TypeError, yaml.YAMLError) as error:
        raise UsageError(
            f"the study cannot be read: {error}",
            where=str(path),
            remedy=f"take {FOLDER / known()[0]}.yaml as an example",
        ) from None


def folder_name(system: str) -> str:
    """Return a system's name in a form that can be part of a path.

    >>> folder_name("gmg-s, offsets as published")
    'gmg-s_offsets-as-published'
    """
    return system.replace(", ", "_").replace(" ", "-")


def flags(values: Mapping[str, Any]) -> list[str]:
    """Return options as words of a command line.

    >>> flags({"model.hidden": [32, 32], "model.residual": True, "model.name": "gmg-s"})
    ['--model.hidden=[32, 32]', '--model.residual=true', '--model.name=gmg-s']
    """
    return [
        f"--{name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in values.items()
    ]
