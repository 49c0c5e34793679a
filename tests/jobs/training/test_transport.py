"""`--data.transport ray` gives the losses of the direct transport, and needs a free CPU.

test_static_training.py resumes a direct run with it: anomalies, static fields, mirrored windows.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import pytest

from jobs.training.driver.cluster import Cluster
from jobs.training.driver.job import train
from jobs.training.options import DataOptions, TrainOptions
from jobs.training.run import checkpoints
from pipelines.errors import UsageError
from tests.support.processes.training_runs import losses


@pytest.mark.usefixtures("ray_cluster")
def test_both_transports_give_the_same_losses_bit_for_bit(
    finished_run: TrainOptions, tmp_path: Path
) -> None:
    data = dataclasses.replace(finished_run.data, transport="ray")
    options = dataclasses.replace(finished_run, run=str(tmp_path / "run"), data=data)
    train(options)
    assert losses(options.run) == losses(finished_run.run)
    scores = [
        checkpoints.list_checkpoints(run)[-1].validation_loss
        for run in (options.run, finished_run.run)
    ]
    assert scores[0] == scores[1]


def options(
    workers: int | str, transport: Literal["direct", "ray"] = "ray", cpus: int = 1
) -> TrainOptions:
    data = DataOptions(transport=transport)
    return TrainOptions("store", "run", workers=workers, cpus_per_worker=cpus, data=data)


def test_an_elastic_run_with_reading_tasks_raises() -> None:
    with pytest.raises(UsageError, match=r"(?s)--workers 1:4.*--workers 1, or --data.transport"):
        options("1:4")
    assert options("1:4", "direct").worker_range.is_elastic


def test_workers_that_leave_no_cpu_for_reading_tasks_raise() -> None:
    node: dict[str, float] = {"CPU": 4}
    four = Cluster(node, 1, ((node, 1),))
    four.check_reading_room(options(3))
    four.check_reading_room(options(4, "direct"))
    with pytest.raises(UsageError, match=r"(?s)2 workers of 2 CPU .* the 4 .*transport direct"):
        four.check_reading_room(options(2, cpus=2))


def test_room_for_reading_tasks_is_not_checked_on_an_open_ended_cluster() -> None:
    Cluster({"CPU": 1}, 1, (({"CPU": 1}, 1),), open_ended=True).check_reading_room(options(8))
