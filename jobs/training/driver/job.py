"""A training run from its options to its last checkpoint: check, take the run's lease, train."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, cast

from gmg_model.errors import ConfigurationError
from jobs.command_line import say
from jobs.training.driver.cluster import Cluster, connect
from jobs.training.driver.ending import limit_error, stopped_error, stopping_on_sigterm
from jobs.training.options import TrainOptions
from jobs.training.plan import TrainingPlan, check_frames, make_plan
from jobs.training.run import checkpoints, run_folder, tensorboard
from jobs.training.run.mlflow import check_server
from jobs.training.status_board import TrainingStatus, status_board
from pipelines.errors import PlatformError, UsageError
from pipelines.storage import lease, places

_BOUNDED = (
    "needs frames in [0, 1], which neither standardised frames nor anomalies are: "
    "--data.normalise minmax, --data.anomalies false"
)


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    run: str
    """URI of the run"""
    step: int
    """steps done"""
    epochs: int
    """whole epochs done"""
    validation_loss: float
    """of the last checkpoint; NaN if it was not validated"""
    already_finished: bool
    """whether there was nothing left to train"""
    best_step: int | None = None
    """step of the best validation, if training ended early after it"""
    skipped: int = 0
    """steps left out because they were not finite"""

    @classmethod
    def of(cls, options: TrainOptions, last: checkpoints.Checkpoint, already: bool) -> Outcome:
        """Make it from a run's last checkpoint."""
        early = last.epoch < options.training.epochs
        return cls(
            run=options.run,
            step=last.step,
            epochs=last.epoch,
            validation_loss=last.validation_loss,
            already_finished=already,
            best_step=last.selection.get("best_step") if early else None,
            skipped=last.skipped,
        )

    def summary(self) -> str:
        """Return one line for the terminal."""
        if self.already_finished:
            return f"nothing to do: {self.run} is finished ({self.epochs} epochs, step {self.step})"
        score = (
            "" if math.isnan(self.validation_loss) else f", validation {self.validation_loss:.4f}"
        )
        if self.best_step is not None:
            score += f", ended early: none better since step {self.best_step}"
        if self.skipped:
            score += f", {self.skipped} steps left out (not finite)"
        return f"trained {self.epochs} epochs, {self.step} steps{score}: {self.run}"


def train(options: TrainOptions) -> Outcome:
    """Train, or resume training, until the last epoch is done.

    Raises
    ------
    UsageError
        The configuration, the folder of the run, or the cluster does not fit.
    StoreError
        The store is incomplete, or is not the one that the run began with.
    BusyError
        A live process holds the run.
    PlatformError
        The training failed more often than `--checkpoints.max_failures` allows.
    """
    options = dataclasses.replace(  # workers may have another working directory
        options, store=places.absolute(options.store), run=places.absolute(options.run)
    )
    run_folder.check_place(options.run)
    if options.data.anomalies:
        # A wrong option is found before the climatology is computed and written beside the store.
        _check_model(make_plan(options, climatology=False))
    plan = make_plan(options)
    parameters = _check_model(plan)
    with lease.hold(options.run, say, what="run") as held:
        resumed = run_folder.check_same(options, plan.store.fingerprint)
        latest = _latest_sound(options)
        if latest:
            check_frames(plan, latest)
        if latest and is_finished(latest, options):
            return Outcome.of(options, latest, already=True)
        _check_tracking(options)
        with connect(options) as cluster:
            cluster.check_paths(options)
            use_gpu = cluster.wants_gpu(options)
            cluster.check_reading_room(options)
            if not resumed:
                run_folder.write_record(options, plan.store.fingerprint)
            say(_headline(plan, parameters, cluster, use_gpu))
            _fit(plan, use_gpu, held.record.token)
        return Outcome.of(options, checkpoints.list_checkpoints(options.run)[-1], already=False)


def is_finished(checkpoint: checkpoints.Checkpoint, options: TrainOptions) -> bool:
    """Return whether nothing is left to train after a checkpoint, with these options."""
    if checkpoint.validating:
        return False
    since_best, patience = checkpoint.selection.get("since", 0), options.training.patience
    return checkpoint.epoch >= options.training.epochs or 0 < patience <= since_best


def _check_model(plan: TrainingPlan) -> int:
    """Check the options of model and optimisation, and return the number of parameters.

    The model is built without memory, so that a wrong option is found before compute is spent.
    """
    import torch

    from gmg_model import create_model
    from gmg_model.models.rollout import RecurrentForecaster
    from gmg_model.training.optimisation import Optimisation, check_options
    from gmg_model.training.sampling import ScheduledSampling

    try:
        optimisation = plan.optimisation
        check_options(optimisation, plan.total_steps)
        sampling = ScheduledSampling(plan.options.training)
        with torch.device("meta"):
            model = create_model(plan.options.model.name, **plan.model_overrides)
        _check_bounded(plan.options, getattr(getattr(model, "config", None), "output", "linear"))
        Optimisation(model, optimisation, plan.total_steps)
        if plan.options.training.compile:
            cast(RecurrentForecaster, model).compile_steps()
        if sampling.hides_input and not getattr(model, "takes_hidden_frames", False):
            raise ConfigurationError(
                f"{plan.options.model.name} cannot be trained with reverse scheduled sampling, "
                "which hides frames of the input part: --training.sampling linear, or a model that "
                "can go without them: predrnn, convlstm, mim, motionrnn-predrnn, ..."
            )
    except ConfigurationError as error:
        raise UsageError(str(error), remedy="see --model.* and --training.* in --help") from None
    return sum(parameter.numel() for parameter in model.parameters())


