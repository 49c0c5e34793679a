"""Storage that is away for a while: what failed is done again, for a bounded time.

One rule for every access of a training to its store and its run, in workers and in Ray's own
controller: a fault that may pass (a server that does not answer, a reset connection, a stale mount)
is met by trying again, ever more slowly; a refusal (wrong key, no permission, no such object) is
not.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow.fs
from fsspec.spec import AbstractFileSystem

from pipelines import uri as places

if TYPE_CHECKING:
    from pipelines.stream import Batch, WindowStream

T = TypeVar("T")
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 15.0
_REFUSALS = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError)


def passes(error: BaseException) -> bool:
    """Whether a fault of the storage may pass by itself.

    >>> passes(ConnectionResetError()), passes(PermissionError()), passes(KeyError())
    (True, False, False)
    """
    causes = [error, error.__cause__]  # a reader names the chunk and keeps the driver's error
    if any(isinstance(cause, _REFUSALS) for cause in causes):
        return False
    refused = any("Credentials" in type(cause).__name__ for cause in causes)
    return not refused and any(cause and places.is_storage_fault(cause) for cause in causes)


@dataclass(frozen=True)
class Patience:
    """How long a fault of the storage is waited out."""

    seconds: float
    """from the first fault to the last attempt"""
    say: Callable[[str], None] | None = None
    """told once when a fault begins to be waited out, and once when it has passed"""

    def __call__(self, what: str, action: Callable[[], T]) -> T:
        """What ``action`` returns, which is called again after a fault that may pass.

        Parameters
        ----------
        what:
            What is being done, for the message: "writing checkpoint step_000000012".

        Raises
        ------
        Exception
            The fault itself, where it does not pass in time or is a refusal.
        """
        began, pause = None, FIRST_PAUSE_SECONDS
        while True:
            try:
                result = action()
            except Exception as error:
                now = time.monotonic()
                began = now if began is None else began
                if not passes(error) or now + pause - began > self.seconds:
                    raise
                if now == began:
                    first = (str(error).strip() or type(error).__name__).splitlines()[0]
                    self._tell(f"{what}: {first}; trying again for up to {self.seconds:.0f} s")
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                continue
            if began is not None:
                self._tell(f"{what}: done after {time.monotonic() - began:.0f} s of trying")
            return result

    def _tell(self, line: str) -> None:
        if self.say:
            self.say(line)


def patient_epoch(
    stream: WindowStream, epoch: int, first_step: int, patience: Patience
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
        batch = patience("reading the store", draw)
        if batch is None:
            return
        yield batch
        step = batch.step + 1


class PatientFiles(pyarrow.fs.FSSpecHandler):
    """The file system that Ray Train keeps its own record of a run in, with patience.

    Ray's controller ends the whole run where one of these small writes fails.
    """

    def __init__(self, fs: AbstractFileSystem, seconds: float):
        super().__init__(fs)
        self.patience = Patience(seconds)

    def __reduce__(self):
        return PatientFiles, (self.fs, self.patience.seconds)

    def get_file_info(self, paths: Any) -> Any:
        return self.patience("looking", lambda: super(PatientFiles, self).get_file_info(paths))

    def get_file_info_selector(self, selector: Any) -> Any:
        def look() -> Any:
            return super(PatientFiles, self).get_file_info_selector(selector)

        return self.patience("listing", look)

    def create_dir(self, path: str, recursive: bool) -> None:
        self.patience("writing", lambda: super(PatientFiles, self).create_dir(path, recursive))

    def delete_dir(self, path: str) -> None:
        # After a fault half of the folder may be gone already: then nothing is left to do.
        def delete() -> None:
            if self.fs.exists(path):
                super(PatientFiles, self).delete_dir(path)

        self.patience("deleting", delete)

    def open_input_stream(self, path: str) -> Any:
        return self.patience("reading", lambda: super(PatientFiles, self).open_input_stream(path))

    def open_input_file(self, path: str) -> Any:
        return self.patience("reading", lambda: super(PatientFiles, self).open_input_file(path))

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        from pyarrow import PythonFile

        return PythonFile(_WholeFile(self.fs, path, self.patience), mode="w")


class _WholeFile(io.BytesIO):
    """A file that is written whole when it is closed, so that the write can be done again."""

    def __init__(self, fs: AbstractFileSystem, path: str, patience: Patience):
        super().__init__()
        self._fs, self._path, self._patience = fs, path, patience

    def close(self) -> None:
        if not self.closed:
            data = self.getvalue()
            super().close()
            self._patience("writing", lambda: self._fs.pipe_file(self._path, data))
