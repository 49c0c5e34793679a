"""What every job's command line shares: exit codes, the JSON line, progress, lazy imports.

This module imports nothing heavy, so that ``--help`` and a misspelt option answer at once.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, NoReturn, Protocol, TypeVar, cast

from pipelines.errors import PlatformError, UsageError, nearest

T = TypeVar("T")
SWITCH = {"switch": True}
"""metadata of a field of options that is a switch: `--latest`, not `--latest true`"""
SEEDS = 2**31
"""seeds are smaller, so that PyTorch and NumPy take what the code adds to one"""
STOPPED = 128 + signal.SIGTERM
"""exit code of a job that was asked to end, as a shell has it"""


class Progress(Protocol):
    """Called with what is done, the total, and a few words of what is going on."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


def main_guard(main: Callable[[], int | None]) -> NoReturn:
    """Run a job's ``main`` and end the process with the documented exit code.

    0 done, 1 anything else, 2 wrong usage or configuration, 3 source data missing or unreadable,
    4 store incomplete or not matching (see :mod:`pipelines.errors`).
    """
    try:
        sys.exit(main() or 0)
    except PlatformError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output has gone (``| head``); let the interpreter's last flush succeed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", file=sys.stderr)
        sys.exit(130)


def say(line: str) -> None:
    """A line for people on the error stream: the other one may carry JSON."""
    print(line, file=sys.stderr, flush=True)


def print_json(result: dict[str, Any]) -> None:
    """Print one JSON object as the last line of standard output (NaN becomes null)."""
    sys.stdout.flush()
    print(json.dumps(finite(result), sort_keys=False, default=str), flush=True)


