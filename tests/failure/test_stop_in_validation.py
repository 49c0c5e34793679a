"""Requests during a validation are answered between two of its batches."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.training.driver.ending import StoppedError
from jobs.training.driver.job import train
from jobs.training.options import TrainOptions
from jobs.training.run import checkpoints, run_folder
from jobs.training.run_options import ElasticOptions

pytestmark = pytest.mark.usefixtures("ray_cluster")


def requests_in_validations(folder: Path, driver: int) -> Callable[[dict[str, Any]], None]:
    """Return a function for workers that makes requests during validations.

    After the first batch of the first validation, it requests a checkpoint. After the first batch
    of the second validation, it sends SIGTERM to the driver. It writes a line per batch.
    """

    def entry(settings: dict[str, Any]) -> None:
        import os
        import signal
        import time

        import ray

        from jobs.training.worker import loop, requests

        requests.POLL_SECONDS = 0.0
        board, losses_by_batch = settings["board"], loop.losses_by_batch
        own_flags = requests.Requests.flags
        validations: list[int] = []

        def counted(plan: Any, model: Any, optimisation: Any, rank: int, *others: Any) -> Any:
            validations.append(0)
            for part in losses_by_batch(plan, model, optimisation, rank, *others):
                validations[-1] += 1
                with (folder / f"batches_{rank}").open("a") as log:
                    log.write(f"{len(validations)}\n")
                yield part

        def flags(self: Any) -> tuple[float, float]:
            if self._rank == 0 and validations and validations[-1] == 1:
                validations[-1] += 1  # makes the request once per validation
                if len(validations) == 1:
                    ray.get(board.request.remote("checkpoint"))
                else:
                    os.kill(driver, signal.SIGTERM)
                while not (found := own_flags(self))[1]:
                    time.sleep(0.02)
                return found
            return own_flags(self)

        loop.losses_by_batch = counted
        requests.Requests.flags = flags
        loop.train_worker(settings)

    return entry


def test_requests_during_a_validation_do_not_change_the_outcome(
    finished_run: TrainOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert threading.current_thread() is threading.main_thread(), "only it handles SIGTERM"
    options = dataclasses.replace(
        finished_run, run=str(tmp_path / "run"), elastic=ElasticOptions(stop_grace=600)
    )
    with monkeypatch.context() as patch:
        entry = requests_in_validations(tmp_path, os.getpid())
        patch.setattr("jobs.training.worker.loop.train_worker", entry)
        with pytest.raises(StoppedError, match=r"after a last checkpoint \(step 48\)"):
            train(options)
    # Each worker has 10 of 20 windows, which are 3 batches. All workers leave the second validation
    # after its first batch.
    for rank in range(2):
        assert (tmp_path / f"batches_{rank}").read_text().split() == ["1"] * 3 + ["2"]
    found = {Path(item.uri).name: item for item in checkpoints.list_checkpoints(options.run)}
    assert [name for name, item in found.items() if item.validating] == [
        "step_000000024_unvalidated",
        "step_000000048_unvalidated",
    ]
    assert "step_000000024" in found
    assert "step_000000048" not in found

    outcome = train(options)
    assert not outcome.already_finished
    assert train(options).already_finished

    def result(run_uri: str) -> list[Any]:
        fields = ("step", "loss", "gradient_norm", "windows", "validation_loss")
        records = run_folder.read_history(run_uri)
        steps = [[record.get(field) for field in fields] for record in records]
        whole = [item for item in checkpoints.list_checkpoints(run_uri) if not item.validating]
        return [
            steps,
            [(item.step, item.record["validation_loss"]) for item in whole],
            [item.selection for item in whole],
        ]

    assert result(options.run) == result(finished_run.run)
