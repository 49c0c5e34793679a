"""Which failures count, decided and said in Ray Train's controller.

Where a node is taken away, the workers that are left meet a broken collective before Ray has seen
the node's end, and Ray Train 2.60 counts that as a failure of theirs. Here whatever fails after the
notice is the node's end: a fault of another kind comes back in the next group, and counts there.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.train import FailureConfig
from ray.train.v2._internal.execution.failure_handling import DefaultFailurePolicy, FailureDecision
from ray.train.v2.api.exceptions import (
    ControllerError,
    PreemptionError,
    TrainingFailedError,
    WorkerGroupError,
)
from ray.train.v2.api.preemption import PreemptionInfo

from jobs.training.board import Progress
from jobs.training.driver.ending import causes, is_preemption
from jobs.training.options import TrainOptions


class Failures(DefaultFailurePolicy):
    """Ray's budgets of failures and of nodes taken away, with words for the user."""

    def __init__(self, failure_config: FailureConfig, board: Any, options: TrainOptions):
        super().__init__(failure_config)
        self._board, self._options = board, options

    def make_decision(self, training_failed_error: TrainingFailedError) -> FailureDecision:
        """Whether another group of workers is started."""
        error, progress = training_failed_error, self._progress()
        if isinstance(error, WorkerGroupError) and progress.leaving:
            error = PreemptionError(PreemptionInfo(None, {}))
        decision = super().make_decision(error)
        if decision == FailureDecision.RETRY and not isinstance(error, ControllerError):
            self._board.say.remote(self._told(error, progress))
        return decision

    def _told(self, error: TrainingFailedError, progress: Progress) -> str:
        if is_preemption(error):
            at_deadline = isinstance(error, PreemptionError) and error.drain_timed_out
            how = "its time is over" if at_deadline else "it was taken away"
            return f"a node is gone as announced ({how}): no failure counted"
        most = self._options.checkpoints.max_failures
        return f"failure {self._worker_group_failures} of at most {most}: {causes(error, progress)}"

    def _progress(self) -> Progress:
        progress: Any = ray.get(self._board.progress.remote())
        return progress
