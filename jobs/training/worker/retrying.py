"""What of a training waits for a storage that is away: its batches, and Ray's record of it.

The rule is :mod:`pipelines.storage.retry`, in workers and in Ray's own controller alike.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow.fs
from fsspec.spec import AbstractFileSystem

from pipelines.storage.retry import Retry

if TYPE_CHECKING:
    from pipelines.stream.window_stream import Batch, WindowStream


def epoch_with_retry(
    stream: WindowStream, epoch: int, first_step: int, retry: Retry
) -> Iterator[Batch]:
    """The batches of ``stream.epoch(epoch, first_step)``, whatever storage faults pass meanwhile.

    The order is a function of (seed, epoch, step), so after a fault the stream begins again at the
    step that it had come to, and gives what it would have given.
    """
    batches: Iterator[Batch] | None = None
    step = first_step

    def draw() -> Batch | None:
        nonlocal batches
        batches = batches or stream.epoch(epoch, first_step=step)
        try:
            return next(batches, None)
        except Exception:
            batches = None
            raise

    while step < stream.steps_per_epoch:
        batch = retry("reading the store", draw)
        if batch is None:
            return
        yield batch
        step = batch.step + 1


class RetryingFiles(pyarrow.fs.FSSpecHandler):
    """The file system that Ray Train keeps its own record of a run in, with retries.

    Ray's controller ends the whole run where one of these small writes fails.
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
        # After a fault half of the folder may be gone already: then nothing is left to do.
        def delete() -> None:
            if self.fs.exists(path):
                super(RetryingFiles, self).delete_dir(path)

        self.retry("deleting", delete)

    def open_input_stream(self, path: str) -> Any:
        return self.retry("reading", lambda: super(RetryingFiles, self).open_input_stream(path))

    def open_input_file(self, path: str) -> Any:
        return self.retry("reading", lambda: super(RetryingFiles, self).open_input_file(path))

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        from pyarrow import PythonFile

        return PythonFile(_WholeFile(self.fs, path, self.retry), mode="w")


class _WholeFile(io.BytesIO):
    """A file that is written whole when it is closed, so that the write can be done again."""

    def __init__(self, fs: AbstractFileSystem, path: str, retry: Retry):
        super().__init__()
        self._fs, self._path, self._retry = fs, path, retry

    def close(self) -> None:
        if not self.closed:
            data = self.getvalue()
            super().close()
            self._retry("writing", lambda: self._fs.pipe_file(self._path, data))
