"""A training that is asked to end, or cannot go on: its last checkpoint, exit code and words."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.training import checkpoints, run
from jobs.training.board import Progress
from jobs.training.ending import causes
from jobs.training.job import train
from jobs.training.notices import Notices
from jobs.training.options import CheckpointOptions, TrainingOptions, TrainOptions
from jobs.training.run_options import ElasticOptions
from pipelines.errors import PlatformError
from tests.processes import Family
from tests.training_runs import (
    ROOT,
    has_checkpoint,
    losses,
    small_options,
    wait_until,
    write_config,
)


@pytest.fixture
def options(traffic_store: str, tmp_path: Path) -> TrainOptions:
    """A run in float32 that would go on for a long time."""
    return small_options(
        traffic_store,
        str(tmp_path / "run"),
        training=TrainingOptions(epochs=2000, global_batch=9, learning_rate=3e-3, seed=3),
        checkpoints=CheckpointOptions(keep=20, max_failures=0),
        elastic=ElasticOptions(stop_grace=120),
    )


@pytest.fixture
def family() -> Iterator[Family]:
    """The processes of one job; none is left at the end."""
    family = Family()
    yield family
    family.end(0)


@pytest.mark.usefixtures("ray_cluster")
def test_sigterm_ends_with_143_after_a_checkpoint_that_one_worker_goes_on_from_as_two(
    options: TrainOptions, family: Family, tmp_path: Path
) -> None:
    command = [sys.executable, "jobs/train_weatherbench.py"]
    command += ["--config", write_config(options, tmp_path)]
    with (tmp_path / "log").open("w") as log:
        environment = os.environ | family.environment
        driver = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    wait_until(lambda: has_checkpoint(options.run, 24), "the first epoch", 300)
    family.alive()
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(timeout=300) == 143
    said = (tmp_path / "log").read_text()
    last = checkpoints.list_checkpoints(options.run)[-1]
    assert "SIGTERM: ending after a last checkpoint, within 120 s" in said
    assert f"error: ended by SIGTERM, after a last checkpoint (step {last.step})" in said
    assert f"the last checkpoint is {last.uri} (step {last.step})" in said
    assert "python jobs/train_weatherbench.py --config" in said
    assert "Traceback" not in said
    assert len(losses(options.run)) == last.step
    assert family.end(30) == []

    first: dict[int, dict[str, Any]] = {}
    for workers in (1, 2):
        copy = str(tmp_path / f"on_{workers}")
        shutil.copytree(options.run, copy)
        training = dataclasses.replace(options.training, epochs=last.step // 24 + 1)
        train(dataclasses.replace(options, run=copy, workers=workers, training=training))
        first[workers] = run.read_history(copy)[last.step]
    assert first[1]["windows"] == first[2]["windows"]
    assert first[1]["loss"] == pytest.approx(first[2]["loss"], rel=1e-5)
    assert (first[1]["workers"], first[2]["workers"]) == (1, 2)


def failing_at(step: int) -> Callable[[dict[str, Any]], None]:
    """An entry of workers whose second one fails before a step is trained."""

    def entry(settings: dict[str, Any]) -> None:
        from jobs.training import worker

        train_step = worker.Worker.train_step

        def failing(self: Any, batch: Any) -> None:
            if (self.step, self.rank) == (step, 1):
                raise RuntimeError("the device has fallen off the bus")
            train_step(self, batch)

        worker.Worker.train_step = failing
        worker.train_worker(settings)

    return entry


@pytest.mark.usefixtures("ray_cluster")
def test_a_used_up_budget_names_the_worker_its_node_and_step_the_checkpoint_and_the_command(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.training.worker.train_worker", failing_at(26))
    monkeypatch.setattr(sys, "argv", ["jobs/train_weatherbench.py", "--run", "my run"])
    with pytest.raises(PlatformError) as ended:
        train(options)
    message = str(ended.value)
    assert "training failed more than 0 times, at last with: " in message
    assert "RuntimeError: the device has fallen off the bus" in message
    assert "worker 1 on " in message
    assert f"the last checkpoint is {options.run}/step_000000024 (step 24)" in message
    assert "--checkpoints.max_failures allows more" in message
    assert "python jobs/train_weatherbench.py --run 'my run'" in message


@pytest.mark.usefixtures("ray_cluster")
def test_a_run_that_finds_no_room_says_so_with_numbers_and_ends(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "1")
    others = placement_group([{"CPU": 3}])
    ray.get(others.ready())
    try:
        with pytest.raises(PlatformError) as ended:
            train(dataclasses.replace(options, elastic=ElasticOptions(start_wait=1)))
    finally:
        remove_placement_group(others)
    shortage = "2 worker(s) of 1 CPU are needed, the cluster's 1 node(s) have room for 4"
    assert f"no room for the workers within 1 s: {shortage} (4 CPU of which 1 free)" in str(
        ended.value
    )
    assert "end other jobs" in str(ended.value)
    assert f"waiting for room: {shortage}" in capsys.readouterr().err


def test_the_worker_that_died_is_named_and_not_those_that_noticed() -> None:
    from ray.exceptions import RayActorError
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
    from ray.train.v2.api.exceptions import WorkerGroupError

    gone = "The actor died.\n\tclass_name: RayTrainWorker\n\tactor_id: 0102\nIts node is gone."
    dead = WorkerHealthCheckFailedError("no answer", RayActorError(error_msg=gone))
    noticed = RuntimeError("connection closed by peer")
    error = WorkerGroupError("", {0: noticed, 2: dead})
    told = causes(error, Progress(17, None, {0: "10.0.0.1", 2: "10.0.0.3"}))
    expected = (
        "worker 2 on 10.0.0.3: RayActorError: The actor died. Its node is gone. (near step 17)"
    )
    assert told == expected
    told = causes(WorkerGroupError("", {0: noticed}), Progress(None, None, {}))
    assert told == "worker 0: RuntimeError: connection closed by peer"


def test_workers_on_gpus_hear_what_the_step_before_said_and_a_wish_ends_with_its_checkpoint() -> (
    None
):
    notices = Notices(None, 1, torch.device("cuda"), lambda: 0.0)
    assert notices.flags() == (0.0, 0.0)
    notices.hear(torch.tensor([0.0, 2.0]))
    assert not notices.stop
    notices.hear(torch.tensor([0.0, 0.0]))
    assert notices.stop
    assert notices.checkpoint
    notices.written()
    notices.hear(torch.tensor([0.0, 0.0]))
    assert notices.stop
    assert not notices.checkpoint
