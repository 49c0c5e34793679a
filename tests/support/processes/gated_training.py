"""A training whose steps wait at gates, so that a test can act at a step instead of at a time.

The function that replaces `train_worker` is pickled by value and contains everything it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tests.support.processes.training_runs import wait_until


class Gate(NamedTuple):
    """A step before which the workers wait."""

    step: int
    workers: int
    """number of workers of the groups that wait; other groups pass"""
    opens: Literal["opened", "preempted", "requested", "never"]
    """what opens the gate: a call of `Gates.open`; Ray's notice to the first worker that a node
    will be taken away; a request to the first worker, or the time of the second checkpoint before
    a node's end; or nothing, so that the workers wait until the group is ended"""


class Gates:
    """The gates of a run, and the steps that have passed them."""

    def __init__(self, folder: Path, *gates: Gate):
        self._folder, self._gates = folder, gates
        folder.mkdir()

    def entry(self) -> Callable[[dict[str, Any]], None]:
        """Return the function that replaces `jobs.training.worker.loop.train_worker`."""
        # Plain tuples, because workers cannot import this module.
        folder = str(self._folder)
        gates = [(gate.step, gate.workers, gate.opens) for gate in self._gates]

        def gated(settings: dict[str, Any]) -> None:
            import time
            from pathlib import Path

            from ray.train.v2._internal.execution.context import get_train_context

            from jobs.training.worker import loop, requests

            requests.PREEMPTION_SECONDS = requests.POLL_SECONDS = 0.0
            requests.last_checkpoint_time = lambda deadline, now, upload_seconds: now
            train_step = loop.Worker.train_step

            def gated_step(self: Any, batch: Any) -> None:
                for step, workers, opens in gates:
                    if (step, workers) == (self.step, self.world):
                        if self.rank == 0:
                            Path(folder, f"reached_{step}_{workers}").touch()
                        wait(self, step, opens)
                if self.rank == 0:
                    with Path(folder, "trained").open("a") as log:
                        log.write(f"{self.step} {self.world}\n")
                train_step(self, batch)

            def wait(self: Any, step: int, opens: str) -> None:
                context = get_train_context().preemption_context
                while not (
                    (opens == "opened" and Path(folder, f"open_{step}").exists())
                    or (opens == "preempted" and (self.rank or context.preemption_info))
                    or (opens == "requested" and self.rank)
                ):
                    if opens == "requested":
                        flags = self.requests.flags()
                        if flags[1]:  # workers exchange this flag with the next step
                            self.requests.flags = once(flags, self.requests.flags)
                            return
                    time.sleep(0.02)

            def once(flags: Any, others: Any) -> Any:
                rest = [flags]
                return lambda: rest.pop() if rest else others()

            loop.Worker.train_step = gated_step
            loop.train_worker(settings)

        return gated

    def wait_for(self, step: int, workers: int) -> None:
        """Wait until a group of this number of workers waits at the gate or has passed it."""
        reached = self._folder / f"reached_{step}_{workers}"
        wait_until(reached.exists, f"step {step} on {workers} workers", 300)

    def open(self, step: int) -> None:
        """Let workers pass the gate at this step from now on."""
        (self._folder / f"open_{step}").touch()

    def trained(self) -> list[tuple[int, int]]:
        """Return each trained step and its number of workers, in order of time."""
        lines = (self._folder / "trained").read_text().splitlines()
        return [(int(step), int(workers)) for step, workers in map(str.split, lines)]
