"""Jobs accept the commands that pages and the jobs' module docstrings show.

Here only the options are parsed. tests/test_walkthrough.py runs the commands of the pages.
"""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from jobs.command_line import parse_options, parser_class
from jobs.reprocessing.arguments import ConversionArguments, parse
from jobs.reprocessing.verbs import conversion_request
from tests.conftest import ROOT

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
JOBS = sorted((ROOT / "jobs").glob("[!_]*.py"))
_COMMAND = re.compile(r"^(?:ray job submit .*?-- )?python jobs/(\w+)\.py\b(.*)$")
_BLOCK = re.compile(r"^```.*?^```$", re.M | re.S)
_CODE = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\]\((?!\w+:)([^)#\s]+)(?:#[^)\s]*)?\)")


class Command(NamedTuple):
    place: str
    job: str
    arguments: list[str]


class Taken(Exception):
    """Raised in place of the work of a job, when the job has accepted its command line."""


def commands(path: Path) -> Iterator[Command]:
    lines = iter(enumerate(path.read_text().splitlines(), start=1))
    for number, line in lines:
        text = line.strip().removeprefix("$ ")
        while text.endswith("\\"):
            text = text.rstrip("\\ ") + " " + next(lines)[1].strip()
        if (found := _COMMAND.match(text)) and "`" not in text:
            place = f"{path.relative_to(ROOT)}:{number}"
            yield Command(place, found[1], shlex.split(found[2], comments=True))


def inline_commands(page: Path) -> Iterator[Command]:
    """Yield the commands in the text of a page, except those with something left out."""
    for code in _CODE.findall(_BLOCK.sub("", page.read_text())):
        found = _COMMAND.match(" ".join(code.split()))
        if found and found[2].strip() and not re.search(r"\.\.\.|[<{]|--help", found[0]):
            arguments = shlex.split(found[2])
            if not set(arguments) & ON_PAGES_ONLY:
                yield Command(f"{page.relative_to(ROOT)}: {found[0][:60]}", found[1], arguments)


ON_PAGES_ONLY = {"ice_charts"}
"""archives that exist only as examples on pages; their commands are run in
tests/pipelines/archives/test_adding_an_archive.py"""
COMMANDS = [command for path in (*PAGES, *JOBS) for command in commands(path)]
COMMANDS += [command for page in PAGES for command in inline_commands(page)]


def test_pages_and_headings_show_commands_of_every_job():
    shown = {command.job for command in COMMANDS}
    assert shown >= {path.stem for path in JOBS if "main_guard(main)" in path.read_text()} - {
        "demo"
    }


def taken(*_: Any) -> None:
    raise Taken


def parsed(*arguments: Any) -> None:
    options, _ = parse(*arguments)
    if isinstance(options, ConversionArguments):
        conversion_request(options)
    raise Taken


def taken_options(*arguments: Any) -> None:
    parse_options(*arguments)
    raise Taken


class TakingParser(parser_class()):  # pyright: ignore
    def parse_args(self, *arguments: Any, **options: Any) -> None:
        super().parse_args(*arguments, **options)
        raise Taken


TRAINING = ("jobs.training.driver.job", "train", taken)
STAND_INS = {
    "reprocess": [("jobs.reprocess", "parse", parsed)],
    **{path.stem: [TRAINING] for path in JOBS if path.stem.startswith("train_")},
    "train_radar": [("jobs.train_radar", "convert", lambda *_: None), TRAINING],
}
"""replacements of the work behind the options: (module, name, replacement)"""


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.place)
def test_a_command_is_taken_by_its_job(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert command.arguments, "a job without options"
    monkeypatch.chdir(tmp_path)
    splits = {"train": ["2010", "2015"], "validation": ["2016", "2016"], "test": ["2017", "2018"]}
    (tmp_path / "splits.yaml").write_text(yaml.safe_dump(splits))
    job = importlib.import_module(f"jobs.{command.job}")
    options = (f"jobs.{command.job}", "parse_options", taken_options)
    if not hasattr(job, "parse_options"):
        options = (f"jobs.{command.job}", "parser_class", lambda: TakingParser)
    for module, name, stand_in in STAND_INS.get(command.job, [options]):
        monkeypatch.setattr(importlib.import_module(module), name, stand_in)
    monkeypatch.setattr(sys, "argv", [f"{command.job}.py", *command.arguments])
    with pytest.raises(Taken):
        job.main()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_lead_to_files(page: Path):
    dead = [link for link in _LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert dead == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_a_part_of_a_page_lead_to_its_heading(page: Path):
    for place, anchor in re.findall(r"\]\((?!\w+:)([^)#\s]*)#([^)\s]+)\)", page.read_text()):
        target = page if not place else page.parent / place
        headings = re.findall(r"^#+ (.*)$", _BLOCK.sub("", target.read_text()), re.M)
        assert anchor in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}
