"""The Dockerfile has a base of a fixed version, a user other than root, and existing files."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.conftest import ROOT


@pytest.fixture
def steps() -> list[tuple[str, str]]:
    """Return (instruction, argument) in order, with continued lines joined."""
    text = (ROOT / "infra" / "Dockerfile").read_text()
    lines = re.sub(r"\\\n", " ", text).splitlines()
    lines = [line for line in lines if line.strip() and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def arguments(steps: list[tuple[str, str]], instruction: str) -> list[str]:
    return [argument for name, argument in steps if name == instruction]


def test_the_base_is_a_plain_name_of_a_fixed_python(steps: list[tuple[str, str]]) -> None:
    assert arguments(steps, "FROM") == ["python:3.11-slim"]


def test_the_process_is_not_root(steps: list[tuple[str, str]]) -> None:
    names = [name for name, _ in steps]
    assert arguments(steps, "USER") == ["1000"]
    assert names.index("USER") > max(i for i, name in enumerate(names) if name == "RUN")
    assert any("useradd" in command and "--uid 1000" in command for command in run(steps))


def run(steps: list[tuple[str, str]]) -> list[str]:
    return arguments(steps, "RUN")


def test_every_command_can_be_read_by_a_shell_and_leaves_no_caches(
    steps: list[tuple[str, str]],
) -> None:
    for command in run(steps):
        checked = subprocess.run(["sh", "-n", "-c", command], capture_output=True, text=True)
        assert checked.returncode == 0, f"{command}: {checked.stderr}"
        if "apt-get install" in command:
            assert "--no-install-recommends" in command
            assert "rm -rf /var/lib/apt/lists/*" in command
    assert any("PIP_NO_CACHE_DIR=1" in argument for argument in arguments(steps, "ENV"))


def test_packages_are_those_of_the_constraints(steps: list[tuple[str, str]]) -> None:
    installs = [command for command in run(steps) if "pip install" in command]
    assert len(installs) == 2
    assert all("--constraint constraints.txt" in command for command in installs)


def test_what_is_copied_exists_and_is_not_ignored(steps: list[tuple[str, str]]) -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".git", ".venv"} <= set(ignored)
    assert not [name for name, _ in steps if name == "ADD"]
    copied = [part for argument in arguments(steps, "COPY") for part in argument.split()[:-1]]
    assert {"pipelines", "gmg_model", "jobs", "constraints.txt"} <= set(copied)
    for name in copied:
        assert (ROOT / name).exists()
        assert name not in ignored
