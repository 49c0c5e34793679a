"""`ray job submit` runs a training job on a running Ray, with token authentication on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.training_runs import ROOT, losses, small_options, wait_until

pytestmark = pytest.mark.cluster
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Head:
    """A Ray head with its job API."""

    address: str
    environment: dict[str, str]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """`ray start --head`, ended with everything that it started."""
    folder = tmp_path_factory.mktemp("head")
    token = folder / "token"
    token.write_text("a-token-of-this-test-only-0123456789")
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
    }
    port, dashboard = free_port(), free_port()
    command = [
        *(str(BIN / "ray"), "start", "--head", "--block", "--port", str(port)),
        *("--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard)),
        *("--num-cpus", "2", "--object-store-memory", str(150 * 1024**2)),
        *("--node-ip-address", "127.0.0.1", "--disable-usage-stats"),
    ]
    address = f"http://127.0.0.1:{dashboard}"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
        try:
            wait_until(lambda: answers(address), "the job API")
            yield Head(address, environment)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(address: str) -> bool:
    try:
        urllib.request.urlopen(f"{address}/api/version", timeout=2)
    except urllib.error.HTTPError:
        return True  # it wants the token
    except OSError:
        return False
    return True


def submit(head: Head, *entrypoint: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(str(BIN / "ray"), "job", "submit", "--address", head.address),
            *("--working-dir", str(ROOT), "--", *entrypoint),
        ],
        env=head.environment | environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_a_submitted_training_job_trains_to_the_end(
    head: Head, traffic_store: str, tmp_path: Path
) -> None:
    options = small_options(traffic_store, str(tmp_path / "run"))
    config = tmp_path / "options.yaml"
    config.write_text(yaml.safe_dump(options.as_dict()))
    done = submit(head, "python", "jobs/train_weatherbench.py", "--config", str(config))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trained 2 epochs" in done.stdout
    assert losses(options.run)

    again = submit(head, "python", "jobs/train_weatherbench.py", "--config", str(config))
    assert again.returncode == 0, again.stdout + again.stderr
    assert "nothing to do" in again.stdout


def test_a_job_that_is_refused_fails_and_shows_the_message(head: Head, tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere.zarr")
    done = submit(
        head, "python", "jobs/train_weatherbench.py", "--store", nowhere, "--run", str(tmp_path)
    )
    assert done.returncode == 1
    assert nowhere in done.stdout + done.stderr
    assert "reprocess.py convert" in done.stdout + done.stderr


def test_a_client_without_the_token_is_turned_away(head: Head, tmp_path: Path) -> None:
    done = submit(
        head,
        *("python", "-c", "print('ran')"),
        RAY_AUTH_TOKEN_PATH=str(tmp_path / "none"),
    )
    assert done.returncode != 0
    assert "ran" not in done.stdout.splitlines()
