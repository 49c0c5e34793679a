"""Uploads from the first worker to the run's folder: history, curves and checkpoints.

One thread writes what a stretch of steps leaves, while training goes on. It writes the history and
the event file first, then the checkpoint, and the checkpoint's record last. So whatever is killed,
a complete checkpoint has its history, and a half-written checkpoint does not count. While the
storage is away, the thread retries and training goes on. Training waits only if several checkpoints
wait for the storage, so that the local disk does not fill.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
import ray.train
from torch import Tensor

from jobs.training.options import TrainOptions
from jobs.training.run import checkpoints, run_folder, tensorboard
from jobs.training.run.mlflow import MLflowRun, ServerError
from jobs.training.status_board import final_failure
from pipelines.storage import lease, places
from pipelines.storage.retry import Retry

MOST_WAITING = 4
"""checkpoints on the local disk that wait for the storage; a further one holds training up"""


class Uploads:
    """Writes what the first worker hands over.

    Parameters
    ----------
    token:
        Of the driver's lease of the run. If another process holds the lease, nothing is written.
    board:
        The status board. It is given errors that end the run, and checkpoints that are written.
    """

    def __init__(self, options: TrainOptions, token: str, board: Any, retry: Retry):
        self._options, self._token, self._board = options, token, board
        self._retry = retry
        self._room = threading.Semaphore(MOST_WAITING)
        self._events = options.tracking.tensorboard and tensorboard.is_available()
        self._server: MLflowRun | None = None
        self._unsent: list[dict[str, Any]] = []
        self.seconds = 0.0
        """how long the last checkpoint took, from the call of `send` until it was complete"""

    def send(
        self,
        steps: list[dict[str, Any]],
        record: dict[str, Any],
        weights: Mapping[str, Tensor],
        training: Mapping[str, Tensor],
        metrics: dict[str, Any],
        answers: int = 0,
    ) -> None:
        """Copy the state to the local disk and report it to Ray Train, which uploads it.

        Parameters
        ----------
        steps:
            Records of the steps since the last checkpoint.
        record, weights, training:
            Of the checkpoint, see `jobs.training.run.checkpoints.write`.
        metrics:
            What Ray decides by which checkpoints to keep.
        answers:
            Number of the latest request on the board that this checkpoint answers; 0: none.
        """
        began = time.monotonic()
        self._room.acquire()
        folder = Path(tempfile.mkdtemp(prefix="checkpoint_"))
        checkpoints.write(folder, record, weights, training)

        def upload(local: ray.train.Checkpoint, name: str) -> ray.train.Checkpoint:
            uploaded = self._upload(Path(local.path), name, steps)
            self.seconds = time.monotonic() - began
            self._board.add_checkpoint.remote(record["step"], answers)
            if not record["validating"]:  # the server gets each step once, with its validation
                self._send_to_mlflow(steps, finished=record["finished"])
            self._room.release()
            return uploaded

        ray.train.report(
            metrics,
            checkpoint=ray.train.Checkpoint.from_directory(str(folder)),
            checkpoint_dir_name=checkpoints.directory_name(record["step"], record["validating"]),
            checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC,
            checkpoint_upload_fn=upload,
            delete_local_checkpoint_after_upload=True,
        )

    def answer(self, step: int, answers: int) -> None:
        """Answer a request by the checkpoint of this step, which was written before."""
        if answers:  # 0 on all workers but the first
            self._board.add_checkpoint.remote(step, answers)

    def _upload(self, folder: Path, name: str, steps: list[dict[str, Any]]) -> ray.train.Checkpoint:
        place = self._options.run

        def write() -> None:
            lease.check_held(place, self._token, "run")
            run_folder.write_history(place, steps)
            if self._events:
                tensorboard.write(place, steps)
            checkpoints.publish(folder, places.join(place, name))

        try:
            self._retry(f"writing {name}", write)
        except Exception as error:
            # Ray takes an error of this thread for an error of the training, and starts the workers
            # again. They find the failure on the board and end at once.
            failure = final_failure(error)
            if failure:
                ray.get(self._board.set_failure.remote(failure))
            raise
        storage: Any = ray.train.get_context().get_storage()
        path = f"{storage.experiment_fs_path}/{name}"
        return ray.train.Checkpoint(path, storage.storage_filesystem)

    def _send_to_mlflow(self, steps: list[dict[str, Any]], finished: bool) -> None:
        """Send steps to the MLflow server, if there is one; its errors do not end the run."""
        tracking = self._options.tracking
        if not tracking.mlflow_uri:
            return
        self._unsent += steps
        try:
            if self._server is None:
                server = MLflowRun(
                    tracking.mlflow_uri, tracking.mlflow_experiment, self._options.run
                )
                server.open(run_folder.flat(self._options.as_dict()))
                self._server = server
                # An earlier process may have ended before it sent its last steps.
                self._unsent = run_folder.read_history(self._options.run)
            self._server.log(self._unsent)
            self._unsent = []
            if finished:
                self._server.finish()
        except ServerError as error:
            line = f"MLflow: {error}; what it misses is sent with the next checkpoint"
            self._board.add_line.remote(line)
