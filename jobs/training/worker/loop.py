"""What every Ray Train worker does: draw its lanes of each batch, step, validate, checkpoint.

The gradient of a step is that of the global batch whatever the number of workers: each weighs the
losses of its lanes by 1 / (windows of the step), and a worker without a lane in a short last step
joins the collectives with a gradient of zero. Order, schedule and scheduled sampling are functions
of (seed, step, lane), so a checkpoint after any step resumes exactly.
"""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import numpy as np
import ray
import ray.train
import ray.util
import torch
import torch.distributed as dist
from ray.train.torch import get_device
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gmg_model import create_model
from gmg_model.models.ensembles import window_keys
from gmg_model.models.rollout import RecurrentForecaster
from gmg_model.training.optimisation import Optimisation, OptimisationConfig, learning_rate
from gmg_model.training.sampling import ScheduledSampling, forced_frames, observed_frames
from jobs.training.board import final_failure
from jobs.training.options import TrainOptions
from jobs.training.plan import TrainingPlan, check_fingerprint, make_plan
from jobs.training.run import checkpoints, run_folder
from jobs.training.worker.gradients import distributed
from jobs.training.worker.journal import Journal, windows_checksum
from jobs.training.worker.notices import Notices
from jobs.training.worker.retrying import epoch_with_retry
from jobs.training.worker.upload import Uploads
from jobs.training.worker.validation import Selection, losses_by_batch
from pipelines.storage.retry import Retry
from pipelines.stream.order import rank_lanes
from pipelines.stream.window_stream import Batch

FLUSH_STEPS = 10
"""Steps between two looks at the losses, so that a GPU is not waited for at every step."""


def train_worker(settings: dict[str, Any]) -> None:
    """Entry of a worker; ``settings``: options, the store's fingerprint, the board, the token of
    the driver's lease.
    """
    board = settings["board"]
    if ray.get(board.failure.remote()) or ray.get(board.stopping.remote()):
        # The group before this one met an error that this one would meet again, or was to end.
        return
    try:
        _train(TrainOptions.from_dict(settings["options"]), settings, board)
    except Exception as error:
        failure = final_failure(error)
        if failure is None:
            raise
        # Ray Train would start the group again; told so, the next one ends at once.
        ray.get(board.fail.remote(failure))
        raise


def _train(options: TrainOptions, settings: dict[str, Any], board: Any) -> None:
    torch.set_num_threads(options.cpus_per_worker)
    rank = ray.train.get_context().get_world_rank()
    retry = Retry(
        options.checkpoints.storage_wait,
        say=lambda line: board.say.remote(f"worker {rank}: {line}"),
    )
    ray.get(board.join.remote(rank, ray.util.get_node_ip_address()))
    plan = retry("opening the store", lambda: make_plan(options))
    check_fingerprint(plan, settings["fingerprint"])
    uploads = Uploads(options, settings["lease"], board, retry)
    worker = Worker(plan, board, retry, uploads)
    worker.resume()
    worker.say_where_it_begins()
    if worker.validating:
        worker.conclude(validates=True)
    while not worker.ended:
        worker.train_epoch()


