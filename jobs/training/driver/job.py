"""A training run from its options to its last checkpoint: check, claim, fit."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any, cast

from jobs.command_line import say
from jobs.training.board import Progress, progress_board
from jobs.training.driver.cluster import Cluster, connect
from jobs.training.driver.ending import ending_on_sigterm, stopped, used_up
from jobs.training.options import TrainOptions
from jobs.training.plan import TrainingPlan, check_frames, make_plan
from jobs.training.run import checkpoints, run_folder
from pipelines.errors import PlatformError, UsageError
from pipelines.storage import lease, places

RAY_RECORD = "checkpoint_manager_snapshot.json"
"""what Ray Train knows of a run's checkpoints, in the run's folder"""

_BOUNDED = (
    "wants frames in [0, 1], which neither standardised frames nor anomalies are: "
    "--data.normalise minmax, --data.anomalies false"
)


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    run: str
    step: int
    epochs: int
    validation_loss: float
    already_finished: bool
    best_step: int | None = None
    """steps of the best validation, where training ended early after it"""
    skipped: int = 0
    """steps left out because they were not finite"""

    @classmethod
    def of(cls, options: TrainOptions, last: checkpoints.Checkpoint, already: bool) -> Outcome:
        """From a run's last checkpoint."""
        early = last.epoch < options.training.epochs
        best_step = last.selection.get("best_step") if early else None
        return cls(
            options.run,
            last.step,
            last.epoch,
            last.validation_loss,
            already,
            best_step,
            last.skipped,
        )

    def summary(self) -> str:
        """One line for the terminal."""
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
    """Train, or go on, until the last epoch is done.

    Raises
    ------
    UsageError
        The configuration, the folder of the run, or the cluster does not fit.
    StoreError
        The store is incomplete or not the one that the run began with.
    BusyError
        A live process holds the run.
    PlatformError
        The training failed more often than ``--checkpoints.max_failures`` allows.
    """
    options = dataclasses.replace(  # workers may have another working directory
        options, store=places.absolute(options.store), run=places.absolute(options.run)
    )
    run_folder.check_place(options.run)
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


def _last(options: TrainOptions) -> checkpoints.Checkpoint | None:
    found = checkpoints.list_checkpoints(options.run)
    return found[-1] if found else None


def _check_model(plan: TrainingPlan) -> int:
    """Build the model without memory, so that a wrong option is refused before compute is spent.

    Returns the number of its parameters.
    """
    import torch

    from gmg_model import create_model
    from gmg_model.errors import ConfigurationError
    from gmg_model.models.rollout import RecurrentForecaster
    from gmg_model.training.optimisation import Optimisation, OptimisationConfig
    from gmg_model.training.sampling import ScheduledSampling

    try:
        config = OptimisationConfig(**plan.optimisation)
        sampling = ScheduledSampling(**plan.sampling)
        with torch.device("meta"):
            model = create_model(plan.options.model.name, **plan.model_overrides)
        _check_bounded(plan.options, getattr(getattr(model, "config", None), "output", "linear"))
        Optimisation(model, config)
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
    """Refuse a loss or a model of values in [0, 1] for frames that are not."""
    from gmg_model.errors import ConfigurationError

    inside = options.data.normalise == "minmax" and not options.data.anomalies
    if not inside and options.training.loss == "bce":
        raise ConfigurationError(f"--training.loss {options.training.loss} {_BOUNDED}")
    if not inside and output == "sigmoid":
        raise ConfigurationError(f"a model whose output is a sigmoid {_BOUNDED}")


def _latest_sound(options: TrainOptions) -> checkpoints.Checkpoint | None:
    """The checkpoint that the run goes on from, checked here before any worker is started."""
    damaged: list[str] = []
    latest = checkpoints.newest_sound(options.run, damaged.append)
    for line in damaged:
        say(line)
    if not _ray_knows_what_is_there(options.run):
        # Ray refuses a run of whose checkpoints one is gone; and it would remove a folder that is
        # written again as the old one that it knows under that name.
        places.delete(places.join(options.run, RAY_RECORD))
    return latest


def _ray_knows_what_is_there(run_uri: str) -> bool:
    """Whether every checkpoint in Ray's own record is complete, so that Ray can go on from it."""
    try:
        record = json.loads(places.read_bytes(places.join(run_uri, RAY_RECORD)))
        known = {item["checkpoint_dir_name"] for item in record["checkpoint_results"]}
    except FileNotFoundError:
        return True
    except (ValueError, KeyError, TypeError):
        return False
    there = {item.uri.rsplit("/", 1)[-1] for item in checkpoints.list_checkpoints(run_uri)}
    return known <= there


