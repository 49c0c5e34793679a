"""Event files of TensorBoard: one for each stretch of steps between two checkpoints.

A file is written as a whole, together with the history of the same steps. Its name follows from its
first step. So a stretch that is trained again after a fault replaces its file, and no point is
shown twice, on a local disk and on object storage alike.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.training.run import run_folder
from pipelines.storage import places

TAGS = {
    "loss": "loss/train",
    "validation_loss": "loss/validation",
    "learning_rate": "optimisation/learning_rate",
    "gradient_norm": "optimisation/gradient_norm",
    "samples_per_second": "speed/samples_per_second",
    "data_wait_percent": "speed/data_wait_percent",
    "checkpoint_seconds": "speed/checkpoint_seconds",
    "workers": "speed/workers",
}
"""field of a step's record -> name of the curve"""


def is_available() -> bool:
    """Return whether the writer is installed. It comes with Ray Train."""
    from importlib.util import find_spec

    return find_spec("tensorboardX") is not None


def file_name(first_step: int) -> str:
    """Return the name of the event file of the stretch that begins at a step.

    Examples
    --------
    >>> file_name(1200)
    'events.out.tfevents.000001200'
    """
    return f"events.out.tfevents.{first_step:09d}"


def write(run_uri: str, steps: Sequence[dict[str, Any]]) -> None:
    """Write the curves of a stretch of steps to the run's folder."""
    if steps:
        place = places.join(run_uri, run_folder.EVENTS, file_name(steps[0]["step"]))
        places.write_bytes(place, encode(steps))


def encode(steps: Sequence[dict[str, Any]]) -> bytes:
    """Return the bytes of an event file with the curves of these steps' records."""
    from tensorboardX import SummaryWriter

    with tempfile.TemporaryDirectory(prefix="events_") as folder:
        with SummaryWriter(folder, write_to_disk=True) as writer:
            for step, tag, value, moment in points(steps):
                writer.add_scalar(tag, value, step, walltime=moment)
        (path,) = Path(folder).iterdir()
        return path.read_bytes()


def points(steps: Sequence[dict[str, Any]]) -> list[tuple[int, str, float, float]]:
    """Return (step, curve, value, seconds since 1970-01-01) of all finite values in the records."""
    return [
        (record["step"], tag, float(record[field]), record["time"])
        for record in steps
        for field, tag in TAGS.items()
        if record.get(field) is not None and math.isfinite(record[field])
    ]
