"""What every Ray Train worker does: draw its lanes of each batch, step, validate, checkpoint.

The gradient of a step is that of the global batch whatever the number of workers: each weighs the
losses of its lanes by 1 / (windows of the step), and a worker without a lane in a short last step
joins the collectives with a gradient of zero. Order, schedule and scheduled sampling are functions
of (seed, step, lane), so a checkpoint after any step resumes exactly.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
import torch
import torch.distributed as dist
from ray.train.torch import get_device
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gmg_model import create_model
from gmg_model.sampling import ScheduledSampling, forced_frames, observed_frames
from gmg_model.training import Optimisation, OptimisationConfig, learning_rate
from jobs.training import checkpoints, run
from jobs.training.board import final_failure
from jobs.training.options import TrainOptions
from jobs.training.plan import TrainingPlan, check_fingerprint, make_plan
from pipelines.errors import PlatformError
from pipelines.order import rank_lanes
from pipelines.stream import Batch, WindowStream, read_batches

FLUSH_STEPS = 10
"""Steps between two looks at the losses, so that a GPU is not waited for at every step."""
NEWS_SECONDS = 0.5


def train_worker(settings: dict[str, Any]) -> None:
    """Entry of a worker; ``settings``: options, the store's fingerprint, the board."""
    board = settings["board"]
    if ray.get(board.failure.remote()):
        return  # the group before this one met an error that this one would meet again
    try:
        _train(TrainOptions.from_dict(settings["options"]), settings["fingerprint"], board)
    except Exception as error:
        failure = final_failure(error)
        if failure is None:
            raise
        # Ray Train would start the group again; told so, the next one ends at once.
        ray.get(board.fail.remote(failure))
        raise


def _train(options: TrainOptions, fingerprint: str, board: Any) -> None:
    torch.set_num_threads(options.cpus_per_worker)
    plan = make_plan(options)
    check_fingerprint(plan, fingerprint)
    worker = Worker(plan, board)
    worker.resume()
    while worker.epoch < options.training.epochs:
        worker.train_epoch()