def is_finished(checkpoint: checkpoints.Checkpoint, options: TrainOptions) -> bool:
    """Whether nothing is left to train after a checkpoint, with these options."""
    if checkpoint.validating:
        return False
    stale, patience = checkpoint.selection.get("since", 0), options.training.patience
    return checkpoint.epoch >= options.training.epochs or 0 < patience <= stale


def _check_tracking(options: TrainOptions) -> None:
    from jobs.training.run import tensorboard
    from jobs.training.run.mlflow import check_server

    tracking = options.tracking
    if tracking.tensorboard and not tensorboard.is_available():
        say("no TensorBoard curves: install the package tensorboardX")
    if tracking.mlflow_uri:
        check_server(tracking.mlflow_uri, tracking.mlflow_experiment)


def _headline(plan: TrainingPlan, parameters: int, cluster: Cluster, use_gpu: bool) -> str:
    options, normals = plan.options, plan.normalisation.normals
    usual = "" if normals is None else f", anomalies from the {normals.definition.split(', ')[0]}"
    return (
        f"{options.model.name} ({parameters / 1e6:.3f} M parameters) on {plan.store.title}: "
        f"{len(plan.train_starts)} train windows "
        f"{plan.window.input_frames} -> {plan.window.horizon}{usual}, "
        f"{len(plan.validation_starts)} validated, {plan.total_steps} steps of "
        f"{options.training.global_batch} on {options.worker_range} "
        f"{'GPU' if use_gpu else 'CPU'} worker(s), {cluster.extent}"
    )


def _fit(plan: TrainingPlan, use_gpu: bool, token: str) -> None:
    import ray.train
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig

    from jobs.training.driver.policies import Trainer
    from jobs.training.worker.loop import train_worker

    options = plan.options
    workers, elastic = options.worker_range, options.elastic
    storage, name = _storage(options.run, options.checkpoints.storage_wait)
    with progress_board("training") as board:
        trainer = Trainer(
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
                resources_per_worker={"CPU": options.cpus_per_worker}
                | ({"GPU": 1} if use_gpu else {}),
            ),
            run_config=RunConfig(
                name=name,
                failure_config=FailureConfig(
                    max_failures=options.checkpoints.max_failures,
                    max_preemption_failures=elastic.max_preemptions,
                    preemption_grace_s=elastic.preemption_grace,
                    # Else a worker that is still there, and late, is left behind at a barrier,
                    # and the others wait for it in the gradients' sum.
                    relax_collectives_on_preemption=False,
                ),
                checkpoint_config=CheckpointConfig(
                    num_to_keep=options.checkpoints.keep,
                    checkpoint_score_attribute="validation_loss",
                    checkpoint_score_order="min",
                ),
                **storage,
            ),
            board=board,
            options=options,
        )

        def ended() -> tuple[PlatformError | None, Progress]:
            return ray.get(board.failure.remote()), ray.get(board.progress.remote())

        try:
            with ending_on_sigterm(board, elastic.stop_grace):
                trainer.fit()
        except ray.train.TrainingFailedError as error:
            failure, progress = ended()
            if progress.stopping and not failure:
                raise stopped(options, progress) from None
            raise failure or used_up(options, error, progress) from None
        except SystemExit:  # how Ray Train answers an interrupt
            _, progress = ended()
            if progress.stopping:
                raise stopped(options, progress) from None
            raise KeyboardInterrupt from None
        failure, progress = ended()
        if failure:
            raise failure
        last = _last(options)
        if progress.stopping and not (last and is_finished(last, options)):
            raise stopped(options, progress)


def _storage(run_uri: str, wait_seconds: float) -> tuple[dict[str, Any], str]:
    """Ray's storage settings for a run's URI, and the run's name in it."""
    fs, path = places.filesystem(run_uri)
    parent, _, name = path.rpartition("/")
    if places.is_local(run_uri):
        return {"storage_path": parent}, name
    import pyarrow.fs

    from jobs.training.worker.retrying import RetryingFiles

    # pyarrow's own S3 driver ignores AWS_ENDPOINT_URL; fsspec's serves every S3-compatible server.
    handler = pyarrow.fs.PyFileSystem(RetryingFiles(fs, wait_seconds))
    return {"storage_path": parent, "storage_filesystem": handler}, name
