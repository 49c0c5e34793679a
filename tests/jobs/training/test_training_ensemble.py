"""Training over ensemble members on two workers, compared with one process."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gmg_model import create_model
from gmg_model.models.ensembles import member_keys, window_keys
from gmg_model.training.member_losses import create_member_loss
from jobs.training.driver.job import train
from jobs.training.options import ModelOptions, TrainingOptions, TrainOptions
from jobs.training.plan import make_plan
from jobs.training.run import checkpoints
from pipelines.errors import UsageError
from pipelines.stream.window_stream import read_batches
from tests.support.processes.training_runs import first_batch, losses, small_options

SIZES = {"hidden": (8, 8), "patch_size": 2, "filter_size": 3, "attention_hidden": 4}


def ensemble_options(store: str, run: str, noise: int = 1) -> TrainOptions:
    training = TrainingOptions(
        epochs=1,
        global_batch=60,
        micro_batch=10,
        seed=3,
        precision="fp64",
        sampling="none",
        loss="crps",
        members=2,
    )
    model = ModelOptions(options={"noise": noise}, **SIZES)
    return small_options(store, run, model=model, training=training)


@pytest.mark.usefixtures("ray_cluster")
def test_members_on_two_workers_have_the_losses_of_one_process(
    traffic_store: str, tmp_path_factory: pytest.TempPathFactory
):
    options = ensemble_options(traffic_store, str(tmp_path_factory.mktemp("ensemble") / "run"))
    train(options)
    plan, measure = make_plan(options), create_member_loss("crps", fairness=0.95)
    last = checkpoints.list_checkpoints(options.run)[-1]
    assert last.finished

    def loss_of(model: torch.nn.Module, frames_btchw: torch.Tensor, keys: torch.Tensor) -> float:
        given = plan.window.input_frames
        with torch.no_grad():
            outputs = model(
                frames_btchw[:, :given].repeat_interleave(2, 0),
                plan.window.horizon,
                noise_keys=member_keys(keys, 2),
            )
        return float(measure(outputs.unflatten(0, (-1, 2)), frames_btchw[:, given:]).sum())

    model, total = last.model().double(), 0.0
    for starts, frames in read_batches(
        plan.store, plan.variables, plan.window, plan.validation_starts, 7
    ):
        frames_btchw = torch.from_numpy(last.normalisation.apply(frames)).double()
        total += loss_of(model, frames_btchw, window_keys(3, starts))
    assert total / len(plan.validation_starts) == pytest.approx(last.validation_loss, rel=1e-5)

    # The first step of training, whose weights are those of the seed.
    torch.manual_seed(3)
    untrained = create_model(options.model.name, **plan.model_overrides).double()
    lanes = np.arange(options.training.global_batch)
    starts = first_batch(options).starts
    frames = next(
        frames for _, frames in read_batches(plan.store, plan.variables, plan.window, starts, 60)
    )
    frames_btchw = torch.from_numpy(plan.normalisation.apply(frames)).double()
    keys = member_keys(window_keys(3, lanes, step=0), 2)
    with torch.no_grad():
        outputs = untrained.one_step_outputs(
            frames_btchw.repeat_interleave(2, 0), plan.window.input_frames, noise_keys=keys
        )
    first = measure(outputs.unflatten(0, (-1, 2)), frames_btchw[:, 1:]).mean()
    assert losses(options.run)[0] == pytest.approx(float(first), rel=1e-6)


def test_members_of_a_model_without_noise_are_refused_before_any_compute(
    traffic_store: str, tmp_path_factory: pytest.TempPathFactory
):
    run = tmp_path_factory.mktemp("refused") / "run"
    with pytest.raises(UsageError, match="made with noise=4"):
        train(ensemble_options(traffic_store, str(run), noise=0))
    assert not list(run.glob("**/checkpoint*"))
