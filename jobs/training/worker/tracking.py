"""How fast a training goes and what it waits for: measured in a worker, shown on the way."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

METRICS = {
    "gmg_samples_per_second": "Windows trained on each second, over all workers",
    "gmg_data_wait_fraction": "Part of the time that the first worker waited for batches",
    "gmg_checkpoint_seconds": "Seconds that training stood still for the last checkpoint",
    "gmg_loss": "Training loss of the last step, over all workers",
}
"""Gauges that every node's metrics port exports, tagged by run; Ray puts ``ray_`` before them."""


@dataclass(frozen=True)
class Stretch:
    """Some steps and what they took."""

    steps: int
    seconds: float
    waited: float
    """seconds waited for batches"""

    def samples_per_second(self, global_batch: int) -> float:
        """Windows a second over all workers."""
        return self.steps * global_batch / max(self.seconds, 1e-9)

    @property
    def data_wait_fraction(self) -> float:
        """Part of the time that was waited for batches, 0 to 1."""
        return min(1.0, self.waited / max(self.seconds, 1e-9))


class Stopwatch:
    """Times the steps of training, less what lies between: validations and checkpoints."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._waited, self._left_out = 0.0, 0.0

    def lap(self, steps: int, waited: float) -> Stretch:
        """The stretch of ``steps`` since the last lap; ``waited`` is counted from the start."""
        now = time.monotonic()
        seconds = now - self._began - self._left_out
        stretch = Stretch(steps, max(seconds, 0.0), waited - self._waited)
        self._began, self._waited, self._left_out = now, waited, 0.0
        return stretch

    def leave_out(self, seconds: float) -> None:
        """Not to be counted in the lap that runs."""
        self._left_out += seconds


class Gauges:
    """The run's latest numbers on the metrics port of this worker's node (Prometheus)."""

    def __init__(self, run: str):
        from ray.util.metrics import Gauge

        self._gauges: dict[str, Any] = {}
        for name, description in METRICS.items():
            gauge = Gauge(name, description=description, tag_keys=("run",))
            gauge.set_default_tags({"run": run})
            self._gauges[name] = gauge

    def show(self, **values: float) -> None:
        """Set gauges by name, less the ``gmg_``."""
        for name, value in values.items():
            self._gauges[f"gmg_{name}"].set(value)
