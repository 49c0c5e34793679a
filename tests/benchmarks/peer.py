"""A peer in an environment of its own: made once, pinned by name and version, asked over a pipe.

`tests/benchmarks/peers/<name>.txt` says what is installed, `<name>.py` is the program that runs
there: it answers each line of JSON on its standard input with one on its standard output.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import figures

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE.parents[1] / "build" / "benchmarks"


class PeerFailed(Exception):
    """The peer has no figure; the message says why."""


class Peer:
    """A running peer.

    Raises
    ------
    PeerFailed
        Its environment cannot be made.
    """

    def __init__(self, name: str, *arguments: str):
        self.name = name
        python = environment(name)
        program = HERE / "peers" / f"{name.replace('-', '_')}_peer.py"
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        # Without this process's paths: the peer sees its own packages only.
        clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        self._process = subprocess.Popen(
            [str(python), "-W", "ignore", str(program), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=clean,
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Its answer.

        Raises
        ------
        PeerFailed
            It ended instead; the message is the last line of what it said.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except OSError:
            answer = ""
        if not answer:
            self._process.wait()
            self._errors.seek(0)
            said = self._errors.read().strip().splitlines() or ["it said nothing"]
            raise PeerFailed(f"{self.name} ended with code {self._process.returncode}: {said[-1]}")
        return json.loads(answer)

    def close(self) -> None:
        """End it."""
        self._process.communicate()
        self._errors.close()


def environment(name: str) -> Path:
    """The Python of the peer's environment, which is made where it is not there."""
    requirements = HERE / "peers" / f"{name}.txt"
    folder = ENVIRONMENTS / name
    python, mark = folder / "bin" / "python", folder / "installed.txt"
    wanted = requirements.read_text()
    if mark.exists() and mark.read_text() == wanted:
        return python
    figures.say(f"installing {name} into {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    commands = [
        [sys.executable, "-m", "venv", str(folder)],
        # The file names all that is needed; some peers ask for every cloud's library besides.
        [
            *(str(python), "-m", "pip", "install", "--quiet", "--no-deps"),
            *("--requirement", str(requirements)),
        ],
    ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
            raise PeerFailed(f"{name} could not be installed: {said[-1]}")
    mark.write_text(wanted)
    return python
