"""What Ray Train's controller decides here: the number of workers, and which failures count.

Ray Train 2.60 stops the workers without a checkpoint when it finds room for more of them. It counts
room by a view of the cluster that is up to 20 s old and includes nodes that are drained. So its
scaling policies are refined: a new number is taken after a checkpoint that was asked for, room is
counted anew and without such nodes, and a run that finds no room says so and ends at last.

When a node is taken away, the workers that are left meet a broken collective before Ray has seen
the node's end, and Ray Train 2.60 counts that as a failure of theirs. So its failure policy is
refined: whatever fails after the notice counts as the node's end. A fault of another kind comes
back in the next group of workers, and counts there.
"""

from __future__ import annotations

import os
import time
from typing import Any, cast

import ray
from ray.train import FailureConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.execution.failure_handling import DefaultFailurePolicy, FailureDecision
from ray.train.v2._internal.execution.scaling_policy import (
    AUTOSCALING_REQUESTS_GET_TIMEOUT_S,
    ElasticScalingPolicy,
    FixedScalingPolicy,
    NoopDecision,
    ResizeDecision,
    ScalingDecision,
    ScalingPolicy,
)
from ray.train.v2.api.exceptions import (
    ControllerError,
    PreemptionError,
    TrainingFailedError,
    WorkerGroupError,
)
from ray.train.v2.api.preemption import PreemptionInfo

from jobs.training.driver.ending import StoppedError, describe_failures, is_preemption
from jobs.training.options import TrainOptions
from jobs.training.status_board import TrainingStatus
from pipelines.cluster.nodes import groups_of_one, room_for, shortage, staying_nodes
from pipelines.errors import PlatformError

INTERVALS = {
    # After a node's sudden end Ray counts on it for a while, and asks for what is not there.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",
    # The default would waste 5 s of notices of 30 s.
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",
}
"""settings of Ray Train, if the environment does not set them"""
REPEAT_SECONDS = 60.0
"""between two lines about waiting"""
PAUSE_SECONDS = 0.2
"""between two looks of a controller that waits for room"""
CHECKPOINT_SECONDS = 300.0
"""after which a requested checkpoint is given up, and with it the new number of workers"""


class Trainer(TorchTrainer):
    """A `TorchTrainer` with the policies of this module."""

    def __init__(self, *arguments: Any, board: Any, options: TrainOptions, **others: Any):
        super().__init__(*arguments, **others)
        self._board, self._options = board, options

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        for name, value in INTERVALS.items():
            os.environ.setdefault(name, value)
        kind = ElasticWorkers if self._options.worker_range.is_elastic else FixedWorkers
        arguments["scaling_policy"] = kind(self.scaling_config, self._board, self._options)
        arguments["failure_policy"] = FailureCounts(
            cast(Any, self.run_config.failure_config), self._board, self._options
        )
        return super()._initialize_and_run_controller(**arguments)


class FailureCounts(DefaultFailurePolicy):
    """Ray's limits of failures and of nodes taken away, with a line for the user at each."""

    def __init__(self, failure_config: FailureConfig, board: Any, options: TrainOptions):
        super().__init__(failure_config)
        self._board, self._options = board, options

    def make_decision(self, training_failed_error: TrainingFailedError) -> FailureDecision:
        """Decide whether another group of workers is started."""
        error = training_failed_error
        status: Any = ray.get(self._board.status.remote())
        if isinstance(error, WorkerGroupError) and status.node_leaving:
            error = PreemptionError(PreemptionInfo(None, {}))
        decision = super().make_decision(error)
        if decision == FailureDecision.RETRY and not isinstance(error, ControllerError):
            self._board.add_line.remote(self._describe(error, status))
        return decision

    def _describe(self, error: TrainingFailedError, status: TrainingStatus) -> str:
        if is_preemption(error):
            at_deadline = isinstance(error, PreemptionError) and error.drain_timed_out
            how = "its time is over" if at_deadline else "it was taken away"
            return f"a node is gone as announced ({how}): no failure counted"
        most = self._options.checkpoints.max_failures
        failures = describe_failures(error, status)
        return f"failure {self._worker_group_failures} of at most {most}: {failures}"


