"""A Ray head with its job API for tests, with ports, a folder and a token of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.processes.processes import Family
from tests.support.processes.training_runs import ROOT, wait_until

BIN = Path(sys.executable).parent
TOKEN = "a-token-of-this-test-only-0123456789"
ATTEMPTS = 3
"""attempts to start: another process may have taken a port that was free a moment ago, or Ray may
give up because its processes start too slowly"""
STARTED = "will now block forever"
"""text that `ray start` prints when all its processes run"""


@dataclass(frozen=True)
class Head:
    """A running Ray head."""

    api: str
    """address of the job API: http://HOST:PORT"""
    environment: dict[str, str]
    """environment variables of a client that has the token"""
    family: Family
    """all its processes, including those of other nodes on this machine"""
    _process: subprocess.Popen[bytes]

    def submit(
        self, *entrypoint: str, words: tuple[str, ...] = (), **environment: str
    ) -> subprocess.Popen[str]:
        """Run `ray job submit` with the project's folder; `words` stand before the command."""
        return self.client(
            *("job", "submit", "--working-dir", str(ROOT), *words, "--", *entrypoint),
            **environment,
        )

    def client(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        """Run `ray ...` as a user with the token does."""
        return subprocess.Popen(
            [str(BIN / "ray"), *words],
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def ask(self, path: str) -> Any:
        """Return the dashboard's answer to a GET request."""
        request = urllib.request.Request(
            f"{self.api}{path}", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def stop(self) -> None:
        """End the head with SIGTERM; processes that it leaves behind stay in `family`."""
        self.family.alive()  # remembers the processes before they become orphans
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(timeout=600)


def finished(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for a client, and return its exit code and output."""
    try:
        output, _ = process.communicate(timeout=600)
    finally:
        process.kill()
        process.wait()
    return process.returncode, output


@contextmanager
def ray_head(
    *words: str,
    environment: Mapping[str, str] | None = None,
    prepare: Callable[[Path, int], tuple[str, ...]] = lambda folder, port: (),
) -> Iterator[Head]:
    """Run `ray start --head`; at the end of the block, end the head and all its processes.

    Parameters
    ----------
    words
        Further options.
    environment
        Further environment variables of the head.
    prepare
        Gets a folder and the port of Ray's control service, and returns options that depend on
        them.
    """
    for attempt in range(ATTEMPTS):
        # Ray creates sockets in this folder, and paths of sockets must be short.
        folder = Path(tempfile.mkdtemp(prefix="h"))
        family = Family()
        process: subprocess.Popen[bytes] | None = None
        try:
            port, dashboard, agent, clients = free_ports(4)
            (folder / "token").write_text(TOKEN)
            api = f"http://127.0.0.1:{dashboard}"
            client = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {
                "PATH": f"{BIN}:{os.environ['PATH']}",
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
                "RAY_API_SERVER_ADDRESS": api,
                "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "2",
            }
            command = [
                *(str(BIN / "ray"), "start", "--head", "--block", "--port", str(port)),
                *("--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard)),
                *("--dashboard-agent-listen-port", str(agent)),
                *("--ray-client-server-port", str(clients)),
                *("--object-store-memory", str(150 * 1024**2), "--disable-usage-stats"),
                *("--temp-dir", str(folder / "ray"), *words, *prepare(folder, port)),
            ]
            with (folder / "log").open("w") as log:
                process = subprocess.Popen(
                    command,
                    env=client | family.environment | dict(environment or {}),
                    stdout=log,
                    stderr=log,
                    cwd=folder,
                )
            head = Head(api, client, family, process)

            def is_up(head: Head = head, agent: int = agent, log: Path = folder / "log") -> bool:
                if head._process.poll() is not None:
                    return True
                return STARTED in log.read_text() and all(
                    map(_answers, (f"{head.api}/api/version", f"http://127.0.0.1:{agent}/"))
                )

            wait_until(is_up, "the job API and the agent that runs jobs", seconds=300)
            if process.poll() is not None:
                text = (folder / "log").read_text()
                if attempt + 1 == ATTEMPTS:
                    raise RuntimeError(f"Ray's head ended at once:\n{text}")
                continue
            yield head
            return
        finally:
            family.end(0)
            if process:
                process.wait()
            shutil.rmtree(folder, ignore_errors=True)


def free_ports(number: int) -> list[int]:
    """Return different ports on which no process listens now."""
    probes = [socket.socket() for _ in range(number)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=10)
    except urllib.error.HTTPError:
        return True  # it runs and asks for the token
    except OSError:
        return False
    return True
