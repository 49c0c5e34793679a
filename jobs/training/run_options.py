"""Options of a run that do not change what a step computes.

They are its workers, the failures that it survives, its checkpoints, its validations, and where its
curves are shown. Nothing here imports PyTorch or Ray.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from pipelines.errors import UsageError


@dataclass(frozen=True)
class WorkerRange:
    """How many workers a run may have: `--workers N` or `--workers MIN:MAX`."""

    least: int
    most: int

    @classmethod
    def parse(cls, given: str | int) -> WorkerRange:
        """Make it from the option's value.

        Examples
        --------
        >>> WorkerRange.parse(2), WorkerRange.parse("1:4")
        (WorkerRange(least=2, most=2), WorkerRange(least=1, most=4))

        Raises
        ------
        UsageError
            The value is neither a number, at least 1, nor MIN:MAX.
        """
        first, colon, last = str(given).partition(":")
        try:
            least, most = int(first), int(last if colon else first)
        except ValueError:
            least, most = 0, 0
        if not 1 <= least <= most:
            raise UsageError(
                f"--workers must be a number, at least 1, or MIN:MAX, not {given}",
                remedy="--workers 2, or --workers 1:4 for as many as the cluster has room for",
            )
        return cls(least, most)

    @property
    def is_elastic(self) -> bool:
        """Whether the number may change while the run goes on."""
        return self.least < self.most

    def __str__(self) -> str:
        return f"{self.least} to {self.most}" if self.is_elastic else str(self.least)


@dataclass(frozen=True)
class CheckpointOptions:
    """Checkpoints, and the failures that a run survives."""

    every_steps: int = 0
    """steps between checkpoints within an epoch; each epoch ends with one; 0: none within"""
    keep: int = 2
    """how many checkpoints are kept, the best among them"""
    max_failures: int = 3
    """failures of workers or nodes survived before the run gives up"""
    storage_wait: int = 300
    """seconds to retry while the storage does not answer, before that counts as a failure"""


@dataclass(frozen=True)
class ElasticOptions:
    """Nodes that come and go, and how a run is stopped."""

    max_preemptions: int = -1
    """nodes taken away after a notice (spot machines) that are survived before the run gives up,
    not counted in --checkpoints.max_failures; -1: any number"""
    preemption_grace: int = 0
    """seconds past a node's deadline that the other workers may go on, to end an upload that
    takes longer than the notice"""
    resize_every: int = 60
    """seconds between two looks for room for more workers, with --workers MIN:MAX"""
    start_wait: int = 1800
    """seconds to wait for room for the (least) workers before the run gives up; 0: for ever"""
    stop_grace: int = 25
    """seconds after SIGTERM that a last checkpoint may take"""


@dataclass(frozen=True)
class ValidationOptions:
    """Free-running forecasts on the validation split."""

    every_epochs: int = 1
    """epochs between validations"""
    every_steps: int = 0
    """steps between further validations within an epoch, each with a checkpoint; 0: none"""
    windows: int = 256
    """windows to validate on at most, evenly spaced over the split"""


@dataclass(frozen=True)
class TrackingOptions:
    """Where the curves of a run are shown, besides the terminal and its history."""

    tensorboard: bool = True
    """write TensorBoard's event files to <run>/tensorboard"""
    mlflow_uri: str = ""
    """address of an MLflow server, http(s)://HOST:PORT; empty: none. Credentials come from
    MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"""
    mlflow_experiment: str = "gmg"
    """the MLflow experiment that the run belongs to; created if it is missing"""

    def __post_init__(self) -> None:
        if not self.mlflow_uri:
            return
        parts = urlsplit(self.mlflow_uri)
        if parts.username or parts.password:
            raise UsageError(
                "--tracking.mlflow_uri must not carry credentials",
                where=f"{parts.scheme}://***@{parts.hostname}",
                remedy="set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD, in the environment of the nodes",
            )
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(
                f"--tracking.mlflow_uri is not the address of a server: {self.mlflow_uri}",
                remedy="give http://HOST:PORT of an MLflow server (mlflow server --port 5000)",
            )
