"""What workers are asked to do while they train: by the driver, or because a node will go.

Only the first worker reads the status board. What it finds travels with the sum of the step's
losses, which all workers read after the same step. So all write the same checkpoint, or stop
together, and this costs no collective of its own. A question to Ray about leaving nodes is a
collective, and is asked every two seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import ray
import ray.exceptions
import ray.train
import torch
from torch import Tensor

from jobs.training.status_board import Request

PREEMPTION_SECONDS = 2.0
"""between two questions to Ray whether a node will be taken away"""
POLL_SECONDS = 0.5
"""between two looks at the status board"""
RESERVE_SECONDS = 5.0
"""between the last checkpoint and a node's deadline, besides the time of the upload"""
CODES = {"checkpoint": 1.0, "stop": 2.0}
"""kind of a request -> the number that stands for it in the sum over workers"""


def last_checkpoint_time(deadline: float, now: float, upload_seconds: float) -> float | None:
    """Return when to begin a second checkpoint before a node goes; None if the notice is too short.

    Training goes on until the node is gone. The second checkpoint keeps most of that work.

    Parameters
    ----------
    deadline:
        When the node goes, in seconds since 1970-01-01.
    now:
        When the notice came, in seconds since 1970-01-01.
    upload_seconds:
        How long the upload of a checkpoint takes.

    Examples
    --------
    >>> last_checkpoint_time(deadline=1120.0, now=1000.0, upload_seconds=10.0)
    1105.0
    >>> last_checkpoint_time(deadline=1030.0, now=1000.0, upload_seconds=10.0) is None
    True
    """
    reserve = RESERVE_SECONDS + upload_seconds
    return deadline - reserve if deadline - now > 2 * reserve else None


class Requests:
    """What one worker has been asked to do.

    Parameters
    ----------
    board:
        The run's status board, a Ray actor.
    upload_seconds:
        Returns how long the last upload of a checkpoint took.
    """

    def __init__(
        self, board: Any, rank: int, device: torch.device, upload_seconds: Callable[[], float]
    ):
        self._board, self._rank, self._device = board, rank, device
        self._upload_seconds = upload_seconds
        self._asked_ray = self._looked = 0.0
        self._reply: Any = None
        self._in_flight: Tensor | None = None
        self._last_checkpoint_time: float | None = None
        self._leaving: list[str] = []
        self.latest = 0
        """number of the latest request that the first worker has read; 0 on the others"""
        self.checkpoint = False
        """whether a checkpoint is to be written after this step"""
        self.stop = False
        """whether training is to stop after the next checkpoint"""

    def flags(self) -> tuple[float, float]:
        """Return this worker's part of the sum over workers that `apply` is given.

        The first flag asks all workers to ask Ray about leaving nodes. The second is the code of a
        request. Both are 0 on all workers but the first.
        """
        if self._rank != 0:
            return 0.0, 0.0
        now = time.monotonic()
        asks = now - self._asked_ray >= PREEMPTION_SECONDS
        if asks:
            self._asked_ray = now
        return float(asks), self._new_request(now)

    def apply(self, flags: Tensor) -> None:
        """Do what the sum of all workers' flags asks; called on all after the same step.

        On a GPU the flags of the step before are applied, so that the host does not wait for the
        step that runs.
        """
        if self._device.type != "cpu":
            flags, self._in_flight = self._in_flight, flags  # pyright: ignore[reportAssignmentType]
            if flags is None:
                return
        asks, code = flags.tolist()
        if asks:
            self._ask_ray()
        if code:
            self.checkpoint = True
            self.stop = self.stop or code == CODES["stop"]

    def fulfil(self) -> int:
        """Note that a checkpoint is written; return the number of the request that it answers."""
        self.checkpoint = False
        return self.latest

    def _new_request(self, now: float) -> float:
        """Return the code of a request that is new, or 0."""
        if self._last_checkpoint_time and time.time() >= self._last_checkpoint_time:
            self._last_checkpoint_time = None
            return CODES["checkpoint"]
        if self._reply is None:
            if now - self._looked >= POLL_SECONDS:
                self._reply, self._looked = self._board.current_request.remote(), now
            return 0.0
        if not ray.wait([self._reply], timeout=0)[0]:
            return 0.0
        try:
            request: Request | None = ray.get(self._reply)
        except ray.exceptions.RayError:
            request = None
        self._reply = None
        if request is None or request.number == self.latest:
            return 0.0
        self.latest = request.number
        return CODES[request.kind]

    def _ask_ray(self) -> None:
        """Ask Ray whether a node of this group will be taken away; a collective of all workers."""
        info = ray.train.get_preemption_info()
        if info is None or info.preempted_node_ids == self._leaving:
            return
        self._leaving = info.preempted_node_ids
        self.checkpoint = True
        if self._rank != 0:
            return
        when = "soon"
        if info.deadline_ms is not None:
            deadline, now = info.deadline_ms / 1000, time.time()
            when = f"in {max(0.0, deadline - now):.0f} s"
            self._last_checkpoint_time = last_checkpoint_time(deadline, now, self._upload_seconds())
        ranks = ", ".join(map(str, info.preempted_ranks))
        self._board.set_node_leaving.remote(
            f"the node of worker {ranks} is to be taken away {when}: a checkpoint is written now"
        )
