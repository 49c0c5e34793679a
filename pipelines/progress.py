"""The callback with which a long task reports its progress."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""called with the number of items done and the total number"""


def ignore(done: int, total: int) -> None:
    """Do not report progress."""
