"""Iterators over batches that wait while the storage is away, and then go on where they were."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from pipelines.storage.retry import Retry

if TYPE_CHECKING:
    from pipelines.stream.window_stream import Batch, WindowStream

T = TypeVar("T")


def iterate_with_retry(begin: Callable[[int], Iterator[T]], what: str, retry: Retry) -> Iterator[T]:
    """Yield the items of `begin(0)`, and go on after a storage fault that passes.

    Parameters
    ----------
    begin:
        `begin(n)` begins again, behind the first n items.
    what:
        What is being done, for the message about waiting: "reading the store".

    Examples
    --------
    >>> list(iterate_with_retry(lambda done: iter("abc"[done:]), "reading", Retry(seconds=0)))
    ['a', 'b', 'c']
    """
    items: Iterator[T] | None = None
    done = 0
    end = object()

    def draw() -> T | object:
        nonlocal items
        items = items or begin(done)
        try:
            return next(items, end)
        except Exception:
            items = None
            raise

    while (item := retry(what, draw)) is not end:
        done += 1
        yield item  # pyright: ignore[reportReturnType]


def epoch_with_retry(
    stream: WindowStream, epoch: int, first_step: int, retry: Retry
) -> Iterator[Batch]:
    """Yield the batches of `stream.epoch(epoch, first_step)`, and go on after a storage fault.

    The order is a function of (seed, epoch, step). So the stream begins again at the step that it
    had come to, and gives what it would have given.
    """
    return iterate_with_retry(
        lambda done: stream.epoch(epoch, first_step=first_step + done), "reading the store", retry
    )
