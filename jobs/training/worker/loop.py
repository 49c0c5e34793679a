"""What every Ray Train worker does: draw its lanes of each batch, step, validate, checkpoint.

The gradient of a step is that of the global batch, whatever the number of workers. Each worker
weighs the losses of its lanes by 1 / (windows of the step). A worker without a lane in a short last
step joins the collectives with a gradient of zero. Order, schedule and scheduled sampling are
functions of (seed, step, lane), so a checkpoint after any step resumes exactly.
"""

from __future__ import annotations

import sys
import time
from typing import Any, cast

import ray
import ray.train
import ray.util
import torch
import torch.distributed as dist
from ray.train.torch import get_device
from torch import Tensor, nn

from gmg_model import create_model
from gmg_model.models.rollout import RecurrentForecaster
from gmg_model.training.optimisation import Optimisation, learning_rate
from jobs.training.options import TrainOptions
from jobs.training.plan import TrainingPlan, check_fingerprint, make_plan
from jobs.training.run import checkpoints, run_folder
from jobs.training.status_board import final_failure
from jobs.training.worker.gradients import LaneGradients, distributed
from jobs.training.worker.journal import Journal, windows_checksum
from jobs.training.worker.requests import Requests
from jobs.training.worker.retrying import epoch_with_retry
from jobs.training.worker.upload import Uploads
from jobs.training.worker.validation import Selection, losses_by_batch
from pipelines.storage.retry import Retry
from pipelines.stream.order import rank_lanes
from pipelines.stream.window_stream import Batch

FLUSH_STEPS = 10
"""steps between two looks at the losses, so that the host does not wait for a GPU at every step"""


def train_worker(settings: dict[str, Any]) -> None:
    """Run one worker.

    Parameters
    ----------
    settings:
        `options`: the options as a dictionary. `fingerprint`: of the store's statistics. `board`:
        the status board. `lease`: the token of the driver's lease.
    """
    board = settings["board"]
    if ray.get(board.failure.remote()) or ray.get(board.is_stopping.remote()):
        # The group before this one met an error that this one would meet again, or had to stop.
        return
    try:
        _train(TrainOptions.from_dict(settings["options"]), settings, board)
    except Exception as error:
        failure = final_failure(error)
        if failure is None:
            raise
        # Ray Train starts the group again. The next group finds the failure and ends at once.
        ray.get(board.set_failure.remote(failure))
        raise


def _train(options: TrainOptions, settings: dict[str, Any], board: Any) -> None:
    torch.set_num_threads(options.cpus_per_worker)
    rank = ray.train.get_context().get_world_rank()
    retry = Retry(
        options.checkpoints.storage_wait,
        say=lambda line: board.add_line.remote(f"worker {rank}: {line}"),
    )
    ray.get(board.add_worker.remote(rank, ray.util.get_node_ip_address()))
    plan = retry("opening the store", lambda: make_plan(options))
    check_fingerprint(plan, settings["fingerprint"])
    uploads = Uploads(options, settings["lease"], board, retry)
    worker = Worker(plan, board, retry, uploads)
    worker.resume()
    worker.report_start()
    if worker.validating:
        worker.conclude(validates=True)
    while not worker.ended:
        worker.train_epoch()


