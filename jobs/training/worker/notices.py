"""What workers are told from outside while they train: a wish of the driver, a node that goes.

Only the first worker listens. What it hears travels with the sum of the step's losses, which all
workers read after the same step, so that all write the same checkpoint or end together. It costs no
collective of its own; Ray is asked about nodes, which is one, every two seconds.
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

from jobs.training.board import Wish

ASK_SECONDS = 2.0
"""between two questions to Ray whether a node is to be taken away"""
LOOK_SECONDS = 0.5
"""between two looks at the board"""
LAST_CALL_SECONDS = 5.0
"""before a node's deadline, besides the time of an upload: when the last checkpoint is begun"""
CODES = {"checkpoint": 1.0, "stop": 2.0}


def last_call(deadline: float, now: float, upload_seconds: float) -> float | None:
    """When a second checkpoint is begun before a node goes; None where the notice is too short.

    Training goes on until the node is gone: the second checkpoint keeps most of that.

    Parameters
    ----------
    deadline, now:
        Of the node, and of the notice; seconds since 1970-01-01.
    upload_seconds:
        What the upload of a checkpoint takes.

    >>> last_call(deadline=1120.0, now=1000.0, upload_seconds=10.0)
    1105.0
    >>> last_call(deadline=1030.0, now=1000.0, upload_seconds=10.0) is None
    True
    """
    reserve = LAST_CALL_SECONDS + upload_seconds
    return deadline - reserve if deadline - now > 2 * reserve else None


class Notices:
    """What one worker has heard.

    Parameters
    ----------
    upload_seconds:
        How long the last upload of a checkpoint took.
    """

    def __init__(
        self, board: Any, rank: int, device: torch.device, upload_seconds: Callable[[], float]
    ):
        self._board, self._rank, self._device = board, rank, device
        self._upload_seconds = upload_seconds
        self._asked = self._looked = 0.0
        self._pending: Any = None
        self._in_flight: Tensor | None = None
        self._last_call: float | None = None
        self._going: list[str] = []
        self.heard = 0
        """number of the latest wish that was heard; on the first worker"""
        self.checkpoint = False
        """a checkpoint is to be written after this step"""
        self.stop = False
        """training is to end after the next checkpoint"""

    def flags(self) -> tuple[float, float]:
        """This worker's part of the sum that :meth:`hear` is given: a question, and a wish."""
        if self._rank != 0:
            return 0.0, 0.0
        now = time.monotonic()
        asks = now - self._asked >= ASK_SECONDS
        if asks:
            self._asked = now
        return float(asks), self._wish(now)

    def hear(self, flags: Tensor) -> None:
        """Take what the sum of all workers' flags says; called on all after the same step.

        On a GPU it is what the step before said: the host does not wait for the one that runs.
        """
        if self._device.type != "cpu":
            flags, self._in_flight = self._in_flight, flags  # pyright: ignore[reportAssignmentType]
            if flags is None:
                return
        asks, wish = flags.tolist()
        if asks:
            self._ask_ray()
        if wish:
            self.checkpoint = True
            self.stop = self.stop or wish == CODES["stop"]

    def written(self) -> int:
        """A checkpoint has been written: nothing is asked any more. Returns what it answers."""
        self.checkpoint = False
        return self.heard

    def _wish(self, now: float) -> float:
        """The code of a wish that is new, 0 where there is none."""
        if self._last_call and time.time() >= self._last_call:
            self._last_call = None
            return CODES["checkpoint"]
        if self._pending is None:
            if now - self._looked >= LOOK_SECONDS:
                self._pending, self._looked = self._board.wish.remote(), now
            return 0.0
        if not ray.wait([self._pending], timeout=0)[0]:
            return 0.0
        try:
            wish: Wish | None = ray.get(self._pending)
        except ray.exceptions.RayError:
            wish = None
        self._pending = None
        if wish is None or wish.number == self.heard:
            return 0.0
        self.heard = wish.number
        return CODES[wish.kind]

    def _ask_ray(self) -> None:
        """Whether a node of this group is to be taken away; a collective, on all workers."""
        info = ray.train.get_preemption_info()
        if info is None or info.preempted_node_ids == self._going:
            return
        self._going = info.preempted_node_ids
        self.checkpoint = True
        if self._rank != 0:
            return
        when = "soon"
        if info.deadline_ms is not None:
            deadline, now = info.deadline_ms / 1000, time.time()
            when = f"in {max(0.0, deadline - now):.0f} s"
            self._last_call = last_call(deadline, now, self._upload_seconds())
        ranks = ", ".join(map(str, info.preempted_ranks))
        self._board.announce.remote(
            f"the node of worker {ranks} is to be taken away {when}: a checkpoint is written now"
        )
