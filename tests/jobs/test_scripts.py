"""Every job is a program: most tests call its `main`, these start it as a user does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes.training_runs import ROOT

JOBS = sorted(
    path.name
    for path in (ROOT / "jobs").glob("*.py")
    if "__main__" in path.read_text() and path.name != "console.py"
)


@pytest.mark.parametrize("name", JOBS)
def test_a_job_runs_from_any_folder_and_says_what_it_takes(name: str, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "jobs" / name), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"usage: {name}" in done.stdout
    assert list(tmp_path.iterdir()) == []
