"""What comes before a forward pass is made during the one before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterable[T]) -> Iterator[T]:
    """``items`` in their order, each made in a thread while the caller works on the one before.

    An error of one comes where that one would have come. Leaving the iteration waits for the item
    that is being made.

    >>> list(ahead(n * n for n in range(3)))
    [0, 1, 4]
    """
    source = iter(items)

    def take() -> list[T]:
        return list(islice(source, 1))

    with ThreadPoolExecutor(1, "ahead") as beside:
        coming = beside.submit(take)
        while made := coming.result():
            coming = beside.submit(take)
            yield made[0]
