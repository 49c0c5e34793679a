"""Prepare the next item in a thread while the caller works on the current one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def prefetch(items: Iterable[T]) -> Iterator[T]:
    """Yield `items` in their order; a thread takes each from the iterable one item early.

    An error that an item raises is raised where that item would have been yielded. Leaving the
    iteration waits for the item that is being prepared.

    >>> list(prefetch(n * n for n in range(3)))
    [0, 1, 4]
    """
    source = iter(items)

    def take() -> list[T]:
        return list(islice(source, 1))

    with ThreadPoolExecutor(1, "prefetch") as thread:
        coming = thread.submit(take)
        while taken := coming.result():
            coming = thread.submit(take)
            yield taken[0]