class Worker:
    """The state of one worker: model, optimiser, stream, and how far the training is."""

    def __init__(self, plan: TrainingPlan, board: Any, retry: Retry, uploads: Uploads):
        self.plan, self.options, self.board = plan, plan.options, board
        self.retry, self.uploads = retry, uploads
        context = ray.train.get_context()
        self.rank, self.world = context.get_world_rank(), context.get_world_size()
        self.device = get_device()
        training = self.options.training

        torch.manual_seed(training.seed)  # every worker draws the same first weights
        self.model: Any = create_model(self.options.model.name, **plan.model_overrides)
        self.dtype = torch.float64 if training.precision == "fp64" else torch.float32
        if plan.static is not None:
            self.model.bind_static(torch.from_numpy(plan.static.values_shw))
        self.model.to(device=self.device, dtype=self.dtype)
        if training.compile:
            cast(RecurrentForecaster, self.model).compile_steps()
        self.optimisation = Optimisation(self.model, OptimisationConfig(**plan.optimisation))
        self.forward: nn.Module = self.model
        if self.world > 1:
            self.forward = distributed(self.model, training.gradient_compression)

        self.sampling = ScheduledSampling(**plan.sampling)
        self.stream = plan.stream(rank_lanes(training.global_batch, self.world, self.rank))
        self.step, self.epoch = 0, 0
        self.selection = Selection()
        self.validating = False
        """whether the validation of this step has begun and not ended"""
        self.journal = Journal(plan, self.rank, board)
        self.notices = Notices(board, self.rank, self.device, lambda: uploads.seconds)

    @property
    def finished(self) -> bool:
        """Whether the last epoch is done, or validation has not improved for long enough."""
        training = self.options.training
        return self.epoch >= training.epochs or self.selection.exhausted(training.patience)

    @property
    def ended(self) -> bool:
        """Whether training is finished, or was asked to end and has its checkpoint."""
        return self.finished or (self.notices.stop and not self.notices.checkpoint)

    def say_where_it_begins(self) -> None:
        """Tell the user with how many workers training goes on, and from which step."""
        if self.rank == 0 and (self.step or self.options.worker_range.is_elastic):
            self.board.say.remote(f"training from step {self.step} on {self.world} worker(s)")

    # --- one epoch -------------------------------------------------------------------------------

    def train_epoch(self) -> None:
        """Train from where the epoch stands to its end, validate, and write a checkpoint."""
        first = self.step - self.epoch * self.plan.steps_per_epoch
        checkpoints_every = self.options.checkpoints.every_steps
        validations_every = self.options.validation.every_steps
        for batch in epoch_with_retry(self.stream, self.epoch, first, self.retry):
            self.train_step(batch)
            if batch.step + 1 == self.plan.steps_per_epoch:
                continue
            validates = validations_every and self.step % validations_every == 0
            due = bool(checkpoints_every) and self.step % checkpoints_every == 0
            if validates or due or self.notices.checkpoint:
                self.conclude(bool(validates))
            if self.ended:
                self.stream.close()
                return
        self.epoch += 1
        last = self.epoch == self.options.training.epochs
        due = last or self.epoch % self.options.validation.every_epochs == 0
        self.conclude(due)

    def train_step(self, batch: Batch) -> None:
        """One optimisation step on this worker's lanes of the global batch."""
        began = time.process_time()
        windows = self._windows_of_step(batch.step)
        weight = self.world / windows  # DistributedDataParallel averages over the workers
        torch.manual_seed(self.options.training.seed * 1_000_003 + self.step)
        losses = self._backward(batch, weight)
        total, drawn, flags = self._sum_over_workers(losses.sum() / windows, batch)
        skips = self.options.training.on_nonfinite == "skip"
        norm = self.optimisation.update(self.step, loss=total if skips else None)
        record = {
            "step": self.step,
            "epoch": self.epoch,
            "loss": total,
            "gradient_norm": norm,
            "learning_rate": learning_rate(self.step, self.optimisation.config),
            "windows": drawn,
            "workers": self.world,
            "processor_seconds": round(time.process_time() - began, 4),  # whatever else runs
        }
        self.journal.add(record, batch.starts, losses)
        self.step += 1
        if self.step % FLUSH_STEPS == 0 or self.device.type == "cpu":
            self.journal.flush(self.stream.wait_seconds)
        self.notices.hear(flags)

    def _sum_over_workers(self, loss: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The step's loss, the checksum of its windows, and what was heard: in one collective."""
        drawn = windows_checksum(batch.starts, batch.lanes)
        rest = torch.tensor([drawn, *self.notices.flags()], dtype=torch.float64)
        sums = torch.cat([loss.detach().double().reshape(1), rest.to(self.device)])
        if self.world > 1:
            dist.all_reduce(sums)
        return sums[0], sums[1], sums[2:]

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
            static = None
            if batch.static is not None and batch.static.ndim == 4:  # moved with each window
                static = torch.from_numpy(batch.static[part]).to(self.device, self.dtype)
            with self._collectives(at_end=first + size >= len(frames)):
                losses.append(self._part(frames_btchw, batch.lanes[part], weight, static))
        return torch.cat(losses)

    def _collectives(self, at_end: bool) -> AbstractContextManager[Any]:
        """Gradients travel once a step, with the last micro-batch."""
        if at_end or not isinstance(self.forward, DistributedDataParallel):
            return nullcontext()
        return self.forward.no_sync()

    def _part(
        self,
        frames_btchw: Tensor,
        lanes: np.ndarray,
        weight: float,
        static: Tensor | None = None,
    ) -> Tensor:
        """Gradients of some lanes; what is fed to each is a function of (seed, step, lane)."""
        window, draw = self.plan.window, (self.options.training.seed, self.step, lanes)
        when = (self.step, self.plan.total_steps)
        forced = forced_frames(self.sampling.probability(*when), window.horizon, *draw)
        shown = None
        if (observed := self.sampling.observed_probability(*when)) < 1:
            shown = observed_frames(observed, window.input_frames, *draw)
        keys = (
            window_keys(draw[0], lanes, self.step) if self.optimisation.config.members > 1 else None
        )
        return self.optimisation.backward(
            self.forward, frames_btchw, window.input_frames, forced, weight, shown, keys, static
        )

    # --- validation and checkpoints --------------------------------------------------------------

    def conclude(self, validates: bool) -> None:
        """Write the checkpoint of this step, after its validation where one is due.

        A validation that is left because training is to end has its checkpoint already.
        """
        loss = self.validate() if validates else None
        if not self.validating:
            self.checkpoint(loss)

    def validate(self) -> float | None:
        """Mean loss of free-running forecasts over the validation windows, on all workers.

        What is asked from outside is heard between two batches, by all workers after the same one:
        a checkpoint is written there, from which the validation is done again.
        """
        windows = len(self.plan.validation_starts)
        if not windows:
            self.validating = False
            return None
        began, written = time.monotonic(), self.validating
        self.validating = True
        losses = losses_by_batch(
            self.plan,
            self.model,
            self.optimisation,
            self.rank,
            self.world,
            lambda values: torch.from_numpy(values).to(self.device, self.dtype),
            self.retry,
        )
        total: Any = 0.0
        for part in losses:
            total = total + part
            self.notices.hear(self._over_workers(self.notices.flags()))
            if self.notices.checkpoint and not written:
                since = time.monotonic()
                self.checkpoint()
                began, written = began + time.monotonic() - since, True
            elif self.notices.checkpoint:
                self.uploads.answer(self.step, self.notices.written())
            if self.notices.stop:
                return None
        if self.world > 1:
            dist.all_reduce(total)
        self.validating = False
        self.journal.leave_out(time.monotonic() - began)
        return float(total) / windows

    def _over_workers(self, values: tuple[float, ...]) -> Tensor:
        """Sums over the workers, which all of them get."""
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        if self.world > 1:
            dist.all_reduce(sums)
        return sums

    def checkpoint(self, validation_loss: float | None = None) -> None:
        """Report a checkpoint; history, curves and files are uploaded behind the training."""
        self.journal.flush(self.stream.wait_seconds)
        steps = self.journal.take(validation_loss, again=self.validating)
        began, answers = time.monotonic(), self.notices.written()
        if validation_loss is not None:
            self.selection = self.selection.after(validation_loss, self.step)
        metrics = {
            "step": self.step,
            "epoch": self.epoch,
            # Ray keeps the lowest; one that was not validated comes last, by a number that survives
            # JSON, as infinity does not.
            "validation_loss": sys.float_info.max if validation_loss is None else validation_loss,
        }
        if self.rank == 0:
            weights = self.optimisation.evaluated_weights() | checkpoints.data_tensors(
                self.plan.normalisation, self.plan.static
            )
            training = self.optimisation.state_tensors()
            if self.optimisation.config.ema:
                raw = self.model.state_dict()
                training |= {f"model/{name}": value for name, value in raw.items()}
            record = self._record(validation_loss)
            self.uploads.send(steps, record, weights, training, metrics, answers)
        else:
            # In the same mode: where an upload takes long, no worker waits for Ray to note it.
            ray.train.report(
                metrics,
                checkpoint=None,
                checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC,
            )
        self.journal.stood_still(time.monotonic() - began)

    def _record(self, validation_loss: float | None) -> dict[str, Any]:
        return {
            "step": self.step,
            "epoch": self.epoch,
            "steps_per_epoch": self.plan.steps_per_epoch,
            "finished": self.finished and not self.validating,
            "validating": self.validating,
            "validation_loss": validation_loss,
            "selection": self.selection.as_dict(),
            "skipped": self.journal.skipped,
            "device": self.device.type,
            **self.plan.as_dict(),
            "versions": run_folder.versions(),
        }

    def resume(self) -> None:
        """Take up the latest complete checkpoint of the run, the same one on every worker."""
        uris = [self.retry("looking for checkpoints", self._latest)]
        if self.world > 1:
            dist.broadcast_object_list(uris, src=0, device=self.device)
        uri = uris[0]
        if uri is None:
            return

        def load() -> tuple[checkpoints.Checkpoint, dict[str, Tensor], dict[str, Tensor]]:
            checkpoint = checkpoints.load_checkpoint(uri)
            return checkpoint, checkpoint.tensors, checkpoint.training_tensors

        checkpoint, weights, training = self.retry("reading the checkpoint", load)
        raw = {
            name.removeprefix("model/"): value
            for name, value in training.items()
            if name.startswith("model/")
        }
        self.model.load_state_dict(raw or weights)
        self.optimisation.load_state_tensors(training)
        self.step = checkpoint.step
        self.epoch = checkpoint.step // self.plan.steps_per_epoch
        self.selection = Selection(**checkpoint.selection)
        self.journal.start(checkpoint.record.get("skipped", {}))
        self.validating = checkpoint.validating
        if self.validating and self.rank == 0:
            last = self.retry("reading", lambda: run_folder.last_stretch(self.options.run))
            self.journal.restore(last)

    def _latest(self) -> str | None:
        """On the first worker: the run's latest checkpoint; what came after it is forgotten."""
        if self.rank != 0:
            return None
        found = checkpoints.list_checkpoints(self.options.run)
        run_folder.forget_after(self.options.run, found[-1].step if found else 0)
        return found[-1].uri if found else None
