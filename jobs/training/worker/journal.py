"""Records of a worker's steps: losses and speed, for the history, the terminal and the gauges.

Losses stay on the device until a flush reads several at once, so that the host does not wait for a
GPU at every step. A loss or gradient that is not finite is found here. It ends the run, or the step
is counted as left out; the windows that may be to blame are named.
"""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ray.util.metrics import Gauge
from torch import Tensor

from jobs.training.plan import TrainingPlan
from jobs.training.status_board import StepProgress
from pipelines.errors import PlatformError

PROGRESS_SECONDS = 0.5
"""between two updates of the progress on the terminal and of the gauges"""
RECENT_FLUSHES = 20
"""flushes whose mean speed the terminal shows"""
MOST_SKIPPED = 10
"""steps in a row that may be left out because they are not finite; then the run ends"""
METRICS = {
    "gmg_samples_per_second": "Windows trained on each second, over all workers",
    "gmg_data_wait_fraction": "Part of the time that the first worker waited for batches",
    "gmg_checkpoint_seconds": "Seconds that training stood still for the last checkpoint",
    "gmg_loss": "Training loss of the last step, over all workers",
}
"""gauges that every node's metrics port exports, tagged by run; Ray puts `ray_` before them"""


def windows_checksum(starts: np.ndarray, lanes: np.ndarray) -> int:
    """Return a checksum of windows and their lanes; those of the workers add up.

    It shows whether two runs drew the same windows at a step, in any order and on any number of
    workers. Sums stay below 2^53, so float64 holds them exactly.

    Examples
    --------
    >>> both = windows_checksum(np.array([5, 9]), np.array([0, 1]))
    >>> both == sum(windows_checksum(np.array([s]), np.array([l])) for s, l in [(9, 1), (5, 0)])
    True
    """
    mixed = starts.astype(np.uint64) * np.uint64(2654435761) + lanes.astype(np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(17))) * np.uint64(2246822519)
    return int((mixed % np.uint64(2**32)).sum())


@dataclass(frozen=True)
class Stretch:
    """Some steps and the time that they took."""

    steps: int
    seconds: float
    waited: float
    """seconds waited for batches"""

    def samples_per_second(self, global_batch: int) -> float:
        """Return the windows per second over all workers."""
        return self.steps * global_batch / max(self.seconds, 1e-9)

    @property
    def data_wait_fraction(self) -> float:
        """Part of the time spent waiting for batches, 0 to 1."""
        return min(1.0, self.waited / max(self.seconds, 1e-9))


