"""What every benchmark shares: runs in alternating order, and figures as Markdown and JSON."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Requirement:
    """One figure that the platform promises."""

    what: str
    measured: float | None
    """None: there is no figure in this run"""
    required: float
    unit: str = ""
    most: bool = False
    """Whether `required` is a ceiling and not a floor."""

    @property
    def met(self) -> bool | None:
        if self.measured is None:
            return None
        return self.measured <= self.required if self.most else self.measured >= self.required


def alternate(
    sides: Mapping[str, Callable[[], T]], repeats: int, fewer: Mapping[str, int] | None = None
) -> dict[str, list[T]]:
    """Results of every side's runs in turn; no side is always first.

    `fewer`: runs of a side that takes so long that `repeats` of them are too many.
    """
    results: dict[str, list[T]] = {name: [] for name in sides}
    for repeat in range(repeats):
        names = list(sides) if repeat % 2 == 0 else list(sides)[::-1]
        for name in names:
            if repeat < (fewer or {}).get(name, repeats):
                say(f"run {repeat + 1} of {repeats}: {name}")
                results[name].append(sides[name]())
    return results


def say(line: str) -> None:
    """A line of progress."""
    print(f"   {line}", file=sys.stderr, flush=True)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table, the first column to the left and the others to the right."""
    print(f"\n| {' | '.join(header)} |")
    print(f"|---|{'---:|' * (len(header) - 1)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def print_requirements(requirements: Sequence[Requirement]) -> None:
    """Required beside measured."""
    said = {True: "yes", False: "**no**", None: "no figure"}
    rows = [
        (
            item.what,
            f"{'at most' if item.most else 'at least'} {_number(item.required)}{item.unit}",
            "" if item.measured is None else f"{_number(item.measured)}{item.unit}",
            said[item.met],
        )
        for item in requirements
    ]
    print_table(("required", "", "measured", "met"), rows)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """`--json FILE`."""
    parser.add_argument("--json", type=Path, help="file to write the figures to as well")


def write_json(
    path: Path | None, figures: Mapping[str, Any], requirements: Sequence[Requirement]
) -> None:
    """The figures for programs, where `path` is given."""
    if path is None:
        return
    content = {
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "figures": dict(figures),
        "requirements": [asdict(item) | {"met": item.met} for item in requirements],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
