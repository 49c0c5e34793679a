"""The command line of the training jobs: read the options, train, print how it ended.

A data set's YAML in `jobs/configs` gives the defaults. `--config FILE.yaml` and dotted options
override them. Nothing here imports PyTorch or Ray before the options are read, so that `--help`
answers at once.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, TypeVar, cast

from jobs.command_line import as_typed, print_json, program
from jobs.training.options import TrainOptions

CONFIGS = Path(__file__).resolve().parents[1] / "configs"

More = TypeVar("More")


def train_from(config: str, description: str | None) -> None:
    """Run a training job: parse the command line, train, print how it ended.

    Parameters
    ----------
    config, description:
        As for `parse`.
    """
    values = _parsed((TrainOptions,), config, description, None)
    options = _training(values)

    from jobs.training.driver.job import train

    outcome = train(options)
    print(outcome.summary())
    if values["json"]:
        print_json(dataclasses.asdict(outcome))


def parse(config: str, description: str | None, arguments: list[str] | None = None) -> TrainOptions:
    """Return the options from the command line.

    Parameters
    ----------
    config:
        Name of the YAML in `jobs/configs` that holds the data set's defaults.
    description:
        First lines of `--help`.
    arguments:
        Words of the command line. None takes those of this process.

    Raises
    ------
    SystemExit
        Code 2 with the nearest name if an option is unknown or a value does not fit.
    """
    return _training(_parsed((TrainOptions,), config, description, arguments))


def parse_with(
    kind: type[More],
    config: str,
    description: str | None,
    arguments: list[str] | None = None,
) -> tuple[TrainOptions, More, bool]:
    """Return the options of a training, those of the job around it, and whether to print JSON.

    The other parameters and the errors are those of `parse`.

    Parameters
    ----------
    kind:
        A dataclass of the other options. Its fields come first in `--help`. A field that the
        training has too is shared by both, with the default of `kind`.
    """
    values = _parsed((kind, TrainOptions), config, description, arguments)
    names = [f.name for f in dataclasses.fields(cast(Any, kind))]
    return _training(values), kind(**{name: values[name] for name in names}), values["json"]


def _training(values: dict[str, Any]) -> TrainOptions:
    known = {f.name for f in dataclasses.fields(TrainOptions)}
    return TrainOptions.from_dict({name: v for name, v in values.items() if name in known})


def _parsed(
    kinds: tuple[type, ...],
    config: str,
    description: str | None,
    arguments: list[str] | None,
) -> dict[str, Any]:
    from jobs.option_parser import job_parser

    parser = job_parser(program(), as_typed(description or ""), CONFIGS / config)
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    seen: set[str] = set()
    for kind in kinds:
        parser.add_options(kind, skip=seen)
        seen |= {f.name for f in dataclasses.fields(kind)}
    namespace = parser.parse_args(arguments)
    return json.loads(parser.dump(namespace, format="json", skip_validation=True))
