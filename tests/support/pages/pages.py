"""The documentation pages, and their blocks of commands and of Python."""

from __future__ import annotations

import re
from pathlib import Path

from tests.conftest import ROOT

DOCS = ROOT / "docs"
PAGES = (ROOT / "README.md", *sorted(DOCS.glob("*.md")))
"""pages that users read"""
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


def page_commands(page: Path) -> list[str]:
    """Return the commands in a page's shell blocks, with continued lines joined.

    A shell block is a code block without a language, or an indented line that runs a job.
    """
    text = re.sub(r"^ {4}(python jobs/.*\n)", r"```\n\1```\n", page.read_text(), flags=re.M)
    blocks = (block for language, block in BLOCK.findall(text) if not language)
    lines = "".join(re.sub(r" *\\\n *", " ", block) for block in blocks).splitlines()
    commands = (line.partition("  # ")[0].strip().removeprefix("$ ") for line in lines)
    return [command for command in commands if command]


def page_python(page: Path) -> list[str]:
    """Return the Python blocks of a page."""
    return [text for language, text in BLOCK.findall(page.read_text()) if language == "python"]