class Worker:
    """The state of one worker: model, optimiser, stream, and how far the training is."""

    def __init__(self, plan: TrainingPlan, board: Any):
        self.plan, self.options, self.board = plan, plan.options, board
        context = ray.train.get_context()
        self.rank, self.world = context.get_world_rank(), context.get_world_size()
        self.device = get_device()
        training = self.options.training

        torch.manual_seed(training.seed)  # every worker draws the same first weights
        self.model = create_model(self.options.model.name, **plan.model_overrides)
        self.dtype = torch.float64 if training.precision == "fp64" else torch.float32
        self.model.to(device=self.device, dtype=self.dtype)
        self.optimisation = Optimisation(self.model, OptimisationConfig(**plan.optimisation))
        self.forward: nn.Module = self.model
        if self.world > 1:
            self.forward = DistributedDataParallel(self.model, gradient_as_bucket_view=True)

        self.sampling = ScheduledSampling(**plan.sampling)
        self.stream = WindowStream(
            store=plan.store,
            variables=plan.variables,
            spec=plan.window,
            starts=plan.train_starts,
            order=plan.order,
            normalisation=plan.normalisation,
            lanes=rank_lanes(training.global_batch, self.world, self.rank),
            augmentation=plan.augmentation,
        )
        self.step, self.epoch = 0, 0
        self.pending: list[dict[str, Any]] = []
        self.history: list[dict[str, Any]] = []
        self.last_news = self.started = time.monotonic()
        self.first_step = 0

    # --- one epoch -------------------------------------------------------------------------------

    def train_epoch(self) -> None:
        """Train from where the epoch stands to its end, validate, and write a checkpoint."""
        first = self.step - self.epoch * self.plan.steps_per_epoch
        every = self.options.checkpoints.every_steps
        for batch in self.stream.epoch(self.epoch, first_step=first):
            self.train_step(batch)
            at_end = batch.step + 1 == self.plan.steps_per_epoch
            if every and self.step % every == 0 and not at_end:
                self.checkpoint()
        self.epoch += 1
        last = self.epoch == self.options.training.epochs
        due = last or self.epoch % self.options.validation.every_epochs == 0
        self.checkpoint(self.validate() if due else None)

    def train_step(self, batch: Batch) -> None:
        """One optimisation step on this worker's lanes of the global batch."""
        windows = self._windows_of_step(batch.step)
        weight = self.world / windows  # DistributedDataParallel averages over the workers
        torch.manual_seed(self.options.training.seed * 1_000_003 + self.step)
        losses = self._backward(batch, weight)
        norm = self.optimisation.update(self.step)
        total = losses.sum() / windows
        if self.world > 1:
            dist.all_reduce(total)
        self.pending.append(
            {
                "step": self.step,
                "epoch": self.epoch,
                "loss": total,
                "gradient_norm": norm,
                "learning_rate": learning_rate(self.step, self.optimisation.config),
                "starts": batch.starts.copy(),
            }
        )
        self.step += 1
        if self.step % FLUSH_STEPS == 0 or self.device.type == "cpu":
            self.flush()

    def _windows_of_step(self, step: int) -> int:
        """Windows of the global batch: all lanes, or what is left for the epoch's last step."""
        batch = self.options.training.global_batch
        return min(batch, len(self.plan.train_starts) - step * batch)

    def _backward(self, batch: Batch, weight: float) -> Tensor:
        """Gradients of this worker's lanes, in micro-batches where they are asked for."""
        if not len(batch.lanes):
            # A worker without a lane: a window of zeros of no weight, so that no collective hangs.
            c, h, w = self.plan.model_overrides["in_shape"]
            frames_btchw = torch.zeros(
                1, self.plan.window.frames, c, h, w, dtype=self.dtype, device=self.device
            )
            return self._part(frames_btchw, np.zeros(1, int), 0.0) * 0
        frames = torch.from_numpy(batch.frames_btchw)
        size = self.options.training.micro_batch or len(frames)
        losses = []
        for first in range(0, len(frames), size):
            part = slice(first, first + size)
            frames_btchw = frames[part].to(self.device, self.dtype)
            with self._collectives(at_end=first + size >= len(frames)):
                losses.append(self._part(frames_btchw, batch.lanes[part], weight))
        return torch.cat(losses)

    def _collectives(self, at_end: bool) -> AbstractContextManager[Any]:
        """Gradients travel once a step, with the last micro-batch."""
        if at_end or not isinstance(self.forward, DistributedDataParallel):
            return nullcontext()
        return self.forward.no_sync()

    def _part(self, frames_btchw: Tensor, lanes: np.ndarray, weight: float) -> Tensor:
        """Gradients of some lanes; what is fed to each is a function of (seed, step, lane)."""
        window, draw = self.plan.window, (self.options.training.seed, self.step, lanes)
        when = (self.step, self.plan.total_steps)
        forced = forced_frames(self.sampling.probability(*when), window.horizon, *draw)
        shown = None
        if (observed := self.sampling.observed_probability(*when)) < 1:
            shown = observed_frames(observed, window.input_frames, *draw)
            shown = shown.to(self.device, self.dtype)
        return self.optimisation.backward(
            self.forward,
            frames_btchw,
            window.input_frames,
            forced.to(self.device, self.dtype),
            weight,
            shown,
        )

    # --- what is seen of it ----------------------------------------------------------------------

    def flush(self) -> None:
        """Read the pending losses, refuse what is not finite, and tell the driver.

        Raises
        ------
        PlatformError
            A loss or a gradient is not finite; the step and windows are named.
        """
        for record in self.pending:
            starts = record.pop("starts")
            record["loss"] = float(record["loss"])
            record["gradient_norm"] = float(record["gradient_norm"])
            if not math.isfinite(record["loss"] + record["gradient_norm"]):
                times = ", ".join(
                    str(self.plan.store.times[start].astype("datetime64[m]"))
                    for start in starts[:8]
                )
                raise PlatformError(
                    f"the loss of step {record['step']} is {record['loss']} and the norm of its "
                    f"gradient {record['gradient_norm']}",
                    where=f"{self.plan.store.uri}, worker {self.rank}, windows that begin at "
                    f"{times}",
                    remedy="begin a new --run with a smaller --training.learning_rate, or with "
                    "--training.precision fp32; reprocess.py verify checks the store",
                )
            self.history.append(record)
        self.pending.clear()
        now = time.monotonic()
        if self.rank == 0 and self.history and now - self.last_news > NEWS_SECONDS:
            self.last_news = now
            self._tell(now)

    def _tell(self, now: float) -> None:
        done = self.step - self.first_step
        elapsed = now - self.started
        rate = done * self.options.training.global_batch / elapsed
        waited = 100 * self.stream.wait_seconds / elapsed
        note = (
            f"epoch {self.history[-1]['epoch'] + 1}/{self.options.training.epochs} "
            f"loss {self.history[-1]['loss']:.4f} {rate:.1f} windows/s data wait {waited:.1f} %"
        )
        self.board.write.remote({"step": self.step, "steps": self.plan.total_steps, "note": note})

    def validate(self) -> float | None:
        """Mean loss of free-running forecasts over the validation windows, on all workers."""
        starts = self.plan.validation_starts
        if not len(starts):
            return None
        weights = self.optimisation.evaluated_weights()
        spec = self.plan.window
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        mine = starts[self.rank :: self.world]
        batch = max(1, self.options.training.global_batch // self.world)
        batches = read_batches(self.plan.store, self.plan.variables, spec, mine, batch)
        self.model.eval()
        with torch.no_grad(), self.optimisation.autocast():
            for _, physical_btchw in batches:
                normalised = np.nan_to_num(self.plan.normalisation.apply(physical_btchw))
                frames_btchw = torch.from_numpy(normalised).to(self.device, self.dtype)
                given, true = frames_btchw.split([spec.input_frames, spec.horizon], dim=1)
                forecast = torch.func.functional_call(self.model, weights, (given, spec.horizon))
                total += self.optimisation.losses(forecast, true).sum()
        self.model.train()
        if self.world > 1:
            dist.all_reduce(total)
        return float(total) / len(starts)

    # --- checkpoints -----------------------------------------------------------------------------

    def checkpoint(self, validation_loss: float | None = None) -> None:
        """Write the history and report a checkpoint; the upload goes on behind the training."""
        self.flush()
        metrics = {
            "step": self.step,
            "epoch": self.epoch,
            "loss": self.history[-1]["loss"] if self.history else math.nan,
            # Ray keeps the lowest; one that was not validated comes last, by a number that survives
            # JSON, as infinity does not.
            "validation_loss": sys.float_info.max if validation_loss is None else validation_loss,
        }
        if self.rank != 0:
            self.history.clear()
            ray.train.report(metrics, checkpoint=None)
            return
        run.write_history(self.options.run, self.history)
        self.history.clear()
        folder = Path(tempfile.mkdtemp(prefix="checkpoint_"))
        weights = self.optimisation.evaluated_weights()
        training = self.optimisation.state_tensors()
        if self.optimisation.config.ema:
            raw = self.model.state_dict()
            training |= {f"model/{name}": value for name, value in raw.items()}
        checkpoints.write(folder, self._record(validation_loss), weights, training)
        ray.train.report(
            metrics,
            checkpoint=ray.train.Checkpoint.from_directory(str(folder)),
            checkpoint_dir_name=checkpoints.directory_name(self.step),
            checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC,
            delete_local_checkpoint_after_upload=True,
        )

    def _record(self, validation_loss: float | None) -> dict[str, Any]:
        plan = self.plan
        return {
            "step": self.step,
            "epoch": self.epoch,
            "steps_per_epoch": plan.steps_per_epoch,
            "finished": self.epoch >= self.options.training.epochs,
            "validation_loss": validation_loss,
            "options": self.options.as_dict(),
            "model": {"name": self.options.model.name, "overrides": plan.model_overrides},
            "variables": list(plan.variables),
            "grid": list(plan.store.spatial_shape),
            "window": {
                "input_frames": plan.window.input_frames,
                "horizon": plan.window.horizon,
                "stride": plan.window.stride,
            },
            "normalisation": plan.normalisation.to_json(),
            "statistics_fingerprint": plan.store.fingerprint,
            "validation_period": plan.store.attributes["splits"].get("validation"),
            "store": {
                "uri": plan.store.uri,
                "title": plan.store.title,
                "train_period": plan.store.attributes["splits"]["train"],
                "cadence_seconds": int(plan.store.cadence / np.timedelta64(1, "s")),
            },
            "versions": run.versions(),
        }

    def resume(self) -> None:
        """Take up the latest complete checkpoint of the run, the same one on every worker."""
        found = checkpoints.list_checkpoints(self.options.run) if self.rank == 0 else []
        uris = [found[-1].uri if found else None]
        if self.world > 1:
            dist.broadcast_object_list(uris, src=0, device=self.device)
        if uris[0] is None:
            return
        checkpoint = checkpoints.load_checkpoint(uris[0])
        training = checkpoint.training_tensors
        raw = {
            name.removeprefix("model/"): value
            for name, value in training.items()
            if name.startswith("model/")
        }
        self.model.load_state_dict(raw or checkpoint.tensors)
        self.optimisation.load_state_tensors(training)
        self.step = self.first_step = checkpoint.step
        self.epoch = checkpoint.step // self.plan.steps_per_epoch
        self.started = time.monotonic()
