"""The last checkpoint, exit code and messages of a training that is stopped or that fails."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from jobs.training.driver.ending import describe_failures, limit_error, stopping_on_sigterm
from jobs.training.driver.job import train
from jobs.training.driver.policies import FailureCounts
from jobs.training.options import CheckpointOptions, TrainingOptions, TrainOptions
from jobs.training.run import checkpoints, run_folder
from jobs.training.run_options import ElasticOptions
from jobs.training.status_board import StatusBoard, TrainingStatus
from jobs.training.worker.requests import Requests
from pipelines.errors import PlatformError
from tests.support.processes.processes import Family
from tests.support.processes.training_runs import (
    ROOT,
    has_checkpoint,
    losses,
    small_options,
    wait_until,
    write_config,
)


class Stopped(NamedTuple):
    """A job that was ended by SIGTERM in its second epoch."""

    options: TrainOptions
    code: int
    log: str
    left: list[str]
    """titles of the processes that it left behind"""
    last: checkpoints.Checkpoint


@pytest.fixture(scope="module")
def stopped(traffic_store: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stopped]:
    """Train in float32 on two workers, and stop the training long before its end."""
    folder = tmp_path_factory.mktemp("stopped")
    options = small_options(
        traffic_store,
        str(folder / "run"),
        training=TrainingOptions(epochs=2000, global_batch=9, learning_rate=3e-3, seed=3),
        checkpoints=CheckpointOptions(keep=20, max_failures=0),
        elastic=ElasticOptions(stop_grace=120),
    )
    family = Family()
    command = [sys.executable, "jobs/train_weatherbench.py"]
    command += ["--config", write_config(options, folder)]
    environment = os.environ | family.environment
    try:
        with (folder / "log").open("w") as log:
            driver = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        wait_until(lambda: has_checkpoint(options.run, 24), "the first epoch", 300)
        family.alive()
        driver.send_signal(signal.SIGTERM)
        code = driver.wait(timeout=300)
        last = checkpoints.list_checkpoints(options.run)[-1]
        yield Stopped(options, code, (folder / "log").read_text(), family.end(30), last)
    finally:
        family.end(0)


def test_sigterm_leaves_a_checkpoint_and_exit_code_143(stopped: Stopped) -> None:
    last = stopped.last
    assert stopped.code == 143
    assert "SIGTERM: ending after a last checkpoint, within 120 s" in stopped.log
    assert f"error: ended by SIGTERM, after a last checkpoint (step {last.step})" in stopped.log
    assert f"the last checkpoint is {last.uri} (step {last.step})" in stopped.log
    assert "python jobs/train_weatherbench.py --config" in stopped.log
    assert "Traceback" not in stopped.log
    assert len(losses(stopped.options.run)) == last.step
    assert stopped.left == []


def going_on(stopped: Stopped, run_uri: str, workers: int) -> TrainOptions:
    """Copy the stopped run, and return options that resume it until the end of the next epoch."""
    shutil.copytree(stopped.options.run, run_uri)
    training = stopped.options.training
    return dataclasses.replace(
        stopped.options,
        run=run_uri,
        workers=workers,
        training=dataclasses.replace(training, epochs=stopped.last.epoch + 2),
        checkpoints=CheckpointOptions(every_steps=1, keep=20, max_failures=0),
    )


def failing_at(step: int, run_uri: str) -> Callable[[dict[str, Any]], None]:
    """Return a function for workers; the second one fails before `step`, after its checkpoint."""

    def entry(settings: dict[str, Any]) -> None:
        import time
        from pathlib import Path

        from jobs.training.worker import loop

        train_step = loop.Worker.train_step

        def failing(self: Any, batch: Any) -> None:
            if (self.step, self.rank) == (step, 1):
                while not Path(run_uri, f"step_{step:09d}", "checkpoint.json").exists():
                    time.sleep(0.02)
                raise RuntimeError("the device has fallen off the bus")
            train_step(self, batch)

        loop.Worker.train_step = failing
        loop.train_worker(settings)

    return entry


class Failed(NamedTuple):
    """The stopped run, resumed on two workers until one of them failed after a step."""

    run: str
    message: str


@pytest.fixture(scope="module")
def failed(stopped: Stopped, ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Failed:
    """Resume the stopped run on two workers, one of which fails after a step."""
    options = going_on(stopped, str(tmp_path_factory.mktemp("failed") / "run"), 2)
    with pytest.MonkeyPatch.context() as patch:
        entry = failing_at(stopped.last.step + 1, options.run)
        patch.setattr("jobs.training.worker.loop.train_worker", entry)
        patch.setattr(sys, "argv", ["jobs/train_weatherbench.py", "--run", "my run"])
        with pytest.raises(PlatformError) as ended:
            train(options)
    return Failed(options.run, str(ended.value))


def test_too_many_failures_name_worker_node_step_checkpoint_and_command(
    failed: Failed, stopped: Stopped
) -> None:
    step = stopped.last.step + 1
    assert "training failed more than 0 times, at last with: " in failed.message
    assert "RuntimeError: the device has fallen off the bus" in failed.message
    assert "worker 1 on " in failed.message
    assert f"last checkpoint is {failed.run}/step_{step:09d} (step {step})" in failed.message
    assert "--checkpoints.max_failures allows more" in failed.message
    assert "python jobs/train_weatherbench.py --run 'my run'" in failed.message


def test_one_worker_resumes_with_the_same_batches_and_loss_as_two(
    failed: Failed, stopped: Stopped, tmp_path: Path
) -> None:
    alone = going_on(stopped, str(tmp_path / "alone"), 1)
    train(alone)
    of_one, of_two = (
        run_folder.read_history(uri)[stopped.last.step] for uri in (alone.run, failed.run)
    )
    assert (of_one["workers"], of_two["workers"]) == (1, 2)
    assert of_one["windows"] == of_two["windows"]
    assert of_one["loss"] == pytest.approx(of_two["loss"], rel=1e-5)


@pytest.mark.usefixtures("ray_cluster")
def test_a_run_without_room_ends_and_states_the_numbers(
    traffic_store: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "1")
    others = placement_group([{"CPU": 3}])
    ray.get(others.ready())
    try:
        with pytest.raises(PlatformError) as ended:
            train(
                small_options(
                    traffic_store, str(tmp_path / "run"), elastic=ElasticOptions(start_wait=1)
                )
            )
    finally:
        remove_placement_group(others)
    shortage = (
        "the job asks for 2 x 1 CPU, and the cluster has room for 4 "
        "(4 CPU on 1 node(s), 1 CPU free)"
    )
    assert f"no room for the workers within 1 s: {shortage}" in str(ended.value)
    assert "end other jobs" in str(ended.value)
    assert f"waiting for room: {shortage}" in capsys.readouterr().err


@pytest.fixture
def board(ray_cluster: None) -> Iterator[Any]:
    """Start a status board in an actor of its own."""
    import ray

    board: Any = ray.remote(num_cpus=0)(StatusBoard).remote()
    yield board
    ray.kill(board)


def test_preemptions_and_failures_have_separate_limits(board: Any) -> None:
    import ray
    from ray.train import FailureConfig
    from ray.train.v2._internal.execution.failure_handling import FailureDecision
    from ray.train.v2.api.exceptions import WorkerGroupError

    options = TrainOptions(
        store="store.zarr",
        run="run",
        checkpoints=CheckpointOptions(max_failures=1),
        elastic=ElasticOptions(max_preemptions=1),
    )
    config = FailureConfig(max_failures=1, max_preemption_failures=1)
    failures = FailureCounts(config, board, options)
    broken = WorkerGroupError("", {0: RuntimeError("connection closed by peer")})

    def decided(announced: bool) -> FailureDecision:
        ray.get(board.start_group.remote())
        if announced:
            ray.get(board.set_node_leaving.remote("a node is to be taken away"))
        return failures.make_decision(broken)

    once = [decided(announced=True), decided(announced=False)]
    assert once == [FailureDecision.RETRY] * 2
    assert decided(announced=True) == FailureDecision.RAISE
    message = str(limit_error(options, broken, ray.get(board.status.remote())))
    assert "nodes were taken away more than 1 times" in message
    assert "--elastic.max_preemptions allows more" in message
    assert decided(announced=False) == FailureDecision.RAISE
    message = str(limit_error(options, broken, ray.get(board.status.remote())))
    assert "training failed more than 1 times" in message
    lines: Any = ray.get(board.take_lines.remote())
    assert [line for line in lines if "is to be taken away" not in line] == [
        "a node is gone as announced (it was taken away): no failure counted",
        "failure 1 of at most 1: worker 0: RuntimeError: connection closed by peer",
    ]


def test_a_stop_that_takes_longer_than_its_grace_time_becomes_an_interrupt(board: Any) -> None:
    import ray

    def training() -> None:
        with stopping_on_sigterm(board, 0.0):
            os.kill(os.getpid(), signal.SIGTERM)
            wait_until(lambda: False, "the interrupt")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            training()
    finally:
        signal.signal(signal.SIGINT, before)
    assert ray.get(board.is_stopping.remote())


def test_the_dead_worker_is_named_but_not_those_that_lost_its_connection() -> None:
    from ray.exceptions import RayActorError
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
    from ray.train.v2.api.exceptions import WorkerGroupError

    gone = "The actor died.\n\tclass_name: RayTrainWorker\n\tactor_id: 0102\nIts node is gone."
    dead = WorkerHealthCheckFailedError("no answer", RayActorError(error_msg=gone))
    noticed = RuntimeError("connection closed by peer")
    error = WorkerGroupError("", {0: noticed, 2: dead})
    message = describe_failures(error, TrainingStatus(17, None, {0: "10.0.0.1", 2: "10.0.0.3"}))
    expected = (
        "worker 2 on 10.0.0.3: RayActorError: The actor died. Its node is gone. (near step 17)"
    )
    assert message == expected
    message = describe_failures(WorkerGroupError("", {0: noticed}), TrainingStatus(None, None, {}))
    assert message == "worker 0: RuntimeError: connection closed by peer"


def test_workers_on_gpus_apply_the_flags_of_the_step_before() -> None:
    requests = Requests(None, 1, torch.device("cuda"), lambda: 0.0)
    assert requests.flags() == (0.0, 0.0)
    requests.apply(torch.tensor([0.0, 2.0]))
    assert not requests.stop
    requests.apply(torch.tensor([0.0, 0.0]))
    assert requests.stop
    assert requests.checkpoint
    requests.fulfil()
    requests.apply(torch.tensor([0.0, 0.0]))
    assert requests.stop
    assert not requests.checkpoint
