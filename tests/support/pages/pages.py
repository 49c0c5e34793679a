"""The pages, and the blocks of commands and of Python on them."""

from __future__ import annotations

import re
from pathlib import Path

from tests.conftest import ROOT

DOCS = ROOT / "docs"
PAGES = (ROOT / "README.md", *sorted(DOCS.glob("*.md")))
"""those that users read"""
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


def page_commands(page: Path) -> list[str]:
    """The commands in a page's shell blocks, which name no language; several lines are joined.

    A job on an indented line is such a block as well.
    """
    text = re.sub(r"^ {4}(python jobs/.*\n)", r"```\n\1```\n", page.read_text(), flags=re.M)
    blocks = (block for language, block in BLOCK.findall(text) if not language)
    lines = "".join(re.sub(r" *\\\n *", " ", block) for block in blocks).splitlines()
    commands = (line.partition("  # ")[0].strip().removeprefix("$ ") for line in lines)
    return [command for command in commands if command]


def page_python(page: Path) -> list[str]:
    """A page's blocks of Python."""
    return [text for language, text in BLOCK.findall(page.read_text()) if language == "python"]
