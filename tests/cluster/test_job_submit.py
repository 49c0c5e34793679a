"""`ray job submit` runs a training job on a running Ray, with token authentication on."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.training.run import checkpoints
from jobs.training.run_options import CheckpointOptions
from tests.support.processes.ray_head import Head, finished, ray_head
from tests.support.processes.training_runs import (
    ROOT,
    has_checkpoint,
    losses,
    small_options,
    wait_until,
    write_config,
)

ALONE = 120
"""seconds within which Ray's processes must end after the head has ended"""


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """Start a head with CPUs for two workers and a reading task, and end all its processes."""
    with ray_head("--num-cpus", "3", "--node-ip-address", "127.0.0.1") as head:
        yield head
        head.stop()
        assert head.family.end(ALONE) == []


def test_a_job_that_is_stopped_writes_a_last_checkpoint_and_the_next_one_trains_to_the_end(
    head: Head, traffic_store: str, tmp_path: Path
) -> None:
    options = small_options(traffic_store, str(tmp_path / "run"))
    endless = dataclasses.replace(options.training, epochs=10_000)
    elastic = dataclasses.replace(options.elastic, stop_grace=290)
    options = dataclasses.replace(
        options, training=endless, elastic=elastic, checkpoints=CheckpointOptions(every_steps=0)
    )
    patient = json.dumps({"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "300"}})
    words = ("--submission-id", "stopped", "--no-wait", "--runtime-env-json", patient)
    command = ["python", "jobs/train_weatherbench.py", "--config", write_config(options, tmp_path)]
    code, output = finished(head.submit(*command, words=words))
    assert code == 0, output
    wait_until(lambda: has_checkpoint(options.run, 24), "the first epoch")
    code, output = finished(head.client("job", "stop", "stopped"))
    assert code == 0, output
    assert "was stopped" in finished(head.client("job", "status", "stopped"))[1]
    _, output = finished(head.client("job", "logs", "stopped"))
    assert "ended by SIGTERM, after a last checkpoint" in output
    assert "the same command goes on" in output
    (last,) = checkpoints.list_checkpoints(options.run)[-1:]
    assert f"(step {last.step})" in output

    # The next job uses the other transport, which does not change any batch.
    shorter = dataclasses.replace(endless, epochs=last.epoch + 1)
    again = write_config(dataclasses.replace(options, training=shorter), tmp_path)
    code, output = finished(head.submit(*command[:-1], again, "--data.transport", "ray"))
    assert code == 0, output
    assert f"trained {last.epoch + 1} epochs" in output
    assert len(losses(options.run)) == 24 * (last.epoch + 1)


def test_a_job_runs_the_uploaded_code_with_the_python_of_the_head(head: Head) -> None:
    script = (
        "import json, os, sys; from pathlib import Path; import jobs, pipelines, gmg_model; "
        "files = [path for path in Path().rglob('*') if path.is_file()]; "
        "print(json.dumps({'here': os.getcwd(), 'python': sys.executable, "
        "'code': [package.__path__[0] for package in (jobs, pipelines, gmg_model)], "
        "'bytes': sum(path.stat().st_size for path in files), "
        "'names': sorted(path.name for path in Path().iterdir())}))"
    )
    code, output = finished(head.submit("python", "-c", script))
    assert code == 0, output
    (line,) = [line for line in output.splitlines() if line.startswith("{")]
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
    code, output = finished(
        head.submit("python", "jobs/train_weatherbench.py", "--store", nowhere, "--run", run)
    )
    assert code == 1
    assert f"where: {nowhere}" in output
    assert "reprocess.py convert" in output


def test_a_client_without_the_token_is_turned_away(head: Head, tmp_path: Path) -> None:
    code, output = finished(
        head.submit("python", "-c", "print('ran')", RAY_AUTH_TOKEN_PATH=str(tmp_path / "none"))
    )
    assert code != 0
    assert "ran" not in output.splitlines()
    assert "token" in output