def finite(value: Any) -> Any:
    """``value`` as JSON can hold it: scalars of NumPy as Python's, NaN and infinities as null."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


@contextmanager
def progress(title: str, unit: str = "") -> Iterator[Progress]:
    """A progress bar with the time that is left; on a pipe, one line every ten seconds.

    >>> with progress("converting", "shards") as report:   # doctest: +SKIP
    ...     report(3, 17)
    """
    if not sys.stderr.isatty():
        yield _lines(title, unit)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TextColumn("{task.fields[note]}"),
        TextColumn("{task.fields[left]}"),
    )
    left = _Remaining()
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None, note="", left="")

        def report(done: int, total: int, note: str = "") -> None:
            bar.update(task, completed=done, total=total, note=note, left=left(done, total))

        yield report


def _lines(title: str, unit: str) -> Progress:
    last, shown, left = time.monotonic(), -1, _Remaining()

    def report(done: int, total: int, note: str = "") -> None:
        nonlocal last, shown
        now, remains = time.monotonic(), left(done, total)
        if done != shown and (now - last >= 10.0 or (done == total and now - last > 2.0)):
            last, shown = now, done
            parts = (f"{title}: {done}/{total}", unit, note, remains)
            print(" ".join(part for part in parts if part), file=sys.stderr, flush=True)

    return report


class _Remaining:
    """How long the rest takes, from what was done since the first step of this run.

    What an earlier process did, and a resumed one reports at first, says nothing of the speed, nor
    does the first step, which waits until everything has started.
    """

    def __init__(self) -> None:
        self._start: int | None = None
        self._first: tuple[float, int] | None = None

    def __call__(self, done: int, total: int) -> str:
        now = time.monotonic()
        self._start = done if self._start is None else self._start
        if done == self._start:
            return ""
        self._first = self._first or (now, done)
        began, before = self._first
        if not before < done < total:
            return ""
        return f"{duration((now - began) * (total - done) / (done - before))} left"


def duration(seconds: float) -> str:
    """A length of time for people.

    >>> duration(40), duration(754), duration(9000), duration(200000)
    ('40 s', '13 min', '2 h 30 min', '2 d 7 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def parser_class() -> type[Any]:
    """The jobs' argument parser: keeps the description's lines, names the nearest option.

    An abbreviated option is refused like a misspelt one: what a command means must not change when
    an option is added.
    """
    from argparse import RawDescriptionHelpFormatter

    from jsonargparse import ArgumentParser, DefaultHelpFormatter, set_parsing_settings

    set_parsing_settings(docstring_parse_attribute_docstrings=True)

    class Formatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
        pass

    class Parser(ArgumentParser):
        def __init__(self, *arguments: Any, **options: Any):
            options = {"formatter_class": Formatter, "allow_abbrev": False, **options}
            super().__init__(*arguments, **options)
            self._file: str | None = None

        def parse_path(self, cfg_path: Any, *arguments: Any, **options: Any) -> Any:
            self._file = str(cfg_path)
            parsed = super().parse_path(cfg_path, *arguments, **options)
            self._file = None
            return parsed

        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            known = [action.dest for action in self._actions if action.dest != "help"]
            print(f"error: {_with_nearest(message, known)}", file=sys.stderr)
            if self._file:
                print(f"  where: {self._file}", file=sys.stderr)
            print(f"  all options: python jobs/{self.prog} --help", file=sys.stderr)
            sys.exit(2)

    return Parser


def parse_options(
    kind: type[T], description: str | None, json_help: str = "print one JSON object"
) -> tuple[T, bool]:
    """Return a job's options from its command line, and whether it is to print JSON.

    Parameters
    ----------
    kind:
        A dataclass with one field per option; the docstring of a field is its help.
    description:
        The text of `--help` above the options.
    json_help:
        The help of `--json`, which every job with this parser has.
    """
    from docstring_parser import parse_from_object
    from jsonargparse import set_parsing_settings

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    switches = {f.name for f in fields(cast(Any, kind)) if f.metadata.get("switch")}
    parser = parser_class()(description=description)
    parser.add_class_arguments(kind, skip=switches)
    for known in parse_from_object(kind).params if switches else ():
        if known.arg_name in switches:
            parser.add_argument(
                f"--{known.arg_name}", action="store_true", help=known.description or ""
            )
    parser.add_argument("--json", action="store_true", help=json_help)
    values = vars(parser.parse_args())
    return kind(**{f.name: values[f.name] for f in fields(cast(Any, kind))}), values["json"]


def numbers(text: str, example: str = "0.1,0.5,0.9") -> tuple[float, ...]:
    """Return a list of numbers of the command line, ascending.

    Raises
    ------
    UsageError
        One is not a finite number, or is given twice; the remedy shows `example`.

    >>> numbers("0.5,0.1"), numbers("")
    ((0.1, 0.5), ())
    """
    try:
        found = sorted(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        found = [math.nan]
    if not all(map(math.isfinite, found)):
        raise UsageError(f"'{text}' is no list of numbers", remedy=f"write {example}")
    if len(set(found)) < len(found):
        raise UsageError(f"'{text}' has a number twice", remedy=f"write {example}")
    return tuple(found)


def check_seed(seed: int) -> None:
    """Raise UsageError for a seed that the generators of random numbers do not take."""
    if not 0 <= seed < SEEDS:
        raise UsageError(f"no seed {seed}", remedy=f"give a --seed of 0 to {SEEDS - 1}")


def _with_nearest(message: str, known: list[str]) -> str:
    """Add the nearest known option to jsonargparse's message about an unknown one."""
    found = (
        re.search(r"[Uu]nrecognized arguments: --(?P<key>[\w.]+)", message)
        or re.search(r"Group '(?P<group>[\w.]+)' does not accept option '(?P<key>[\w.]+)'", message)
        or re.search(r"Option '(?P<key>[\w.]+)' is not accepted", message)
    )
    if not found:
        return message
    groups = found.groupdict()
    name = f"{groups['group']}.{groups['key']}" if groups.get("group") else groups["key"]
    return f"{message}; {nearest(name, known).split('known:')[0].strip() or 'see --help'}"