class ReportingPolicy(ScalingPolicy):
    """What both scaling policies share: they report that they wait, and end after a limit."""

    def __init__(self, scaling_config: ScalingConfig, board: Any, options: TrainOptions):
        super().__init__(scaling_config)
        self._board, self._options = board, options
        self._worker: dict[str, float] = dict(
            cast(Any, scaling_config._resources_per_worker_not_none)
        )
        self._waits_since: float | None = None
        self._reported = 0.0

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        """Decide as Ray's policy does; end the run if there has been no room for too long."""
        if ray.get(self._board.is_stopping.remote()):
            raise StoppedError("the run was asked to end")
        self._board.start_group.remote()
        decision = super().make_decision_for_non_running_worker_group()  # pyright: ignore[reportAbstractUsage]
        self._wait()
        return decision

    def _stop_waiting(self) -> None:
        self._waits_since = None

    def _wait(self) -> None:
        now = time.monotonic()
        first = self._waits_since is None
        self._waits_since = now if self._waits_since is None else self._waits_since
        waited, least = now - self._waits_since, self.scaling_config.min_workers
        room = room_for(groups_of_one(staying_nodes().values()), self._worker)
        if first and room >= least:
            return  # the usual start
        time.sleep(PAUSE_SECONDS)
        limit = self._options.elastic.start_wait
        if first or now - self._reported >= REPEAT_SECONDS:
            self._reported = now
            self._board.add_line.remote(f"waiting for room: {self._shortage(least)}")
        if limit and waited >= limit:
            failure = PlatformError(
                f"no room for the workers within {limit} s: {self._shortage(least)}",
                where=self._options.run,
                remedy="add nodes or end other jobs, or give fewer --workers (MIN:MAX takes what "
                "there is); the same command then goes on from the latest checkpoint",
            )
            ray.get(self._board.set_failure.remote(failure))
            raise failure

    def _shortage(self, least: int) -> str:
        staying = groups_of_one(staying_nodes().values())
        return shortage(least, self._worker, staying, ray.available_resources())


class FixedWorkers(ReportingPolicy, FixedScalingPolicy):
    """Always the same number of workers."""

    def make_decision_for_running_worker_group(
        self, worker_group_state: Any, worker_group_status: Any
    ) -> ScalingDecision:
        """Keep the number of workers."""
        self._stop_waiting()
        return super().make_decision_for_running_worker_group(
            worker_group_state, worker_group_status
        )


class ElasticWorkers(ReportingPolicy, ElasticScalingPolicy):
    """As many workers as there is room for; a new number is taken after a checkpoint."""

    def __init__(self, scaling_config: ScalingConfig, board: Any, options: TrainOptions):
        super().__init__(scaling_config, board, options)
        self._requested: tuple[int, float] | None = None
        """number and time of the request for a checkpoint, while there is one"""

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        """Take as many workers as there is room for."""
        self._requested = None
        return super().make_decision_for_non_running_worker_group()

    def make_decision_for_running_worker_group(
        self, worker_group_state: Any, worker_group_status: Any
    ) -> ScalingDecision:
        """Request a checkpoint if there is room for another number; then take the number."""
        self._stop_waiting()
        if self._requested is None:
            decision = super().make_decision_for_running_worker_group(
                worker_group_state, worker_group_status
            )
            if isinstance(decision, ResizeDecision):
                number: Any = ray.get(self._board.request.remote("checkpoint"))
                self._requested = number, time.monotonic()
                self._board.add_line.remote(
                    f"room for {decision.num_workers} worker(s): going on with so many after a "
                    "checkpoint"
                )
            return NoopDecision()
        self._maybe_send_resource_request()
        number, since = self._requested
        answered: Any = ray.get(self._board.last_answered.remote())
        if answered >= number:
            self._requested = None
            return self._new_size(worker_group_state.num_workers)
        if time.monotonic() - since > CHECKPOINT_SECONDS:
            self._requested = None
            self._board.cancel_request.remote()
        return NoopDecision()

    def _new_size(self, now: int) -> ScalingDecision:
        """Take the number that there is room for, once the checkpoint is written."""
        reserved = self._get_reserved_resources()
        workers = self._count_possible_workers(reserved) if reserved else 0
        if workers < self.scaling_config.min_workers or workers == now:
            return NoopDecision()
        return self._get_resize_decision(workers)

    def _get_reserved_resources(self) -> Any:
        """Return what Ray holds for this run, by a view of the cluster that is new at each call."""
        now = time.monotonic()
        if now - self._latest_reserved_resources_query_time < 1:
            return self._latest_reserved_resources
        self._latest_reserved_resources_query_time = now
        coordinator: Any = self._autoscaling_coordinator
        try:
            held: Any = ray.get(
                coordinator.get_reserved_resources.remote(self._requester_id, recompute=True),
                timeout=AUTOSCALING_REQUESTS_GET_TIMEOUT_S,
            )
            staying = staying_nodes()
        except Exception:  # as Ray's own policy does: the next look may succeed
            self._latest_reserved_resources = None
            return None
        self._latest_reserved_resources = {
            node: resources for node, resources in held.items() if node in staying
        }
        return self._latest_reserved_resources
