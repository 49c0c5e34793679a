"""What a worker notes of its steps: losses and speed, for the history, the terminal and the gauges.

Losses stay on the device until a flush reads several at once, so that a GPU is not waited for at
every step. What is not finite is met here: it ends the run or is counted as left out, and the
windows that may be to blame are named.
"""

from __future__ import annotations

import math
import time
from collections import deque
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jobs.training.plan import TrainingPlan
from jobs.training.worker.tracking import Gauges, Stopwatch, Stretch
from pipelines.errors import PlatformError

NEWS_SECONDS = 0.5
RECENT_FLUSHES = 20
"""flushes that the speed on the terminal is the mean of"""
MOST_SKIPPED = 10
"""steps in a row that may be left out for not being finite; then the run ends"""


def windows_checksum(starts: np.ndarray, lanes: np.ndarray) -> int:
    """A checksum of windows and their lanes; those of the workers add up to the global batch's.

    It tells whether two runs drew the same windows at a step, in any order and on any number of
    workers. Sums stay below 2^53, so float64 holds them exactly.

    >>> both = windows_checksum(np.array([5, 9]), np.array([0, 1]))
    >>> both == sum(windows_checksum(np.array([s]), np.array([l])) for s, l in [(9, 1), (5, 0)])
    True
    """
    mixed = starts.astype(np.uint64) * np.uint64(2654435761) + lanes.astype(np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(17))) * np.uint64(2246822519)
    return int((mixed % np.uint64(2**32)).sum())


class Journal:
    """The notes of one worker; the first worker's become the run's history."""

    def __init__(self, plan: TrainingPlan, rank: int, board: Any):
        self._plan, self._rank, self._board = plan, rank, board
        self._global_batch = plan.options.training.global_batch
        self._pending: list[tuple[dict[str, Any], np.ndarray, Tensor]] = []
        self._steps: list[dict[str, Any]] = []
        self._stopwatch, self._recent = Stopwatch(), deque[Stretch](maxlen=RECENT_FLUSHES)
        self._stood_still = 0.0
        self._gauges = Gauges(plan.options.run) if rank == 0 else None
        self._last_news = time.monotonic()
        self.skipped = {"total": 0, "in_a_row": 0}
        """steps left out"""

    def start(self, skipped: dict[str, int]) -> None:
        """Begin to count time; ``skipped`` as a checkpoint had it."""
        self.skipped |= skipped
        self._stopwatch = Stopwatch()

    def add(self, record: dict[str, Any], starts: np.ndarray, losses: Tensor) -> None:
        """Note a step.

        Parameters
        ----------
        record:
            ``step``, ``epoch``, ``loss``, ``gradient_norm``, ``windows`` (these three may be
            tensors), ``learning_rate`` and ``workers``.
        starts, losses:
            (b,) this worker's windows and their losses.
        """
        self._pending.append((record, starts.copy(), losses))

    def flush(self, waited: float) -> None:
        """Read the pending losses, and tell the driver.

        Parameters
        ----------
        waited:
            Seconds that the stream has waited in all.

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
                self._not_finite(record, starts, losses)
            rate = stretch.samples_per_second(self._global_batch)
            record["samples_per_second"] = round(rate, 2)
            record["data_wait_percent"] = round(100 * stretch.data_wait_fraction, 2)
            if self._stood_still:
                record["checkpoint_seconds"] = round(self._stood_still, 3)
                self._stood_still = 0.0
            record["time"] = round(time.time(), 3)
            self._steps.append(record)
        self._pending.clear()
        self._tell()

    def take(self, validation_loss: float | None, again: bool = False) -> list[dict[str, Any]]:
        """The records since the last call, the last of them with the validation after it.

        With ``again`` the next call gives them too: the validation is still to come.
        """
        steps = list(self._steps)
        if not again:
            self._steps = []
        if steps and validation_loss is not None:
            steps[-1]["validation_loss"] = validation_loss
        return steps

    def restore(self, steps: list[dict[str, Any]]) -> None:
        """Take up the records that a checkpoint in the middle of a validation came with."""
        self._steps = list(steps)

    def leave_out(self, seconds: float) -> None:
        """Time that was no training, such as a validation's."""
        self._stopwatch.leave_out(seconds)

    def stood_still(self, seconds: float) -> None:
        """Time that a checkpoint has held training up; noted with the step after it."""
        self._stood_still = seconds
        self.leave_out(seconds)
        if self._gauges:
            self._gauges.show(checkpoint_seconds=seconds)

    def _not_finite(self, record: dict[str, Any], starts: np.ndarray, losses: Tensor) -> None:
        """End the run, or count a step that was left out."""
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
            self._board.say.remote(f"{what}: left out\n  where: {where}")
        if self.skipped["in_a_row"] >= MOST_SKIPPED:
            raise PlatformError(
                f"{MOST_SKIPPED} steps in a row were left out; {what}",
                where=where,
                remedy="begin a new --run with a smaller --training.learning_rate; "
                "reprocess.py verify checks the store",
            )

    def _tell(self) -> None:
        now = time.monotonic()
        if not self._gauges or now - self._last_news < NEWS_SECONDS:
            return
        self._last_news = now
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
            f"{self._workers(last['workers'])}"
        )
        news = {"step": last["step"] + 1, "steps": self._plan.total_steps, "note": note}
        self._board.write.remote(news)

    def _workers(self, now: int) -> str:
        """How many there are now, where that may change."""
        return f", {now} worker(s)" if self._plan.options.worker_range.is_elastic else ""
