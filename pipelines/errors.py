"""Errors for users: what is wrong, where, and the command or change that mends it.

Each class carries the exit code that the jobs end with:

==== ==============================================================================
code meaning
==== ==============================================================================
0    done (also if there was nothing to do, which the job then prints)
1    anything else, such as a lease that another process holds, or a failed upload
2    wrong usage or configuration
3    source data is missing, unreadable or contradicts itself
4    a store is incomplete or damaged, or does not match the request
==== ==============================================================================
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PlatformError(Exception):
    """An error that a user can act on.

    Parameters
    ----------
    what:
        One sentence: what is wrong.
    where:
        The store, file, variable or time that it is about.
    remedy:
        What to do, as a command if there is one.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str | None = None, remedy: str | None = None):
        self.what, self.where, self.remedy = what, where, remedy
        super().__init__(what, where, remedy)

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.remedy:
            lines.append(f"  to do: {self.remedy}")
        return "\n".join(lines)

    def __reduce__(self):
        # Keyword-only arguments do not survive Exception's own pickling, and Ray pickles errors.
        return _rebuild, (type(self), self.what, self.where, self.remedy)


def _rebuild(
    kind: type[PlatformError], what: str, where: str | None, remedy: str | None
) -> PlatformError:
    return kind(what, where=where, remedy=remedy)


class BusyError(PlatformError):
    """Another live process holds the store or the run."""


class UsageError(PlatformError):
    """Wrong usage or configuration."""

    exit_code = 2


class StorageError(PlatformError):
    """The storage does not answer now; a later attempt may succeed."""


class SourceError(PlatformError):
    """Source data is missing, unreadable or contradicts itself."""

    exit_code = 3


class NoFilesError(SourceError):
    """The source holds no file of the archive."""

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        remedy: str | None = None,
        names: tuple[str, ...] = (),
    ):
        super().__init__(what, where=where, remedy=remedy)
        self.names = names
        """names of the other files there; lost when the error is pickled"""


class UnreadableError(SourceError):
    """Frames cannot be used. An archive that tolerates this flags them and goes on."""


class StoreError(PlatformError):
    """A store is incomplete or damaged, or does not match the request."""

    exit_code = 4


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint for a misspelt name.

    >>> nearest("t2n", ["t2m", "tp"])
    "did you mean 't2m'? known: t2m, tp"
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}known: {', '.join(names)}"


def reason(error: BaseException) -> str:
    """Return the class and the text of another library's error, for a message.

    >>> reason(ValueError("no such key")), reason(TimeoutError())
    ('ValueError: no such key', 'TimeoutError')
    """
    return f"{type(error).__name__}: {error}".strip(": ")
