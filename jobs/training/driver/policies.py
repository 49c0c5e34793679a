"""How many workers a run has, decided in Ray Train's controller: what it waits for and says.

Ray Train 2.60 tears the workers down when it finds room for more, without a checkpoint, and it
counts room by a view of the cluster that is up to 20 s old and includes nodes that are drained. So
its two policies are refined here: a new size is taken after a checkpoint that was asked for, room
is counted anew and without such nodes, and a run that finds no room says so and ends in the end.
"""

from __future__ import annotations

import os
import time
from typing import Any, cast

import ray
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.execution.scaling_policy import (
    AUTOSCALING_REQUESTS_GET_TIMEOUT_S,
    ElasticScalingPolicy,
    FixedScalingPolicy,
    NoopDecision,
    ResizeDecision,
    ScalingDecision,
    ScalingPolicy,
)

from jobs.training.driver.ending import StoppedError
from jobs.training.driver.failures import Failures
from jobs.training.options import TrainOptions
from pipelines.cluster.nodes import groups_of_one, room_for, shortage, staying_nodes
from pipelines.errors import PlatformError

INTERVALS = {
    # After a node's sudden end Ray counts on it for a while, and asks for what is not there.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",
    # Of notices of 30 s the default would waste 5.
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",
}
"""Ray Train's, where the environment does not set them"""
AGAIN_SECONDS = 60.0
"""between two lines about waiting"""
PAUSE_SECONDS = 0.2
"""between two looks of a controller that waits for room"""
ANSWER_SECONDS = 300.0
"""after which a checkpoint that was asked for is given up, and with it the new size"""


class Trainer(TorchTrainer):
    """``TorchTrainer`` with the number of workers and the failures decided here."""

    def __init__(self, *arguments: Any, board: Any, options: TrainOptions, **others: Any):
        super().__init__(*arguments, **others)
        self._board, self._options = board, options

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        for name, value in INTERVALS.items():
            os.environ.setdefault(name, value)
        kind = Elastic if self._options.worker_range.is_elastic else Fixed
        arguments["scaling_policy"] = kind(self.scaling_config, self._board, self._options)
        arguments["failure_policy"] = Failures(
            cast(Any, self.run_config.failure_config), self._board, self._options
        )
        return super()._initialize_and_run_controller(**arguments)


class ReportingPolicy(ScalingPolicy):
    """What both policies have: they wait with words, and not for ever."""

    def __init__(self, scaling_config: ScalingConfig, board: Any, options: TrainOptions):
        super().__init__(scaling_config)
        self._board, self._options = board, options
        self._worker: dict[str, float] = dict(
            cast(Any, scaling_config._resources_per_worker_not_none)
        )
        self._waits_since: float | None = None
        self._said = 0.0

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        """As Ray's policy decides; ends the run where there has been no room for too long."""
        if ray.get(self._board.stopping.remote()):
            raise StoppedError("the run was asked to end")
        self._board.new_group.remote()
        decision = super().make_decision_for_non_running_worker_group()  # pyright: ignore[reportAbstractUsage]
        self._wait()
        return decision

    def _is_running(self) -> None:
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
        if first or now - self._said >= AGAIN_SECONDS:
            self._said = now
            self._board.say.remote(f"waiting for room: {self._shortage(least)}")
        if limit and waited >= limit:
            failure = PlatformError(
                f"no room for the workers within {limit} s: {self._shortage(least)}",
                where=self._options.run,
                remedy="add nodes or end other jobs, or give fewer --workers (MIN:MAX takes what "
                "there is); the same command then goes on from the latest checkpoint",
            )
            ray.get(self._board.fail.remote(failure))
            raise failure

    def _shortage(self, least: int) -> str:
        staying = groups_of_one(staying_nodes().values())
        return shortage(least, self._worker, staying, ray.available_resources())


class Fixed(ReportingPolicy, FixedScalingPolicy):
    """Always the same number of workers."""

    def make_decision_for_running_worker_group(
        self, worker_group_state: Any, worker_group_status: Any
    ) -> ScalingDecision:
        """Never another number."""
        self._is_running()
        return super().make_decision_for_running_worker_group(
            worker_group_state, worker_group_status
        )


class Elastic(ReportingPolicy, ElasticScalingPolicy):
    """As many workers as there is room for; a new number is taken after a checkpoint."""

    def __init__(self, scaling_config: ScalingConfig, board: Any, options: TrainOptions):
        super().__init__(scaling_config, board, options)
        self._asked: tuple[int, float] | None = None

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        """As many as there is room for."""
        self._asked = None
        return super().make_decision_for_non_running_worker_group()

    def make_decision_for_running_worker_group(
        self, worker_group_state: Any, worker_group_status: Any
    ) -> ScalingDecision:
        """Ask for a checkpoint where there is room for another number; take it when it is there."""
        self._is_running()
        if self._asked is None:
            decision = super().make_decision_for_running_worker_group(
                worker_group_state, worker_group_status
            )
            if isinstance(decision, ResizeDecision):
                self._asked = ray.get(self._board.ask.remote("checkpoint")), time.monotonic()
                self._board.say.remote(
                    f"room for {decision.num_workers} worker(s): going on with so many after a "
                    "checkpoint"
                )
            return NoopDecision()
        self._maybe_send_resource_request()
        number, since = self._asked
        answered: Any = ray.get(self._board.answered.remote())
        if answered >= number:
            self._asked = None
            return self._new_size(worker_group_state.num_workers)
        if time.monotonic() - since > ANSWER_SECONDS:
            self._asked = None
            self._board.withdraw.remote()
        return NoopDecision()

    def _new_size(self, now: int) -> ScalingDecision:
        """The number that there is room for, once the checkpoint is written."""
        reserved = self._get_reserved_resources()
        workers = self._count_possible_workers(reserved) if reserved else 0
        if workers < self.scaling_config.min_workers or workers == now:
            return NoopDecision()
        return self._get_resize_decision(workers)

    def _get_reserved_resources(self) -> Any:
        """What Ray holds for this run, by a view of the cluster that is new at each call."""
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
