"""Options of `jobs/evaluate.py`. Nothing heavy is imported here, so that `--help` is quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipelines.errors import UsageError


@dataclass(frozen=True)
class EvaluationOptions:
    """What is scored, by which conventions, and where the report goes."""

    checkpoint: str
    """URI of a run (its best checkpoint by validation loss), of a checkpoint, or of an exported
    folder."""
    store: str
    """URI of the Zarr store that the checkpoint was trained on."""
    report: str
    """URI of a folder or of an .html file to write."""
    split: str = "test"
    """split of the store that is scored; it must not touch the train period."""
    protocols: str = ""
    """conventions to score by, such as strict,openstl; the first is the summary's and the page's
    first table. By default all that the archive allows."""
    thresholds: str = ""
    """of events, in the units of the data, such as 20,30,40; by default 30, 40 and 50 dBZ, or 0.5,
    2, 5, 10 and 30 mm/h."""
    horizon: int | None = None
    """frames to forecast; by default as many as the model was trained for."""
    members: int | None = None
    """forecasts of each window, of a model with noise; their mean is the model's."""
    max_windows: int | None = None
    """score so many windows, evenly spaced over the split; by default all."""
    batch_size: int = 16
    """windows in one forward pass."""
    workers: int = 1
    """processes that score; 1 is this one, without Ray, more are Ray actors, with the cluster's
    GPUs where there are any."""
    shared_paths: bool = False
    """local paths are the same on every node of the cluster."""
    resamples: int = 1000
    """of the bootstrap over days that gives scores their intervals, at least 100; 0 for none."""
    seed: int = 0
    """of the members' noise and of the bootstrap, from 0 to 2147483647."""
    colours: Literal["usual", "lightness"] = "usual"
    """of radar on the page: the usual ones, or steps of the same hues that darken one by one, which
    colour-blind eyes and black-and-white prints tell apart."""

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise UsageError(f"workers must be 0 or more, not {self.workers}")
        if self.batch_size < 1 or (self.max_windows is not None and self.max_windows < 1):
            raise UsageError("batch_size and max_windows must be at least 1")
