"""A training run that is killed and resumed has the losses of an undisturbed one."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from jobs.training.driver.job import train
from jobs.training.options import TrainOptions
from jobs.training.run import checkpoints
from pipelines.errors import BusyError, StoreError
from tests.support.processes.barrier import Barrier, barrier
from tests.support.processes.processes import Family
from tests.support.processes.training_runs import ROOT, losses, write_config

__all__ = ["barrier"]

pytestmark = pytest.mark.usefixtures("barrier", "ray_cluster")
WORKER = "RayTrainWorker"
END_SECONDS = 300
"""seconds within which processes must end by themselves"""
# When this file is about to be published, the first checkpoint is complete. Training goes on until
# too many checkpoints wait for their upload.
SECOND_CHECKPOINT = r"/step_0*12/checkpoint\.json$"


@pytest.fixture
def options(finished_run: TrainOptions, tmp_path: Path) -> TrainOptions:
    """Return the options of the finished run, with a new folder."""
    return dataclasses.replace(finished_run, run=str(tmp_path / "run"))


@pytest.fixture
def copied_run(finished_run: TrainOptions, options: TrainOptions) -> str:
    """Return a copy of the finished run, which tests may damage."""
    shutil.copytree(finished_run.run, options.run)
    return options.run


@pytest.fixture
def family() -> Iterator[Family]:
    """Yield a family for the processes of one job, and end all of them afterwards."""
    family = Family()
    yield family
    family.end(0)


def test_a_killed_worker_is_replaced_and_the_losses_are_bit_for_bit_equal(
    barrier: Barrier, options: TrainOptions, finished_run: TrainOptions
) -> None:
    there: list[int] = []

    def kill_the_other(first_worker: int) -> None:
        workers = [p for p in psutil.Process().children(recursive=True) if WORKER in p.name()]
        (other,) = [worker for worker in workers if worker.pid != first_worker]
        there.extend(item.step for item in checkpoints.list_checkpoints(options.run))
        other.kill()

    with barrier.at(SECOND_CHECKPOINT, kill_the_other):
        train(options)
    assert there == [6]
    assert losses(options.run) == losses(finished_run.run)


def start(options: TrainOptions, family: Family, folder: Path) -> subprocess.Popen[bytes]:
    """Start the job as a process of its own, which writes to `folder/log`."""
    command = [sys.executable, "jobs/train_weatherbench.py"]
    command += ["--config", write_config(options, folder)]
    with (folder / "log").open("w") as log:
        environment = os.environ | family.environment
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)


def test_a_killed_driver_ends_its_workers_and_the_same_command_resumes(
    barrier: Barrier,
    options: TrainOptions,
    finished_run: TrainOptions,
    family: Family,
    tmp_path: Path,
) -> None:
    with barrier.before(SECOND_CHECKPOINT):
        driver = start(options, family, tmp_path)
        barrier.wait(lambda: driver.poll() is None)
        with pytest.raises(
            BusyError, match=r"another process writes to this run: .* last heartbeat"
        ):
            train(options)
        workers = family.named(WORKER)
        driver.kill()
        driver.wait()
        assert [item.step for item in checkpoints.list_checkpoints(options.run)] == [6]
        assert len(workers) == options.workers
        _, left = psutil.wait_procs(workers, timeout=END_SECONDS)
        assert not left, "a training worker outlived its driver"
        family.end(0)  # Ray's agents take a minute to notice that their node has ended
    train(options)
    assert losses(options.run) == losses(finished_run.run)


def test_an_interrupted_training_says_how_to_resume_and_leaves_no_process(
    barrier: Barrier, options: TrainOptions, family: Family, tmp_path: Path
) -> None:
    with barrier.before(SECOND_CHECKPOINT):
        driver = start(options, family, tmp_path)
        barrier.wait(lambda: driver.poll() is None)
        assert len(family.named(WORKER)) == options.workers
        driver.send_signal(signal.SIGINT)
        assert driver.wait(timeout=END_SECONDS) == 130
    log = (tmp_path / "log").read_text()
    assert "interrupted; the same command resumes" in log
    assert "Traceback" not in log
    assert family.end(END_SECONDS) == []


def test_a_half_written_checkpoint_is_ignored(copied_run: str) -> None:
    last = checkpoints.list_checkpoints(copied_run)[-1]
    torn = Path(copied_run) / checkpoints.directory_name(last.step + 1)
    torn.mkdir()
    for path in Path(last.uri).iterdir():
        data = path.read_bytes()
        (torn / path.name).write_bytes(data[:100] if path.suffix == ".safetensors" else data)
    assert checkpoints.list_checkpoints(copied_run)[-1].step == last.step


def damage(checkpoint: checkpoints.Checkpoint, name: str) -> bytes:
    """Change one byte of a file of a checkpoint, and return the new content."""
    path = Path(checkpoint.uri) / name
    data = bytearray(path.read_bytes())
    data[-3] ^= 0xFF
    path.write_bytes(data)
    return bytes(data)


def test_a_training_resumes_from_the_checkpoint_before_damaged_ones(
    copied_run: str,
    options: TrainOptions,
    finished_run: TrainOptions,
    capsys: pytest.CaptureFixture[str],
) -> None:
    *_, sound, short, last = checkpoints.list_checkpoints(copied_run)
    damage(last, checkpoints.TRAINING)
    weights = Path(short.uri) / checkpoints.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-100])
    assert train(options).already_finished is False
    said = capsys.readouterr().err
    for broken in (last, short):
        line = f"{broken.uri} is damaged: set aside; going on from step {sound.step}"
        assert line in said
        assert (Path(broken.uri) / f"{checkpoints.RECORD}.damaged").exists()
    assert losses(options.run) == losses(finished_run.run)
    again = checkpoints.list_checkpoints(copied_run)[-1]
    assert again.step == last.step
    assert again.damage() is None


def test_a_run_with_only_damaged_checkpoints_is_refused_and_unchanged(
    copied_run: str, options: TrainOptions
) -> None:
    found = checkpoints.list_checkpoints(copied_run)
    left = {item.uri: damage(item, checkpoints.WEIGHTS) for item in found}
    with pytest.raises(StoreError, match=rf"every checkpoint .* damaged \({len(found)}\)"):
        train(options)
    assert left == {uri: (Path(uri) / checkpoints.WEIGHTS).read_bytes() for uri in left}
    assert len(checkpoints.list_checkpoints(copied_run)) == len(found)


def test_a_damaged_checkpoint_is_refused_by_name_and_kept(copied_run: str) -> None:
    best = checkpoints.load_checkpoint(copied_run)
    weights = Path(best.uri) / checkpoints.WEIGHTS
    data = damage(best, checkpoints.WEIGHTS)
    with pytest.raises(StoreError, match=r"'weights.safetensors' is damaged"):
        checkpoints.load_checkpoint(copied_run).model()
    assert weights.read_bytes() == data
