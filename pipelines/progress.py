"""The callback by which long work tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""called with the number of items done and the total number"""


def ignore(done: int, total: int) -> None:
    """Do nothing with the progress."""
