"""`ray job submit` runs a training job on a running Ray, with token authentication on."""

from __future__ import annotations

import json
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

import numpy as np
import pytest

from tests.processes import Family
from tests.training_runs import ROOT, losses, small_options, wait_until, write_config

pytestmark = pytest.mark.cluster
BIN = Path(sys.executable).parent
ALONE = 10
"""seconds that Ray's processes may take to end after the head has"""


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
    family = Family()
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "2",
    }
    port, dashboard, agent = free_port(), free_port(), free_port()
    command = [
        *(str(BIN / "ray"), "start", "--head", "--block", "--port", str(port)),
        *("--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard)),
        *("--dashboard-agent-listen-port", str(agent)),
        *("--num-cpus", "2", "--object-store-memory", str(150 * 1024**2)),
        *("--node-ip-address", "127.0.0.1", "--disable-usage-stats"),
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, env=environment | family.environment, stdout=log, stderr=log, cwd=folder
        )
        try:
            address = f"http://127.0.0.1:{dashboard}"
            wait_until(lambda: answers(f"{address}/api/version"), "the job API")
            wait_until(lambda: answers(f"http://127.0.0.1:{agent}/"), "the agent that runs jobs")
            yield Head(address, environment)
            family.alive()
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)
            assert family.end(ALONE) == []
        finally:
            family.end(0)
            process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=2)
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
    command = ["python", "jobs/train_weatherbench.py", "--config", write_config(options, tmp_path)]
    done = submit(head, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trained 2 epochs" in done.stdout
    curve = losses(options.run)
    assert np.mean(curve[-10:]) < 0.7 * np.mean(curve[:10])

    again = submit(head, *command)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "nothing to do" in again.stdout


def test_a_job_runs_the_uploaded_code_with_the_python_of_the_head(head: Head) -> None:
    script = (
        "import json, os, sys; from pathlib import Path; import jobs, pipelines, gmg_model; "
        "files = [path for path in Path().rglob('*') if path.is_file()]; "
        "print(json.dumps({'here': os.getcwd(), 'python': sys.executable, "
        "'code': [package.__path__[0] for package in (jobs, pipelines, gmg_model)], "
        "'bytes': sum(path.stat().st_size for path in files), "
        "'names': sorted(path.name for path in Path().iterdir())}))"
    )
    done = submit(head, "python", "-c", script)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("{")]
    job = json.loads(line)
    assert job["python"] == sys.executable
    assert job["here"] != str(ROOT)
    assert job["code"] == [f"{job['here']}/{name}" for name in ("jobs", "pipelines", "gmg_model")]
    assert {"jobs", "pyproject.toml"} <= set(job["names"])
    assert not {".git", ".venv", "build"} & set(job["names"])
    assert job["bytes"] < 20e6


def test_a_job_that_is_refused_fails_and_shows_the_message(head: Head, tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere.zarr")
    run = str(tmp_path / "run")
    done = submit(head, "python", "jobs/train_weatherbench.py", "--store", nowhere, "--run", run)
    assert done.returncode == 1
    assert f"where: {nowhere}" in done.stdout + done.stderr
    assert "reprocess.py convert" in done.stdout + done.stderr


def test_a_client_without_the_token_is_turned_away(head: Head, tmp_path: Path) -> None:
    done = submit(
        head,
        *("python", "-c", "print('ran')"),
        RAY_AUTH_TOKEN_PATH=str(tmp_path / "none"),
    )
    assert done.returncode != 0
    assert "ran" not in done.stdout.splitlines()
    assert "token" in done.stdout + done.stderr
