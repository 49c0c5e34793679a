"""Errors for users: what is wrong, where, and the command or change that mends it.

Each class carries the exit code that the jobs end with:

==== =============================================================
code meaning
==== =============================================================
0    done (a run with nothing to do says so)
1    anything else: a lease held by another process, a failed upload
2    wrong usage or configuration
3    source data missing, unreadable or contradicting itself
4    store incomplete, damaged or not matching what is asked of it
==== =============================================================
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
        What to do, as a command where there is one.
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
    """A storage that does not answer now: another attempt may succeed."""


class SourceError(PlatformError):
    """Source data missing, unreadable or contradicting itself."""

    exit_code = 3


class UnreadableError(SourceError):
    """Frames that cannot be used, in an archive that goes on without them: they are flagged."""


class StoreError(PlatformError):
    """A store that is incomplete, damaged or does not match."""

    exit_code = 4


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name: ``did you mean 't2m'? known: ...``.

    >>> nearest("t2n", ["t2m", "tp"])
    "did you mean 't2m'? known: t2m, tp"
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}known: {', '.join(names)}"