class Stopwatch:
    """Times the steps of training, without the validations and checkpoints between them."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._waited, self._left_out = 0.0, 0.0

    def lap(self, steps: int, waited: float) -> Stretch:
        """Return the stretch of `steps` since the last lap.

        Parameters
        ----------
        waited:
            Seconds that the stream has waited, since its start.
        """
        now = time.monotonic()
        seconds = now - self._began - self._left_out
        stretch = Stretch(steps, max(seconds, 0.0), waited - self._waited)
        self._began, self._waited, self._left_out = now, waited, 0.0
        return stretch

    def leave_out(self, seconds: float) -> None:
        """Do not count this time in the current lap."""
        self._left_out += seconds


class Gauges:
    """The run's latest numbers on the metrics port of this worker's node (Prometheus)."""

    def __init__(self, run: str):
        self._gauges: dict[str, Any] = {}
        for name, description in METRICS.items():
            gauge = Gauge(name, description=description, tag_keys=("run",))
            gauge.set_default_tags({"run": run})
            self._gauges[name] = gauge

    def show(self, **values: float) -> None:
        """Set gauges by their names without `gmg_`."""
        for name, value in values.items():
            self._gauges[f"gmg_{name}"].set(value)


class Journal:
    """The step records of one worker; those of the first worker become the run's history."""

    def __init__(self, plan: TrainingPlan, rank: int, board: Any):
        self._plan, self._rank, self._board = plan, rank, board
        self._global_batch = plan.options.training.global_batch
        self._pending: list[tuple[dict[str, Any], np.ndarray, Tensor]] = []
        self._steps: list[dict[str, Any]] = []
        self._stopwatch, self._recent = Stopwatch(), deque[Stretch](maxlen=RECENT_FLUSHES)
        self._checkpoint_seconds = 0.0
        self._gauges = Gauges(plan.options.run) if rank == 0 else None
        self._last_progress = time.monotonic()
        self.skipped = {"total": 0, "in_a_row": 0}
        """steps left out"""

    def start(self, skipped: dict[str, int]) -> None:
        """Begin to count time, and the steps left out from what a checkpoint recorded."""
        self.skipped |= skipped
        self._stopwatch = Stopwatch()

    def add(self, record: dict[str, Any], starts: np.ndarray, losses: Tensor) -> None:
        """Add a step.

        Parameters
        ----------
        record:
            `step`, `epoch`, `loss`, `gradient_norm`, `windows` (these three may be tensors),
            `learning_rate` and `workers`.
        starts, losses:
            (b,) this worker's windows and their losses.
        """
        self._pending.append((record, starts.copy(), losses))

    def flush(self, waited: float) -> None:
        """Read the pending losses, and report the progress to the driver.

        Parameters
        ----------
        waited:
            Seconds that the stream has waited, since its start.

        Raises
        ------
        PlatformError
            A loss or a gradient is not finite; the step and windows are named.
        """
        if not self._pending:
            return
        stretch = self._stopwatch.lap(len(self._pending), waited)
        self._recent.append(stretch)
        for record, starts, losses in self._pending:
            record["loss"] = float(record["loss"])
            record["gradient_norm"] = float(record["gradient_norm"])
            record["windows"] = int(record["windows"])
            if math.isfinite(record["loss"] + record["gradient_norm"]):
                self.skipped["in_a_row"] = 0
            else:
                self._handle_nonfinite(record, starts, losses)
            rate = stretch.samples_per_second(self._global_batch)
            record["samples_per_second"] = round(rate, 2)
            record["data_wait_percent"] = round(100 * stretch.data_wait_fraction, 2)
            if self._checkpoint_seconds:
                record["checkpoint_seconds"] = round(self._checkpoint_seconds, 3)
                self._checkpoint_seconds = 0.0
            record["time"] = round(time.time(), 3)
            self._steps.append(record)
        self._pending.clear()
        self._report()

    def take(self, validation_loss: float | None, again: bool = False) -> list[dict[str, Any]]:
        """Return the records since the last call.

        Parameters
        ----------
        validation_loss:
            Of the validation after the last step; added to the last record.
        again:
            Whether the next call returns these records too, because the validation is still to
            come.
        """
        steps = list(self._steps)
        if not again:
            self._steps = []
        if steps and validation_loss is not None:
            steps[-1]["validation_loss"] = validation_loss
        return steps

    def restore(self, steps: list[dict[str, Any]]) -> None:
        """Restore the records that came with a checkpoint in the middle of a validation."""
        self._steps = list(steps)

    def leave_out(self, seconds: float) -> None:
        """Do not count time that was not training, such as a validation."""
        self._stopwatch.leave_out(seconds)

    def add_checkpoint_time(self, seconds: float) -> None:
        """Record how long a checkpoint held training up, with the step after it."""
        self._checkpoint_seconds = seconds
        self.leave_out(seconds)
        if self._gauges:
            self._gauges.show(checkpoint_seconds=seconds)

    def _handle_nonfinite(self, record: dict[str, Any], starts: np.ndarray, losses: Tensor) -> None:
        """Raise PlatformError, or count the step as left out, as `--training.on_nonfinite` says."""
        bad = (~torch.isfinite(losses)).cpu().numpy()[: len(starts)]
        blamed = starts[bad] if bad.any() else starts
        times = ", ".join(self._plan.store.label(int(start)) for start in blamed[:8])
        what = (
            f"the loss of step {record['step']} is {record['loss']} and the norm of its gradient "
            f"{record['gradient_norm']}"
        )
        where = f"{self._plan.store.uri}, worker {self._rank}, windows that begin at {times}"
        if self._plan.options.training.on_nonfinite == "stop":
            raise PlatformError(
                what,
                where=where,
                remedy="begin a new --run with a smaller --training.learning_rate, or with "
                "--training.precision fp32; --training.on_nonfinite skip leaves such steps out; "
                "reprocess.py verify checks the store",
            )
        self.skipped = {key: count + 1 for key, count in self.skipped.items()}
        record["skipped"] = True
        if bad.any() or self._rank == 0:
            self._board.add_line.remote(f"{what}: left out\n  where: {where}")
        if self.skipped["in_a_row"] >= MOST_SKIPPED:
            raise PlatformError(
                f"{MOST_SKIPPED} steps in a row were left out; {what}",
                where=where,
                remedy="begin a new --run with a smaller --training.learning_rate; "
                "reprocess.py verify checks the store",
            )

    def _report(self) -> None:
        """Show the latest numbers on the terminal and on the gauges, from the first worker."""
        now = time.monotonic()
        if not self._gauges or now - self._last_progress < PROGRESS_SECONDS:
            return
        self._last_progress = now
        recent = Stretch(
            sum(stretch.steps for stretch in self._recent),
            sum(stretch.seconds for stretch in self._recent),
            sum(stretch.waited for stretch in self._recent),
        )
        last = self._steps[-1]
        rate, wait = recent.samples_per_second(self._global_batch), recent.data_wait_fraction
        self._gauges.show(samples_per_second=rate, data_wait_fraction=wait, loss=last["loss"])
        note = (
            f"epoch {last['epoch'] + 1}/{self._plan.options.training.epochs} "
            f"loss {last['loss']:.4f} {rate:.1f} samples/s data wait {100 * wait:.1f} %"
            f"{self._worker_count(last['workers'])}"
        )
        progress = StepProgress(last["step"] + 1, self._plan.total_steps, note)
        self._board.set_progress.remote(progress)

    def _worker_count(self, now: int) -> str:
        """Return the number of workers in words, if it may change during the run."""
        return f", {now} worker(s)" if self._plan.options.worker_range.is_elastic else ""
