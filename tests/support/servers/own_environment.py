"""Separate Python environments for servers whose packages conflict with those of this project.

Each environment is made once under `build`, with the versions in its file of constraints.
"""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


def python_of(name: str, packages: tuple[str, ...]) -> Path:
    """Return the interpreter of environment `name`; make the environment if it is missing.

    `<name>-constraints.txt`, beside this file, gives the versions; other versions need another
    environment. The test is skipped, with the reason, if they cannot be installed.
    """
    constraints = Path(__file__).with_name(f"{name}-constraints.txt")
    wanted = hashlib.sha256(constraints.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = ROOT / "build" / f"{name}-{wanted}"
    python, done = folder / "bin" / "python", folder / "complete"
    folder.parent.mkdir(exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several pytest processes may make it at once
        if not done.exists():
            _make(name, folder, python, constraints, packages)
            done.touch()
    return python


def _make(
    name: str, folder: Path, python: Path, constraints: Path, packages: tuple[str, ...]
) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", folder], check=True)
    install = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--python", str(python), "install"),
            *("--quiet", "--no-compile", "--retries", "1", "--disable-pip-version-check"),
            *("--constraint", str(constraints), *packages),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if install.returncode:
        reason = install.stderr.strip().splitlines()[-1]
        pytest.skip(f"{name} cannot be installed from the package index: {reason}")
