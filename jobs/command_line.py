"""What the command lines of all jobs share: options, exit codes, the JSON line, progress.

Nothing heavy is imported here, so that `--help` and errors about options answer at once.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar

from pipelines.errors import PlatformError, UsageError, nearest

SEEDS = 2**31
"""upper limit of seeds: the code adds to them, and PyTorch and NumPy must accept the sum"""
STOPPED = 128 + signal.SIGTERM
"""exit code of a job that ended because of SIGTERM, as shells count it"""
SWITCH = {"switch": True}
"""metadata of a field of options that takes no value: `--latest`, not `--latest true`"""
SEVERAL = {"nargs": "+"}
"""metadata of a field of options that takes several words: `--variables t2m tp`"""

Options = TypeVar("Options")


class Progress(Protocol):
    """A callback that gets the number of items done, the total, and a note on the current step."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


def main_guard(main: Callable[[], int | None]) -> NoReturn:
    """Run a job's `main` and end the process with the documented exit code.

    The codes are 0 for success, 2 for wrong usage or configuration, 3 for source data that is
    missing or unreadable, 4 for a store that is incomplete or does not match, and 1 for any other
    error (see `pipelines.errors`).
    """
    try:
        sys.exit(main() or 0)
    except PlatformError as error:
        print(f"error: {as_typed(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of the output has closed the pipe (`| head`). The interpreter flushes standard
        # output once more at its end, and that must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", file=sys.stderr)
        sys.exit(130)


def program() -> str:
    """Return the program as the user called it: `evaluate.py`, or `gmg evaluate`."""
    return _program or Path(sys.argv[0]).name


_program = ""


def set_program(name: str) -> None:
    """Set the name that help and errors give to this program."""
    global _program
    _program = name


def as_typed(text: str) -> str:
    """Return a text whose commands have the form that the user typed: `python FILE` or `gmg`.

    >>> set_program("gmg evaluate")
    >>> as_typed("python jobs/train_taxibj.py --help, python jobs/export.py --run RUN")
    'gmg train taxibj --help, gmg export --run RUN'
    >>> set_program("")
    """
    if not program().startswith("gmg "):
        return text
    text = re.sub(r"python jobs/train_(\w+)\.py", r"gmg train \1", text)
    return re.sub(r"python jobs/(\w+)\.py", r"gmg \1", text)


def parse_options(
    kind: type[Options],
    description: str | None,
    json_help: str = "end with one line of JSON",
    *,
    arguments: Sequence[str] | None = None,
    verb: str = "",
) -> tuple[Options, bool]:
    """Return a job's options, and whether the job is to print JSON.

    Parameters
    ----------
    kind:
        A dataclass with one field per option. The docstring of a field is its help. For its
        metadata see `SWITCH`, `SEVERAL` and `jobs.option_parser.Parser.add_options`.
    description:
        The text of `--help` above the options.
    json_help:
        The help of `--json`.
    arguments:
        The command line; that of this process if None.
    verb:
        The subcommand whose options these are, such as `convert`.

    Raises
    ------
    SystemExit
        With code 2 if an option is unknown, missing or invalid. The message names the nearest
        option and, if the error is in a YAML file, the file and the line.
    """
    from jobs.option_parser import build, job_parser

    name = f"{program()} {verb}".strip()
    parser = job_parser(name, as_typed(description or ""))
    parser.add_argument("--json", action="store_true", help=json_help)
    parser.add_options(kind)
    values = parser.parse_args(arguments)
    return build(kind, values), values["json"]


def choose(
    what: str, known: Mapping[str, str], arguments: Sequence[str], description: str | None
) -> tuple[str, list[str]]:
    """Return the subcommand that a command line begins with, and the rest of the command line.

    Parameters
    ----------
    what:
        What a subcommand is called, such as `VERB`.
    known:
        The subcommands: name -> what it does.
    arguments:
        The command line, without the program.
    description:
        The text of `--help` above the subcommands.

    Raises
    ------
    UsageError
        The subcommand is missing or unknown.
    SystemExit
        With code 0 after `--help`.
    """
    first = arguments[0] if arguments else ""
    if first in ("-h", "--help"):
        width = max(map(len, known))
        print(f"usage: {program()} [-h] {what} ...\n\n{as_typed(description or '').strip()}\n")
        print("\n".join(f"  {name:<{width}}  {purpose}" for name, purpose in known.items()))
        raise SystemExit(0)
    if first in known:
        return first, list(arguments[1:])
    problem = f"unknown {what} '{first}'" if first else f"{what} is missing"
    raise UsageError(problem, remedy=nearest(first, known))


def parser_class() -> type[Any]:
    """Return the parser of the jobs."""
    from jobs.option_parser import Parser

    return Parser


def say(line: str) -> None:
    """Print a line for people on standard error, because standard output may carry JSON."""
    print(line, file=sys.stderr, flush=True)


def print_json(result: dict[str, Any]) -> None:
    """Print one JSON object as the last line of standard output (NaN becomes null)."""
    sys.stdout.flush()
    print(json.dumps(finite(result), sort_keys=False, default=str), flush=True)


def finite(value: Any) -> Any:
    """Return a value as JSON can hold it: Python scalars, and None for NaN and infinities."""
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
    """Show a progress bar with the time that is left; on a pipe, print a line every ten seconds.

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
    """An estimate of the time that is left, from the speed since the first step of this process.

    Steps of an earlier process are not counted: a resumed job reports them at its start. The first
    step is not counted either, because it includes the time in which the workers start.
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
    """Return a length of time as text.

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


def numbers(text: str, example: str = "0.1,0.5,0.9") -> tuple[float, ...]:
    """Return the numbers in a comma-separated text, in ascending order.

    Raises
    ------
    UsageError
        An item is not a finite number, or a number is given twice; the remedy shows `example`.

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
    """Raise UsageError if the generators of random numbers do not accept a seed."""
    if not 0 <= seed < SEEDS:
        raise UsageError(f"no seed {seed}", remedy=f"give a --seed of 0 to {SEEDS - 1}")
