"""A training run that is killed anywhere gives the losses that it would have given."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
import yaml

from jobs.training import checkpoints
from jobs.training.job import train
from jobs.training.options import TrainOptions
from pipelines.errors import BusyError, StoreError
from tests.training_runs import (
    ROOT,
    has_checkpoint,
    kill_one_training_worker,
    losses,
    small_options,
    wait_until,
)

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module")
def options(traffic_store: str) -> TrainOptions:
    """Long enough to be killed in the middle of."""
    options = small_options(traffic_store, "unset")
    return dataclasses.replace(options, training=dataclasses.replace(options.training, epochs=5))


@pytest.fixture(scope="module")
def uninterrupted(options: TrainOptions, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses of the run that nothing disturbs."""
    options = dataclasses.replace(options, run=str(tmp_path_factory.mktemp("kills") / "whole"))
    train(options)
    return losses(options.run)


def test_a_killed_worker_is_replaced_and_the_curve_is_the_same_bit_for_bit(
    options: TrainOptions, uninterrupted: list[float], tmp_path: Path
) -> None:
    options = dataclasses.replace(options, run=str(tmp_path / "run"))
    killed: list[int] = []

    def kill_after_a_checkpoint() -> None:
        wait_until(lambda: has_checkpoint(options.run, 6), "the first checkpoint")
        killed.append(kill_one_training_worker(psutil.Process()))

    killer = threading.Thread(target=kill_after_a_checkpoint)
    killer.start()
    train(options)
    killer.join()
    assert killed
    assert losses(options.run) == uninterrupted


def test_a_killed_driver_takes_its_workers_along_and_the_same_command_goes_on(
    options: TrainOptions, uninterrupted: list[float], tmp_path: Path
) -> None:
    options = dataclasses.replace(options, run=str(tmp_path / "run"))
    config = tmp_path / "options.yaml"
    config.write_text(yaml.safe_dump(options.as_dict()))
    command = [sys.executable, "jobs/train_weatherbench.py", "--config", str(config)]
    with (tmp_path / "log").open("w") as log:
        driver = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        try:
            wait_until(lambda: has_checkpoint(options.run, 6), "the first checkpoint")
            with pytest.raises(BusyError, match="heard of"):
                train(options)
            family = psutil.Process(driver.pid).children(recursive=True)
            workers = [process for process in family if "RayTrainWorker" in process.name()]
        finally:
            os.kill(driver.pid, signal.SIGKILL)
            driver.wait()
    assert checkpoints.list_checkpoints(options.run)[-1].step < len(uninterrupted)
    assert len(workers) == options.workers
    _, left = psutil.wait_procs(workers, timeout=60)
    assert not left, "a training worker outlived its driver"
    train(options)
    assert losses(options.run) == uninterrupted


def test_a_half_written_checkpoint_is_passed_over(
    options: TrainOptions, uninterrupted: list[float], tmp_path: Path
) -> None:
    run = str(tmp_path / "run")
    training = dataclasses.replace(options.training, epochs=1)
    train(dataclasses.replace(options, run=run, training=training))
    last = checkpoints.list_checkpoints(run)[-1]
    torn = Path(run) / checkpoints.directory_name(last.step + 1)
    torn.mkdir()
    for path in Path(last.uri).iterdir():
        data = path.read_bytes()
        (torn / path.name).write_bytes(data[:100] if path.suffix == ".safetensors" else data)
    assert checkpoints.list_checkpoints(run)[-1].step == last.step


def test_a_damaged_checkpoint_is_refused_by_name_and_kept(
    options: TrainOptions, tmp_path: Path
) -> None:
    run = str(tmp_path / "run")
    training = dataclasses.replace(options.training, epochs=1)
    train(dataclasses.replace(options, run=run, training=training))
    last = checkpoints.list_checkpoints(run)[-1]
    weights = Path(last.uri) / checkpoints.WEIGHTS
    data = bytearray(weights.read_bytes())
    data[-3] ^= 0xFF
    weights.write_bytes(data)
    with pytest.raises(StoreError, match=r"'weights.safetensors' is damaged"):
        checkpoints.load_checkpoint(run).model()
    assert weights.read_bytes() == data
