"""Retry while a storage is away, for a bounded time.

One rule holds for every access to a store, a source or a run. A fault that may pass is retried with
growing pauses: a server that does not answer, a reset connection, a request to slow down, a stale
mount. A refusal is not retried: a wrong key, a missing permission, a missing object, a full disk.

The project has code of its own for this because the work lies in telling faults from refusals for
every storage driver. A retry library would save only the loop.
"""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from pipelines.errors import StorageError

T = TypeVar("T")

STORAGE_WAIT_SECONDS = 90.0
"""time from the first fault to the last attempt, if the user sets no other"""
FIRST_PAUSE_SECONDS = 0.5
"""pause after the first fault; each further pause is twice as long"""
LONGEST_PAUSE_SECONDS = 15.0
"""limit of the growing pauses"""
_DRIVERS = {"aiobotocore", "aiohttp", "botocore", "gcsfs", "google"}
"""packages whose exceptions are faults of a storage"""
_MISSING = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


def is_storage_fault(error: BaseException) -> bool:
    """Return whether a storage or the connection to it failed, rather than the program."""
    packages = {kind.__module__.split(".")[0] for kind in type(error).__mro__}
    return isinstance(error, (OSError, StorageError)) or not packages.isdisjoint(_DRIVERS)


def is_refusal(error: BaseException | None) -> bool:
    """Return whether a storage denied access to this user, or found no credentials.

    >>> is_refusal(PermissionError()), is_refusal(ConnectionResetError())
    (True, False)
    """
    if isinstance(error, PermissionError) or "Credentials" in type(error).__name__:
        return True
    # gcsfs has no exception class of its own for these.
    return getattr(error, "code", None) in (401, 403) or str(error).startswith("Forbidden")


def passes(error: BaseException) -> bool:
    """Return whether an error is a fault of the storage that a retry may overcome.

    >>> passes(ConnectionResetError()), passes(PermissionError()), passes(KeyError())
    (True, False, False)
    """
    # An error that names a chunk or a file keeps the driver's error as its cause.
    causes = [error, error.__cause__]
    if any(isinstance(cause, _MISSING) or is_refusal(cause) for cause in causes):
        return False
    if any(isinstance(cause, OSError) and cause.errno in _NO_ROOM for cause in causes):
        return False
    return any(cause and is_storage_fault(cause) for cause in causes)


@dataclass(frozen=True)
class Retry:
    """For how long an action is retried after a fault of the storage."""

    seconds: float
    """time from the first fault to the last attempt; 0 means no retry"""
    say: Callable[[str], None] | None = None
    """called with a line when retrying begins, and with another when it succeeded"""

    def __call__(self, what: str, action: Callable[[], T]) -> T:
        """Return the result of `action`, which is called again after a fault that may pass.

        Parameters
        ----------
        what:
            Description of the action for messages: "writing checkpoint step_000000012".
        action:
            A function that may be called any number of times.

        Raises
        ------
        Exception
            The error of `action`, if it is not a fault that may pass or the time is over.
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
                # Many workers meet the same fault together; random pauses spread their retries.
                time.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                continue
            if began is not None:
                self._tell(f"{what}: done after {time.monotonic() - began:.0f} s of trying")
            return result

    def _tell(self, line: str) -> None:
        if self.say:
            self.say(line)


_active: ContextVar[Retry | None] = ContextVar("retry", default=None)


@contextmanager
def retrying(retry: Retry) -> Iterator[None]:
    """Use `retry` for every `call_with_retry` of this thread while the block runs.

    Outside such a block the first fault is raised at once: a storage that never answered is more
    often misspelt than away.
    """
    before = _active.set(retry)
    try:
        yield
    finally:
        _active.reset(before)


def call_with_retry(what: str, action: Callable[[], T]) -> T:
    """Return the result of `action`, retried as the enclosing `retrying` block allows."""
    retry = _active.get()
    return action() if retry is None else retry(what, action)
