"""Python environments of their own for servers whose packages this project cannot have beside it.

Each is made once under ``build``, with the versions that its file of constraints names.
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
    """The interpreter of environment ``name``, which is made if there is none of these versions.

    ``<name>-constraints.txt``, beside this file, gives the versions. The test is skipped, with the
    reason, where they cannot be installed.
    """
    constraints = Path(__file__).with_name(f"{name}-constraints.txt")
    wanted = hashlib.sha256(constraints.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = ROOT / "build" / f"{name}-{wanted}"
    python, done = folder / "bin" / "python", folder / "complete"
    folder.parent.mkdir(exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests may run in several processes
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