def _check_bounded(options: TrainOptions, output: str) -> None:
    """Raise ConfigurationError if the loss or the model needs values in [0, 1] and has others."""
    if options.data.normalise == "minmax" and not options.data.anomalies:
        return
    if options.training.loss == "bce":
        raise ConfigurationError(f"--training.loss {options.training.loss} {_BOUNDED}")
    if output == "sigmoid":
        raise ConfigurationError(f"a model whose output is a sigmoid {_BOUNDED}")


def _latest_sound(options: TrainOptions) -> checkpoints.Checkpoint | None:
    """Return the checkpoint that the run resumes from, checked before any worker is started."""
    from jobs.training.driver.ray_storage import remove_outdated_record

    damaged: list[str] = []
    latest = checkpoints.newest_sound(options.run, damaged.append)
    for line in damaged:
        say(line)
    remove_outdated_record(options.run)
    return latest


def _check_tracking(options: TrainOptions) -> None:
    tracking = options.tracking
    if tracking.tensorboard and not tensorboard.is_available():
        say("no TensorBoard curves: install the package tensorboardX")
    if tracking.mlflow_uri:
        check_server(tracking.mlflow_uri, tracking.mlflow_experiment)


def _headline(plan: TrainingPlan, parameters: int, cluster: Cluster, use_gpu: bool) -> str:
    options, normals = plan.options, plan.normalisation.normals
    climatology = (
        "" if normals is None else f", anomalies from the {normals.definition.split(', ')[0]}"
    )
    return (
        f"{options.model.name} ({parameters / 1e6:.3f} M parameters) on {plan.store.title}: "
        f"{len(plan.train_starts)} train windows "
        f"{plan.window.input_frames} -> {plan.window.horizon}{climatology}, "
        f"{len(plan.validation_starts)} validated, {plan.total_steps} steps of "
        f"{options.training.global_batch} on {options.worker_range} "
        f"{'GPU' if use_gpu else 'CPU'} worker(s), {cluster.extent}"
    )


def _fit(plan: TrainingPlan, use_gpu: bool, token: str) -> None:
    """Run the workers until the last epoch is done, or raise the error that the run ended with."""
    import ray.train

    options = plan.options
    with status_board("training") as board:
        trainer = _trainer(plan, use_gpu, token, board)

        def ended() -> tuple[PlatformError | None, TrainingStatus]:
            return ray.get(board.failure.remote()), ray.get(board.status.remote())

        try:
            with stopping_on_sigterm(board, options.elastic.stop_grace):
                trainer.fit()
        except ray.train.TrainingFailedError as error:
            failure, status = ended()
            if status.is_stopping and not failure:
                raise stopped_error(options, status) from None
            raise failure or limit_error(options, error, status) from None
        except SystemExit:  # how Ray Train answers an interrupt
            _, status = ended()
            if status.is_stopping:
                raise stopped_error(options, status) from None
            raise KeyboardInterrupt from None
        failure, status = ended()
        if failure:
            raise failure
        if status.is_stopping:
            found = checkpoints.list_checkpoints(options.run)
            if not found or not is_finished(found[-1], options):
                raise stopped_error(options, status)


def _trainer(plan: TrainingPlan, use_gpu: bool, token: str, board: Any) -> Any:
    """Return Ray's trainer of the run."""
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig

    from jobs.training.driver.policies import Trainer
    from jobs.training.driver.ray_storage import storage_settings
    from jobs.training.worker.loop import train_worker

    options = plan.options
    workers, elastic = options.worker_range, options.elastic
    return Trainer(
        train_worker,
        train_loop_config={
            "options": options.as_dict(),
            "fingerprint": plan.store.fingerprint,
            "board": board,
            "lease": token,
        },
        scaling_config=ScalingConfig(
            num_workers=(workers.least, workers.most) if workers.is_elastic else workers.least,
            elastic_resize_monitor_interval_s=elastic.resize_every,
            use_gpu=use_gpu,
            resources_per_worker={"CPU": options.cpus_per_worker} | ({"GPU": 1} if use_gpu else {}),
        ),
        run_config=RunConfig(
            failure_config=FailureConfig(
                max_failures=options.checkpoints.max_failures,
                max_preemption_failures=elastic.max_preemptions,
                preemption_grace_s=elastic.preemption_grace,
                # Otherwise a worker that is still there, and late, is left behind at a barrier,
                # and the others wait for it in the sum of the gradients.
                relax_collectives_on_preemption=False,
            ),
            checkpoint_config=CheckpointConfig(
                num_to_keep=options.checkpoints.keep,
                checkpoint_score_attribute="validation_loss",
                checkpoint_score_order="min",
            ),
            **storage_settings(options.run, options.checkpoints.storage_wait),
        ),
        board=board,
        options=options,
    )