class Worker:
    """The state of one worker: model, optimiser, stream, and the steps done."""

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
        self.optimisation = Optimisation(self.model, plan.optimisation, plan.total_steps)
        forward: nn.Module = self.model
        if self.world > 1:
            forward = distributed(self.model, training.gradient_compression)
        self.gradients = LaneGradients(plan, self.optimisation, forward, self.dtype, self.device)

        self.stream = plan.stream(rank_lanes(training.global_batch, self.world, self.rank))
        self.step, self.epoch = 0, 0
        self.selection = Selection()
        self.validating = False
        """whether the validation of this step has begun and not ended"""
        self.journal = Journal(plan, self.rank, board)
        self.requests = Requests(board, self.rank, self.device, lambda: uploads.seconds)

    @property
    def finished(self) -> bool:
        """Whether the last epoch is done, or validation has not improved for long enough."""
        training = self.options.training
        return self.epoch >= training.epochs or self.selection.exhausted(training.patience)

    @property
    def ended(self) -> bool:
        """Whether training is finished, or was asked to stop and has its checkpoint."""
        return self.finished or (self.requests.stop and not self.requests.checkpoint)

    def report_start(self) -> None:
        """Report from which step training goes on, and on how many workers."""
        if self.rank == 0 and (self.step or self.options.worker_range.is_elastic):
            self.board.add_line.remote(f"training from step {self.step} on {self.world} worker(s)")

    # --- one epoch -------------------------------------------------------------------------------

    def train_epoch(self) -> None:
        """Train to the end of the epoch, validate, and write a checkpoint."""
        first = self.step - self.epoch * self.plan.steps_per_epoch
        checkpoints_every = self.options.checkpoints.every_steps
        validations_every = self.options.validation.every_steps
        for batch in epoch_with_retry(self.stream, self.epoch, first, self.retry):
            self.train_step(batch)
            if batch.step + 1 == self.plan.steps_per_epoch:
                continue
            validates = validations_every and self.step % validations_every == 0
            due = bool(checkpoints_every) and self.step % checkpoints_every == 0
            if validates or due or self.requests.checkpoint:
                self.conclude(bool(validates))
            if self.ended:
                self.stream.close()
                return
        self.epoch += 1
        last = self.epoch == self.options.training.epochs
        due = last or self.epoch % self.options.validation.every_epochs == 0
        self.conclude(due)

    def train_step(self, batch: Batch) -> None:
        """Do one optimisation step on this worker's lanes of the global batch."""
        began = time.process_time()
        windows = self._windows_of_step(batch.step)
        weight = self.world / windows  # DistributedDataParallel averages over the workers
        torch.manual_seed(self.options.training.seed * 1_000_003 + self.step)
        losses = self.gradients.add(batch, self.step, weight)
        total, drawn, flags = self._sum_over_workers(losses.sum() / windows, batch)
        skips = self.options.training.on_nonfinite == "skip"
        norm = self.optimisation.update(self.step, loss=total if skips else None)
        record = {
            "step": self.step,
            "epoch": self.epoch,
            "loss": total,
            "gradient_norm": norm,
            "learning_rate": learning_rate(self.step, self.options.training, self.plan.total_steps),
            "windows": drawn,
            "workers": self.world,
            "processor_seconds": round(time.process_time() - began, 4),  # whatever else runs
        }
        self.journal.add(record, batch.starts, losses)
        self.step += 1
        if self.step % FLUSH_STEPS == 0 or self.device.type == "cpu":
            self.journal.flush(self.stream.wait_seconds)
        self.requests.apply(flags)

    def _sum_over_workers(self, loss: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Sum the loss, the checksum of the windows and the request flags, in one collective."""
        drawn = windows_checksum(batch.starts, batch.lanes)
        rest = torch.tensor([drawn, *self.requests.flags()], dtype=torch.float64)
        sums = torch.cat([loss.detach().double().reshape(1), rest.to(self.device)])
        if self.world > 1:
            dist.all_reduce(sums)
        return sums[0], sums[1], sums[2:]

    def _windows_of_step(self, step: int) -> int:
        """Return the windows of the global batch: all lanes, or the rest in the last step."""
        batch = self.options.training.global_batch
        return min(batch, len(self.plan.train_starts) - step * batch)

    # --- validation and checkpoints --------------------------------------------------------------

    def conclude(self, validates: bool) -> None:
        """Validate if a validation is due, then write the checkpoint of this step.

        A validation that is left because training has to stop has its checkpoint already.
        """
        loss = self.validate() if validates else None
        if not self.validating:
            self.checkpoint(loss)

    def validate(self) -> float | None:
        """Return the mean loss of free-running forecasts over the validation windows.

        All workers validate together, and hear requests after the same batch. A checkpoint that is
        written there does not count as validated: resuming from it begins the validation again.
        None if there are no windows, or if training has to stop.
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
            self.requests.apply(self._over_workers(self.requests.flags()))
            if self.requests.checkpoint and not written:
                since = time.monotonic()
                self.checkpoint()
                began, written = began + time.monotonic() - since, True
            elif self.requests.checkpoint:
                self.uploads.answer(self.step, self.requests.fulfil())
            if self.requests.stop:
                return None
        if self.world > 1:
            dist.all_reduce(total)
        self.validating = False
        self.journal.leave_out(time.monotonic() - began)
        return float(total) / windows

    def _over_workers(self, values: tuple[float, ...]) -> Tensor:
        """Return the sums over the workers, on all of them."""
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        if self.world > 1:
            dist.all_reduce(sums)
        return sums

    def checkpoint(self, validation_loss: float | None = None) -> None:
        """Report a checkpoint to Ray Train; its upload goes on while training continues."""
        self.journal.flush(self.stream.wait_seconds)
        steps = self.journal.take(validation_loss, again=self.validating)
        began, answers = time.monotonic(), self.requests.fulfil()
        if validation_loss is not None:
            self.selection = self.selection.after(validation_loss, self.step)
        metrics = {
            "step": self.step,
            "epoch": self.epoch,
            # Ray keeps the lowest. A checkpoint that was not validated comes last, by a number that
            # survives JSON, as infinity does not.
            "validation_loss": sys.float_info.max if validation_loss is None else validation_loss,
        }
        if self.rank == 0:
            weights = self.optimisation.evaluated_weights() | checkpoints.data_tensors(
                self.plan.normalisation, self.plan.static
            )
            training = self.optimisation.state_tensors()
            if self.options.training.ema:
                raw = self.model.state_dict()
                training |= {f"model/{name}": value for name, value in raw.items()}
            record = self._record(validation_loss)
            self.uploads.send(steps, record, weights, training, metrics, answers)
        else:
            # In the same mode, so that no worker waits for Ray while an upload takes long.
            ray.train.report(
                metrics,
                checkpoint=None,
                checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC,
            )
        self.journal.add_checkpoint_time(time.monotonic() - began)

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
        """Load the latest complete checkpoint of the run, the same one on every worker."""
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
        """Return the run's latest checkpoint, on the first worker; forget what came after it."""
        if self.rank != 0:
            return None
        found = checkpoints.list_checkpoints(self.options.run)
        run_folder.forget_after(self.options.run, found[-1].step if found else 0)
        return found[-1].uri if found else None
