"""Curves on a real MLflow server: each point is sent once, and a missing server is reported.

MLflow's packages do not fit beside this project's versions, so the server comes from an environment
of its own. Name its program in GMG_MLFLOW (python -m venv DIR && DIR/bin/pip install mlflow).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.training.driver.job import train
from jobs.training.options import TrackingOptions, TrainingOptions, TrainOptions
from jobs.training.run import run_folder
from jobs.training.run.mlflow import MLflowRun, ServerError, check_server
from jobs.training.run.tensorboard import TAGS
from pipelines.errors import UsageError
from tests.support.processes.processes import nobody_listens
from tests.support.processes.training_runs import small_options, wait_until

PLACE = "s3://bucket/runs/first"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start an MLflow server on loopback; yield its address."""
    program = os.environ.get("GMG_MLFLOW") or shutil.which("mlflow")
    if program is None:
        pytest.skip("no MLflow: name its program in GMG_MLFLOW")
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    address = f"http://127.0.0.1:{port}"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [
                *(program, "server", "--host", "127.0.0.1", "--port", str(port)),
                *("--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"),
            ],
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_until(lambda: answers(f"{address}/health"), "the MLflow server")
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait()


def answers(url: str) -> bool:
    try:
        return urllib.request.urlopen(url, timeout=2).status == 200
    except OSError:
        return False


def ask(server: str, what: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{server}/api/2.0/mlflow/{what}", timeout=20) as answer:
        return json.loads(answer.read())


def shown_run(server: str, experiment: str) -> dict[str, Any]:
    """Return the only run of an experiment."""
    found = ask(server, "experiments/search?max_results=10")["experiments"]
    (experiment_id,) = [item["experiment_id"] for item in found if item["name"] == experiment]
    request = urllib.request.Request(
        f"{server}/api/2.0/mlflow/runs/search",
        data=json.dumps({"experiment_ids": [experiment_id]}).encode(),
        headers={"Content-Type": "application/json"},
    )
    (shown,) = json.loads(urllib.request.urlopen(request, timeout=20).read())["runs"]
    return shown


def shown_curve(server: str, shown: dict[str, Any], field: str) -> list[tuple[int, float]]:
    """Return (step, value) of every point, in the order in which the server keeps them."""
    query = f"run_id={shown['info']['run_id']}&metric_key={TAGS[field]}&max_results=1000"
    points = ask(server, f"metrics/get-history?{query}")["metrics"]
    return [(int(point.get("step", 0)), point["value"]) for point in points]


def steps(first: int, last: int) -> list[dict[str, Any]]:
    return [
        {"step": step, "loss": 1 / (step + 1), "learning_rate": 1e-3, "time": 1.8e9 + step}
        for step in range(first, last)
    ]


def test_a_resumed_run_sends_every_step_once(server: str) -> None:
    check_server(server, "weather")
    first = MLflowRun(server, "weather", PLACE)
    first.open({"training.epochs": 3, "data.variables": ["t2m"], "model.options": "x" * 5000})
    first.log(steps(0, 300))

    second = MLflowRun(server, "weather", PLACE)
    second.open({})
    assert second.logged == 300
    second.log(steps(0, 310))  # what the history holds; the server has most of it
    second.log(steps(310, 320))
    second.finish()

    shown = shown_run(server, "weather")
    assert shown["info"]["run_name"] == "first"
    assert shown["info"]["status"] == "FINISHED"
    parameters = {item["key"]: item["value"] for item in shown["data"]["params"]}
    assert parameters["training.epochs"] == "3"
    curve = shown_curve(server, shown, "loss")
    assert [step for step, _ in curve] == list(range(320))
    assert curve[9][1] == pytest.approx(0.1)


def test_a_training_sends_losses_and_validations_and_ends_as_finished(
    server: str, ray_cluster: None, traffic_store: str, tmp_path: Path
) -> None:
    options = small_options(
        traffic_store,
        str(tmp_path / "run"),
        workers=1,
        training=TrainingOptions(epochs=1, global_batch=9, learning_rate=3e-3, precision="fp64"),
        tracking=TrackingOptions(mlflow_uri=server, mlflow_experiment="traffic"),
    )
    train(options)
    shown = shown_run(server, "traffic")
    assert shown["info"]["status"] == "FINISHED"
    parameters = {item["key"]: item["value"] for item in shown["data"]["params"]}
    assert parameters["training.learning_rate"] == "0.003"
    history = run_folder.read_history(options.run)
    assert len(history) > 20
    for field in ("loss", "validation_loss"):
        expected = [(item["step"], item[field]) for item in history if field in item]
        curve = shown_curve(server, shown, field)
        assert [step for step, _ in curve] == [step for step, _ in expected]
        assert [value for _, value in curve] == pytest.approx([value for _, value in expected])


def test_a_missing_server_is_reported_before_the_training(tmp_path: Path) -> None:
    with nobody_listens() as port:
        nowhere = f"http://127.0.0.1:{port}"
        with pytest.raises(UsageError, match="the MLflow server cannot be used") as refused:
            check_server(nowhere, "weather")
        assert f"where: {nowhere}" in str(refused.value)
        with pytest.raises(ServerError, match="experiments/get-by-name"):
            MLflowRun(nowhere, "weather", PLACE).open({})


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://ada:secret@host:5000", "must not carry credentials"),
        ("./mlruns", "not the address of a server"),
        ("file:///mlruns", "not the address of a server"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_without_showing_a_password(
    uri: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        TrainOptions("store", "run", tracking=TrackingOptions(mlflow_uri=uri))
    assert "secret" not in str(refused.value)
