"""The parser behind every job's command line: options in dataclasses, YAML files, helpful errors.

Import it when options are parsed, not at the head of a job: it imports jsonargparse.
`jobs.command_line.parse_options` does so.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast, get_type_hints

import yaml
from docstring_parser import parse_from_object
from jsonargparse import (
    ArgumentParser,
    DefaultHelpFormatter,
    Namespace,
    set_dumper,
    set_parsing_settings,
)

from pipelines.errors import nearest

Options = TypeVar("Options")


class _Dumper(yaml.SafeDumper):
    """A writer of YAML that quotes text such as `1e5`, which jsonargparse reads as a number."""


_EXPONENT = re.compile(r"[-+]?[0-9][0-9_]*[.]?[0-9_]*[eE][-+]?[0-9]+$")
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789"))


def _dump(values: Any) -> str:
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


set_parsing_settings(docstring_parse_attribute_docstrings=True)
set_dumper("yaml", _dump)


class _Formatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Keep the line breaks of the description, and show types and defaults."""


class Parser(ArgumentParser):
    """An argument parser that takes YAML files and names the nearest option in its errors.

    An abbreviated option is an error, because an option that is added later could change what the
    abbreviation means.
    """

    def __init__(self, *arguments: Any, **settings: Any):
        settings = {"formatter_class": _Formatter, "allow_abbrev": False, **settings}
        super().__init__(*arguments, **settings)
        self._files: list[str] = []
        self._open_file: str | None = None

    def add_options(self, kind: type, skip: Collection[str] = ()) -> None:
        """Add one option per field of a dataclass; the docstring of a field is its help.

        The metadata of a field may hold `switch` (true: the option takes no value), and `nargs`,
        `choices` and `metavar`, which mean the same as for `add_argument`.
        """
        special = [f for f in _fields(kind) if f.metadata and f.name not in skip]
        texts = {
            param.arg_name: param.description
            for base in (reversed(kind.__mro__[:-1]) if special else ())
            for param in parse_from_object(base).params
        }
        for field in special:
            settings = dict(field.metadata)
            if settings.pop("switch", False):
                settings["action"] = "store_true"
            elif field.default is dataclasses.MISSING:
                settings["required"] = True
            else:
                settings["default"] = field.default
            self.add_argument(f"--{field.name}", help=texts.get(field.name) or "", **settings)
        self.add_class_arguments(kind, skip={*skip, *(field.name for field in special)})

    def parse_path(self, path: Any, *arguments: Any, **settings: Any) -> Namespace:
        """Read a YAML file, and remember its name for errors."""
        self._open_file = str(path)
        self._files.append(self._open_file)
        parsed = super().parse_path(path, *arguments, **settings)
        self._open_file = None
        return parsed

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong, where, and the nearest option; exit with code 2."""
        known = [action.dest for action in self._actions if action.dest != "help"]
        problem = _explain(message, ex, known)
        print(f"error: {problem.what}", file=sys.stderr)
        if where := self._place(problem):
            print(f"  where: {where}", file=sys.stderr)
        print(f"  all options: {_command(self.prog)} --help", file=sys.stderr)
        sys.exit(2)

    def _place(self, problem: _Problem) -> str | None:
        """Return the YAML file that a problem is in, and the line, as far as they are known."""
        if self._open_file and problem.line:
            return f"{self._open_file}, line {problem.line}"
        # An unknown key is noticed after its file was read, an invalid value while it is read.
        files = reversed(self._files) if problem.is_unknown_key else [self._open_file]
        for file in files:
            if file and problem.key and (line := _line_of(problem.key, Path(file))):
                return f"{file}, line {line}"
        return self._open_file


def job_parser(
    program: str, description: str, defaults: Path | None = None, epilog: str = ""
) -> Parser:
    """Return the parser of a job, with `--config` and `--print_config`.

    Parameters
    ----------
    program:
        The command, as help and errors name it: `reprocess.py plan`.
    description:
        The text of `--help` above the options.
    defaults:
        A YAML file of defaults, which `--config` and the other options override.
    epilog:
        The text of `--help` below the options.
    """
    parser = Parser(
        prog=program,
        description=description,
        default_config_files=[str(defaults)] if defaults else [],
        epilog=epilog,
    )
    parser.add_argument(
        "--config", action="config", help="YAML file of options; later options override it"
    )
    return parser


def build(kind: type[Options], values: Namespace) -> Options:
    """Return the dataclass `kind` with parsed values, nested dataclasses included."""
    types = get_type_hints(kind)
    made: dict[str, Any] = {}
    for field in _fields(kind):
        if not field.init or field.name not in values:
            continue
        value = values[field.name]
        if dataclasses.is_dataclass(types[field.name]):
            value = build(cast(type, types[field.name]), value)
        made[field.name] = tuple(value) if _is_several(field, value) else value
    return kind(**made)


def _is_several(field: dataclasses.Field[Any], value: Any) -> bool:
    return "nargs" in field.metadata and isinstance(value, list)


def _fields(kind: type) -> Sequence[dataclasses.Field[Any]]:
    return dataclasses.fields(cast(Any, kind))


def _command(prog: str) -> str:
    return prog if prog.startswith("gmg ") else f"python jobs/{prog}"


@dataclass(frozen=True)
class _Problem:
    """What is wrong with a command line or with a file of options."""

    what: str
    key: str | None = None
    """the option it is about"""
    line: int | None = None
    """the line of the file that is read, from 1"""
    is_unknown_key: bool = False


def _explain(message: str, cause: BaseException | None, known: list[str]) -> _Problem:
    """Return an error of jsonargparse in better words."""
    while cause:
        if isinstance(cause, yaml.MarkedYAMLError) and cause.problem_mark:
            return _Problem(f"not valid YAML: {cause.problem}", line=cause.problem_mark.line + 1)
        cause = cause.__cause__ or cause.__context__
    if found := re.match(r"unrecognized arguments: (\S+)", message):
        return _Problem(_unknown_argument(found[1], known))
    if found := re.search(r"(?:Group '(.+)' does not accept o|O)ption '(.+?)'( is not)?", message):
        key = f"{found[1]}.{found[2]}" if found[1] else found[2]
        what = f"unknown option '{key}': {_hint(key, known)}"
        return _Problem(what, key, is_unknown_key=True)
    if found := re.match(r"the following arguments are required: (.*)", message):
        return _Problem(f"give {', '.join(f'--{name}' for name in found[1].split(', '))}")
    if found := re.match(r"(?:argument --|Parser key \")([\w.]+)\"?:", message):
        return _Problem(_invalid_value(found[1], message), found[1])
    return _Problem(message)


def _invalid_value(key: str, message: str) -> str:
    """Say that a value does not fit its option, and which values do."""
    choice = re.search(r"'(.*)' (?:\(choose from |not among choices \()(.*)\)", message)
    if choice:
        return f"--{key}: unknown '{choice[1]}', {nearest(choice[1], _names(choice[2]))}"
    given = re.search(r"(?:Got|Given) value: (.*)", message)
    expected = re.search(r"Subtypes: \[(.*)\]|Expected an? (.*?)(?:\. Got value:|$)", message, re.M)
    if not given or not expected:
        return re.sub(r'^(argument --\S+|Parser key "\S+"):', f"--{key}:", message)
    allowed = (expected[1] or expected[2]).replace("<class 'NoneType'>", "null")
    allowed = re.sub(r"<class '(\w+)'>", r"\1", allowed).replace("typing.Literal", "one of ")
    return f"--{key} must be {allowed.replace(', null', ' or null')}, not {given[1]}"


def _names(text: str) -> list[str]:
    return re.findall(r"[\w.+-]+", text)


def _line_of(key: str, file: Path) -> int | None:
    """Return the first line of a YAML file that sets the last part of a dotted key, from 1."""
    name = re.compile(rf"\b{re.escape(key.rpartition('.')[2])}\b['\"]?\s*:")
    lines = enumerate(file.read_text().splitlines(), start=1)
    return next((number for number, text in lines if name.search(text)), None)


def _unknown_argument(given: str, known: list[str]) -> str:
    if not given.startswith("-"):
        return (
            f"unexpected '{given}': put a glob into quotes, as in --source 'folder/*.nc', so "
            "that the shell leaves it whole"
        )
    name = given.split("=")[0]
    return f"unknown option '{name}': {_hint(name, [f'--{option}' for option in known])}"


def _hint(name: str, known: list[str]) -> str:
    """Return the nearest name; the whole list of options would be too long."""
    return nearest(name, known).split("known:")[0].strip() or "see --help"
