"""Storage that is away for a while: what failed is done again, for a bounded time.

One rule for every access to a store, a source or a run: a fault that may pass (a server that does
not answer, a reset connection, a request to slow down, a stale mount) is met by trying again, ever
more slowly; a refusal (wrong key, no permission, no such object, no room) is not.
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
"""from the first fault to the last attempt, where nothing else is asked"""
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 15.0
_DRIVERS = {"aiobotocore", "aiohttp", "botocore", "gcsfs", "google"}
_ABSENCES = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


def is_storage_fault(error: BaseException) -> bool:
    """Whether a storage or the way to it failed, and not the program: drivers raise their own."""
    packages = {kind.__module__.split(".")[0] for kind in type(error).__mro__}
    return isinstance(error, (OSError, StorageError)) or not packages.isdisjoint(_DRIVERS)


def is_refusal(error: BaseException | None) -> bool:
    """Whether a storage answered that this user may not, or has no such credentials.

    >>> is_refusal(PermissionError()), is_refusal(ConnectionResetError())
    (True, False)
    """
    if isinstance(error, PermissionError) or "Credentials" in type(error).__name__:
        return True
    # gcsfs has no class of its own for these.
    return getattr(error, "code", None) in (401, 403) or str(error).startswith("Forbidden")


def passes(error: BaseException) -> bool:
    """Whether a fault of the storage may pass by itself.

    >>> passes(ConnectionResetError()), passes(PermissionError()), passes(KeyError())
    (True, False, False)
    """
    causes = [error, error.__cause__]  # a reader names the chunk and keeps the driver's error
    if any(isinstance(cause, _ABSENCES) or is_refusal(cause) for cause in causes):
        return False
    if any(isinstance(cause, OSError) and cause.errno in _NO_ROOM for cause in causes):
        return False
    return any(cause and is_storage_fault(cause) for cause in causes)


@dataclass(frozen=True)
class Retry:
    """How long a fault of the storage is waited out."""

    seconds: float
    """from the first fault to the last attempt; 0: nothing is tried again"""
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
                # Many workers met the same fault at the same time: they come back one by one.
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
    """Accesses of this thread that ask :func:`call_with_retry` have this retry inside the block.

    Without such a block a fault ends the access at once: a place that never answered is more often
    misspelt than away.
    """
    before = _active.set(retry)
    try:
        yield
    finally:
        _active.reset(before)


def call_with_retry(what: str, action: Callable[[], T]) -> T:
    """What ``action`` returns, called again as the patience of the block allows."""
    retry = _active.get()
    return action() if retry is None else retry(what, action)
