"""Steps that are not finite, early stopping, validation within an epoch, TensorBoard, Prometheus.

Each is the same after a stop in the middle of an epoch.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import shutil
import urllib.request
from collections import defaultdict
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from jobs.training.driver.job import train
from jobs.training.options import (
    CheckpointOptions,
    TrainingOptions,
    TrainOptions,
    ValidationOptions,
)
from jobs.training.plan import make_plan
from jobs.training.run import checkpoints, run_folder, tensorboard
from jobs.training.worker.journal import METRICS
from pipelines.stream.order import EpochOrder
from pipelines.stream.window_stream import WindowStream
from tests.support.processes import shared_ray
from tests.support.processes.barrier import Barrier, barrier
from tests.support.processes.training_runs import small_options, wait_until

__all__ = ["barrier"]

BAD_FRAME = 100
"""frame of the train period that holds infinities"""


@pytest.fixture(scope="module", autouse=True)
def ray_with_metrics(barrier: Barrier) -> str:
    """Start a Ray that exports its metrics twice a second; return the address of its metrics."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_metrics_report_interval_ms", "500")
        shared_ray.use()
    (node,) = ray.nodes()
    return f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"


@pytest.fixture(scope="module")
def damaged_store(traffic_store: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a store with one frame of infinities, written after its statistics were taken."""
    import zarr

    store = tmp_path_factory.mktemp("damaged") / "store.zarr"
    shutil.copytree(traffic_store, store)
    array = zarr.open_array(store=str(store / "flow"), mode="r+")
    array[BAD_FRAME] = np.inf
    return str(store)


@dataclass(frozen=True)
class WatchedRun:
    """A run, the lines that it printed, and its page of metrics."""

    options: TrainOptions
    lines: str
    metrics: str


@pytest.fixture(scope="module")
def guarded(
    damaged_store: str,
    ray_with_metrics: str,
    barrier: Barrier,
    tmp_path_factory: pytest.TempPathFactory,
) -> WatchedRun:
    """Train one epoch on two workers; leave bad steps out, validate every fifth step."""
    options = small_options(
        damaged_store,
        str(tmp_path_factory.mktemp("runs") / "guarded"),
        training=TrainingOptions(
            epochs=1, global_batch=9, learning_rate=3e-3, precision="fp64", on_nonfinite="skip"
        ),
        checkpoints=CheckpointOptions(every_steps=7, keep=20),
        validation=ValidationOptions(windows=20, every_steps=5),
    )
    seen: list[str] = []

    def look(worker: int) -> None:
        wait_until(lambda: all(shown(name) for name in METRICS), "the gauges of the run")

    def shown(name: str) -> list[float]:
        with suppress(OSError):
            seen.append(urllib.request.urlopen(ray_with_metrics, timeout=60).read().decode())
        return gauge(name, options.run, seen[-1] if seen else "")

    # The last checkpoint waits until the page has been looked at: afterwards the worker is gone.
    with (
        redirect_stderr(io.StringIO()) as said,
        barrier.at(r"/step_0*24/checkpoint\.json$", look),
    ):
        train(options)
    return WatchedRun(options, said.getvalue(), seen[-1])


def gauge(name: str, run_uri: str, page: str) -> list[float]:
    """Return the values of a run on a page of metrics."""
    return [
        float(line.rsplit(" ", 1)[1])
        for line in page.splitlines()
        if line.startswith(f"ray_{name}{{") and f'run="{run_uri}"' in line
    ]


def stopped_after(options: TrainOptions, step: int, folder: Path) -> TrainOptions:
    """Copy the run as a kill after the checkpoint of `step` leaves it."""
    shutil.copytree(options.run, folder)
    for checkpoint in checkpoints.list_checkpoints(str(folder)):
        if checkpoint.step > step:
            shutil.rmtree(checkpoint.uri)
    assert checkpoints.list_checkpoints(str(folder))[-1].step == step
    return dataclasses.replace(options, run=str(folder))


def curves(run_uri: str) -> dict[str, dict[int, float]]:
    """Return what TensorBoard shows of a run: curve -> step -> value; no step may come twice."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for path in sorted((Path(run_uri) / run_folder.EVENTS).iterdir()):
        reader = accumulator.EventAccumulator(str(path))
        reader.Reload()
        for tag in reader.Tags()["scalars"]:
            for point in reader.Scalars(tag):
                assert point.step not in found[tag], f"{tag} has step {point.step} twice"
                found[tag][point.step] = point.value
    return found


def test_steps_with_a_bad_frame_are_left_out_and_their_windows_named(
    guarded: WatchedRun,
) -> None:
    plan = make_plan(guarded.options)
    stream = WindowStream(
        plan.store,
        plan.variables,
        plan.window,
        plan.train_starts,
        plan.order,
        plan.normalisation,
        lanes=range(9),
    )
    order: EpochOrder = stream.order(0)
    hit: dict[int, set[int]] = defaultdict(set)
    for lane in range(9):
        for step, start in enumerate(order.lane(lane)):
            if start <= BAD_FRAME < start + plan.window.span:
                hit[step].add(int(start))
    records = run_folder.read_history(guarded.options.run)
    left_out = {record["step"] for record in records if record.get("skipped")}
    assert left_out == set(hit)
    assert 0 < len(left_out) < len(records)
    for record in records:
        finite = math.isfinite(record["loss"] + record["gradient_norm"])
        assert finite is (record["step"] not in left_out)
    for starts in hit.values():
        for start in starts:
            assert str(plan.store.times[start].astype("datetime64[m]")) in guarded.lines
    last = checkpoints.list_checkpoints(guarded.options.run)[-1]
    assert last.skipped == len(left_out)


def test_validation_within_an_epoch_comes_with_a_checkpoint(guarded: WatchedRun) -> None:
    found = checkpoints.list_checkpoints(guarded.options.run)
    validated = {item.step for item in found if not math.isnan(item.validation_loss)}
    assert validated == {5, 10, 15, 20, 24}
    assert {item.step for item in found} == validated | {7, 14, 21}
    best = min(
        (item for item in found if item.step in validated), key=lambda item: item.validation_loss
    )
    assert found[-1].selection["best_step"] == best.step


def test_a_resumed_run_has_the_same_losses_validations_and_counts(
    guarded: WatchedRun, tmp_path: Path
) -> None:
    options = stopped_after(guarded.options, 10, tmp_path / "run")
    train(options)

    def outcome(run_uri: str) -> str:
        fields = ("step", "loss", "gradient_norm", "learning_rate", "validation_loss", "skipped")
        records = run_folder.read_history(run_uri)
        steps = [[record.get(field) for field in fields] for record in records]
        found = checkpoints.list_checkpoints(run_uri)
        states = [(item.step, item.selection, item.record["skipped"]) for item in found]
        return json.dumps([steps, states])  # as text, in which NaN is itself

    assert outcome(options.run) == outcome(guarded.options.run)
    weights, expected = (
        checkpoints.list_checkpoints(uri)[-1].tensors for uri in (options.run, guarded.options.run)
    )
    assert all(weights[name].equal(expected[name]) for name in expected)
    compare_curves(options.run)


def test_tensorboard_shows_every_step_of_the_history_once(guarded: WatchedRun) -> None:
    compare_curves(guarded.options.run)


def compare_curves(run_uri: str) -> None:
    records = run_folder.read_history(run_uri)
    shown = curves(run_uri)
    assert set(shown) == set(tensorboard.TAGS.values())
    for field, tag in tensorboard.TAGS.items():
        expected = {
            record["step"]: record[field]
            for record in records
            if field in record and math.isfinite(record[field])
        }
        assert shown[tag] == pytest.approx(expected, rel=1e-6)
    assert len(shown["speed/samples_per_second"]) == len(records)


def test_prometheus_finds_the_gauges_of_the_run(guarded: WatchedRun) -> None:
    for name in METRICS:
        values = gauge(name, guarded.options.run, guarded.metrics)
        assert values, f"{name} is not on the page"
        assert all(value >= 0 or math.isnan(value) for value in values)
    waits = gauge("gmg_data_wait_fraction", guarded.options.run, guarded.metrics)
    assert all(value <= 1 for value in waits)


def test_validations_that_do_not_improve_end_the_training(
    traffic_store: str, tmp_path: Path
) -> None:
    options = small_options(
        traffic_store,
        str(tmp_path / "whole"),
        workers=1,
        # No step is large enough to change a weight, so no validation improves on the first.
        training=TrainingOptions(
            epochs=2, global_batch=9, learning_rate=1e-40, precision="fp64", patience=2
        ),
        checkpoints=CheckpointOptions(keep=20),
        validation=ValidationOptions(windows=20, every_steps=4),
    )
    outcome = train(options)
    assert (outcome.step, outcome.best_step, outcome.already_finished) == (12, 4, False)
    assert "ended early: none better since step 4" in outcome.summary()
    assert train(options).already_finished
    halves = stopped_after(options, 8, tmp_path / "halves")
    again = train(halves)
    assert (again.step, again.best_step, again.already_finished) == (12, 4, False)
