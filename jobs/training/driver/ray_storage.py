"""The storage that Ray Train keeps its own record of a run in, with retries.

Ray's controller ends the whole run if one of its small writes fails. So faults of the storage are
retried here by the rule of `pipelines.storage.retry`, as they are in the workers.
"""

from __future__ import annotations

import io
import json
from typing import Any

import pyarrow.fs
from fsspec.spec import AbstractFileSystem

from jobs.training.run import checkpoints
from pipelines.storage import places
from pipelines.storage.retry import Retry

RECORD = "checkpoint_manager_snapshot.json"
"""Ray Train's record of a run's checkpoints, in the run's folder"""


def storage_settings(run_uri: str, wait_seconds: float) -> dict[str, Any]:
    """Return the name and the storage of a run, as arguments of Ray's `RunConfig`."""
    fs, path = places.filesystem(run_uri)
    parent, _, name = path.rpartition("/")
    if places.is_local(run_uri):
        return {"name": name, "storage_path": parent}
    # pyarrow's own S3 driver ignores AWS_ENDPOINT_URL; fsspec's serves every S3-compatible server.
    handler = pyarrow.fs.PyFileSystem(RetryingFiles(fs, wait_seconds))
    return {"name": name, "storage_path": parent, "storage_filesystem": handler}


def remove_outdated_record(run_uri: str) -> None:
    """Remove Ray's record of a run's checkpoints if one that it names is not complete.

    Ray refuses to go on with a run if one of its checkpoints is gone. And if the checkpoint is
    written again, Ray would remove its folder as the old one that it knows under that name.
    """
    record = places.join(run_uri, RECORD)
    try:
        content = json.loads(places.read_bytes(record))
        known = {item["checkpoint_dir_name"] for item in content["checkpoint_results"]}
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError):
        places.delete(record)  # not readable
        return
    complete = {item.uri.rsplit("/", 1)[-1] for item in checkpoints.list_checkpoints(run_uri)}
    if not known <= complete:
        places.delete(record)


class RetryingFiles(pyarrow.fs.FSSpecHandler):
    """An fsspec file system for pyarrow that retries after a fault.

    Parameters
    ----------
    seconds:
        How long to retry after the first fault.
    """

    def __init__(self, fs: AbstractFileSystem, seconds: float):
        super().__init__(fs)
        self.retry = Retry(seconds)

    def __reduce__(self):
        return RetryingFiles, (self.fs, self.retry.seconds)

    def get_file_info(self, paths: Any) -> Any:
        return self.retry("looking", lambda: super(RetryingFiles, self).get_file_info(paths))

    def get_file_info_selector(self, selector: Any) -> Any:
        def look() -> Any:
            return super(RetryingFiles, self).get_file_info_selector(selector)

        return self.retry("listing", look)

    def create_dir(self, path: str, recursive: bool) -> None:
        self.retry("writing", lambda: super(RetryingFiles, self).create_dir(path, recursive))

    def delete_dir(self, path: str) -> None:
        # A first try that failed may have deleted the folder: then nothing is left to do.
        def delete() -> None:
            if self.fs.exists(path):
                super(RetryingFiles, self).delete_dir(path)

        self.retry("deleting", delete)

    def open_input_stream(self, path: str) -> Any:
        return self.retry("reading", lambda: super(RetryingFiles, self).open_input_stream(path))

    def open_input_file(self, path: str) -> Any:
        return self.retry("reading", lambda: super(RetryingFiles, self).open_input_file(path))

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        return pyarrow.PythonFile(_WholeFile(self.fs, path, self.retry), mode="w")


class _WholeFile(io.BytesIO):
    """A file that is written as a whole when it is closed, so that the write can be retried."""

    def __init__(self, fs: AbstractFileSystem, path: str, retry: Retry):
        super().__init__()
        self._fs, self._path, self._retry = fs, path, retry

    def close(self) -> None:
        if not self.closed:
            data = self.getvalue()
            super().close()
            self._retry("writing", lambda: self._fs.pipe_file(self._path, data))
