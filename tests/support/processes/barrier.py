"""Places in the protocol at which processes wait for a test: just before an object is published.

What is killed or changed there is killed or changed at that place, however fast or slow the machine
is: nothing is timed, and the process cannot be further than it is.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.processes import shared_ray
from tests.support.processes.training_runs import wait_until

PATIENCE = 900.0
"""seconds that a process may take to the place: what a machine full of other work needs"""
_SITE = Path(__file__).with_name("barrier_site")


class Barrier:
    """A place where processes with :attr:`environment`, and their children, can be stopped."""

    def __init__(self, folder: Path):
        self._rule, self._reached = folder / "rule", folder / "reached"
        self._reached.mkdir(parents=True)
        known = os.environ.get("PYTHONPATH")
        self.environment = {
            "GMG_TEST_BARRIER": str(folder),
            "PYTHONPATH": f"{_SITE}:{known}" if known else str(_SITE),
        }

    @contextmanager
    def before(self, pattern: str) -> Iterator[None]:
        """In this block no process gets past publishing a local object whose path matches."""
        for path in self._reached.iterdir():
            path.unlink()
        partial = self._rule.with_suffix(".partial")
        partial.write_text(pattern)
        partial.rename(self._rule)
        try:
            yield
        finally:
            self._rule.unlink()

    def waiting(self) -> list[int]:
        """Numbers of the processes that have reached the place of the block."""
        return [int(path.name) for path in self._reached.iterdir()]

    def wait(self, alive: Callable[[], bool] = lambda: True) -> int:
        """Wait until a process has reached the place; returns its number.

        Parameters
        ----------
        alive:
            Whether there is still something to wait for.
        """
        wait_until(lambda: bool(self.waiting()) or not alive(), "the barrier", PATIENCE)
        assert self.waiting(), "ended without having reached the barrier"
        return self.waiting()[0]

    @contextmanager
    def at(self, pattern: str, action: Callable[[int], object]) -> Iterator[None]:
        """The first process that reaches the place waits until ``action`` is done.

        The action gets its number and runs in a thread beside the block.

        Raises
        ------
        AssertionError
            At the end of the block: no process came there. Also what the action raises.
        """
        left, errors, done = threading.Event(), list[BaseException](), list[int]()

        def act() -> None:
            try:
                with self.before(pattern):
                    ready.set()
                    wait_until(
                        lambda: bool(self.waiting()) or left.is_set(), "the barrier", PATIENCE
                    )
                    for pid in self.waiting()[:1]:
                        action(pid)
                        done.append(pid)
            except BaseException as error:
                errors.append(error)
            finally:
                ready.set()

        ready, actor = threading.Event(), threading.Thread(target=act)
        actor.start()
        ready.wait()
        try:
            yield
        finally:
            left.set()
            actor.join()
        if errors:
            raise errors[0]
        assert done, f"nothing was published that matches {pattern}"


@pytest.fixture(scope="module")
def barrier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Barrier]:
    """A barrier for a module, which the shared Ray, started anew for it, knows as well."""
    barrier = Barrier(tmp_path_factory.mktemp("barrier"))
    shared_ray.end()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in barrier.environment.items():
            patch.setenv(name, value)
        yield barrier
    shared_ray.end()
