"""A job that runs other jobs passes SIGTERM on, and ends after the job that runs."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.processes.processes import Family

JOB = """
import signal, sys, time
from pathlib import Path

folder = Path(__file__).parent

def last_words(number, frame):
    (folder / "last").write_text("checkpoint")
    sys.exit(128 + number)

signal.signal(signal.SIGTERM, last_words)
(folder / "began").write_text("")
while True:
    time.sleep(0.05)
"""
PARENT = """
import sys
from pathlib import Path
from jobs import steps
from jobs.command_line import main_guard

steps.JOBS = Path(sys.argv[1])

def main():
    steps.job("long.py")
    steps.job("next.py")

main_guard(main)
"""


@pytest.fixture
def family():
    started = Family()
    yield started
    assert started.end(60.0) == []


def test_sigterm_reaches_the_running_job_and_no_other_job_starts(
    tmp_path: Path, family: Family, monkeypatch: pytest.MonkeyPatch
):
    for name, value in family.environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "long.py").write_text(JOB)
    (tmp_path / "next.py").write_text(JOB.replace("began", "next"))
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)])
    while not (tmp_path / "began").exists():
        assert parent.poll() is None
        time.sleep(0.02)
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(60.0) == 128 + signal.SIGTERM
    assert (tmp_path / "last").read_text() == "checkpoint"
    assert not (tmp_path / "next").exists()
