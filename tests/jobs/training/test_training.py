"""Training end to end on Ray Train: history, checkpoints, resume, any number of workers."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from jobs.training.driver.job import train
from jobs.training.options import (
    DataOptions,
    ModelOptions,
    TrainingOptions,
    TrainOptions,
    ValidationOptions,
)
from jobs.training.plan import make_plan
from jobs.training.run import checkpoints, run_folder
from pipelines.errors import PlatformError
from tests.support.processes.training_runs import first_batch, losses, small_options

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_a_run_records_one_loss_per_step_and_learns(finished_run: TrainOptions) -> None:
    curve = losses(finished_run.run)
    assert len(curve) == make_plan(finished_run).total_steps
    assert all(math.isfinite(loss) for loss in curve)
    assert np.mean(curve[-10:]) < 0.7 * np.mean(curve[:10])


def test_the_last_checkpoint_reproduces_its_validation_loss(finished_run: TrainOptions) -> None:
    import torch

    from gmg_model.training.losses import create_loss
    from pipelines.stream.window_stream import read_batches

    plan = make_plan(finished_run)
    last = checkpoints.list_checkpoints(finished_run.run)[-1]
    assert last.finished
    assert last.variables == ("flow",)
    assert last.fingerprint == plan.store.fingerprint
    model, total = last.model(), 0.0
    batches = read_batches(plan.store, plan.variables, plan.window, plan.validation_starts, 7)
    for _, frames in batches:
        frames_btchw = torch.from_numpy(last.normalisation.apply(frames))
        given, true = frames_btchw.split([plan.window.input_frames, plan.window.horizon], dim=1)
        with torch.no_grad():
            total += float(create_loss("l1+l2")(model(given, plan.window.horizon), true).sum())
    assert total / len(plan.validation_starts) == pytest.approx(last.validation_loss, rel=1e-5)


@pytest.fixture
def copied_run(finished_run: TrainOptions, tmp_path: Path) -> TrainOptions:
    """The finished run in another folder."""
    shutil.copytree(finished_run.run, tmp_path / "copy")
    return dataclasses.replace(finished_run, run=str(tmp_path / "copy"))


def test_a_finished_run_has_nothing_to_do(copied_run: TrainOptions) -> None:
    def tensors() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in Path(copied_run.run).rglob("*.safetens*")}

    before = tensors()
    outcome = train(copied_run)
    assert outcome.already_finished
    assert "nothing to do" in outcome.summary()
    assert tensors() == before
    assert len(before) > 10


def test_relative_and_absolute_paths_name_the_same_run(
    copied_run: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, store = Path(copied_run.run), Path(copied_run.store)
    monkeypatch.chdir(store.parent)
    relative = dataclasses.replace(
        copied_run, store=store.name, run=os.path.relpath(run, store.parent)
    )
    outcome = train(relative)
    assert outcome.already_finished
    assert outcome.run == copied_run.run


def test_one_worker_with_micro_batches_has_the_losses_of_two_workers(
    finished_run: TrainOptions, tmp_path: Path
) -> None:
    training = dataclasses.replace(finished_run.training, micro_batch=4)
    options = dataclasses.replace(
        finished_run, run=str(tmp_path / "run"), workers=1, training=training
    )
    train(options)
    expected = losses(finished_run.run)
    assert len(expected) > 40
    np.testing.assert_allclose(losses(options.run), expected, rtol=1e-9)


def test_bf16_with_a_moving_average_trains_and_resumes_for_more_epochs(
    traffic_store: str, tmp_path: Path
) -> None:
    training = TrainingOptions(
        epochs=1,
        global_batch=9,
        precision="bf16",
        ema=0.9,
        optimiser="adamw",
        weight_decay=0.01,
        schedule="constant",
        sampling="none",
        learning_rate=3e-3,
    )
    options = small_options(traffic_store, str(tmp_path / "run"), workers=1, training=training)
    assert train(options).epochs == 1
    first = losses(options.run)
    last = checkpoints.list_checkpoints(options.run)[-1]
    raw = {k.removeprefix("model/"): v for k, v in last.training_tensors.items() if "model/" in k}
    assert set(raw) == set(last.tensors)
    assert any(not raw[name].equal(last.tensors[name]) for name in raw)

    longer = dataclasses.replace(options, training=dataclasses.replace(training, epochs=2))
    assert train(longer).epochs == 2
    curve = losses(options.run)
    assert len(curve) == 2 * len(first)
    assert curve[: len(first)] == first
    assert np.mean(curve[len(first) :]) < np.mean(first)


def test_hidden_frames_and_balanced_losses_survive_a_stop_and_other_workers(
    traffic_store: str, tmp_path: Path
) -> None:
    training = TrainingOptions(
        epochs=2,
        global_batch=9,
        precision="fp64",
        schedule="constant",
        learning_rate=3e-3,
        loss="balanced-l1+l2",
        loss_thresholds=(20.0, 60.0),
        loss_weights=(1.0, 2.0, 5.0),
        sampling="reverse-exponential",
        sampling_start=2,
        sampling_end=14,
        sampling_unit="steps",
        seed=3,
    )
    whole = small_options(
        traffic_store,
        str(tmp_path / "whole"),
        workers=2,
        model=ModelOptions(name="predrnn", hidden=(8, 8), patch_size=2, filter_size=3),
        data=DataOptions(input_frames=3, horizon=3, every=3, normalise="minmax", pool_mib=1),
        training=training,
        validation=ValidationOptions(windows=0),
    )
    train(whole)
    expected = losses(whole.run)
    assert len(expected) == 16
    # The run as a kill in the middle of the first epoch leaves it.
    alone = dataclasses.replace(whole, run=str(tmp_path / "alone"), workers=1)
    shutil.copytree(whole.run, alone.run)
    for checkpoint in checkpoints.list_checkpoints(alone.run):
        if checkpoint.step > 6:
            shutil.rmtree(checkpoint.uri)
    assert [item.step for item in checkpoints.list_checkpoints(alone.run)] == [6]
    train(alone)
    records = run_folder.read_history(alone.run)
    assert [record["workers"] for record in records] == [2] * 6 + [1] * 10
    np.testing.assert_allclose(losses(alone.run), expected, rtol=1e-9)
    by_hand = [_first_loss(whole, hide) for hide in (True, False)]
    assert expected[0] == pytest.approx(by_hand[0], rel=1e-9)
    assert expected[0] != pytest.approx(by_hand[1], rel=1e-3)


def _first_loss(options: TrainOptions, hide: bool) -> float:
    """Return the loss of the first step, with or without hidden input frames."""
    import torch

    from gmg_model import create_model
    from gmg_model.training.losses import create_loss
    from gmg_model.training.sampling import forced_frames, observed_frames

    plan, batch = make_plan(options), first_batch(options)
    torch.manual_seed(3)
    model = create_model("predrnn", **plan.model_overrides).double()
    frames = torch.from_numpy(batch.frames_btchw).double()
    masks = {"forced": forced_frames(0.5, 3, 3, 0, batch.lanes).double()}
    if hide:
        masks["shown"] = observed_frames(0.5, 3, 3, 0, batch.lanes).double()
    with torch.no_grad():
        outputs = model(frames, input_frames=3, **masks)
    low, width = plan.normalisation.offset[0], plan.normalisation.scale[0]
    thresholds = tuple((value - low) / width for value in (20.0, 60.0))
    loss = create_loss("balanced-l1+l2", thresholds=thresholds, weights=(1.0, 2.0, 5.0))
    return float(loss(outputs, frames[:, 1:]).mean())


def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_windows(
    traffic_store: str, tmp_path: Path
) -> None:
    training = TrainingOptions(epochs=1, global_batch=9, learning_rate=1e30, schedule="constant")
    options = small_options(traffic_store, str(tmp_path / "run"), workers=1, training=training)
    with pytest.raises(PlatformError, match=r"the loss of step \d+ is nan") as refused:
        train(options)
    assert "windows that begin at 2014-04-" in str(refused.value)
    assert not checkpoints.list_checkpoints(options.run)
