"""Barriers at which processes wait for a test, just before they publish an object.

A test can kill a process or change files while the process waits. The result does not depend on
the speed of the machine, because the process cannot pass the barrier.
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
"""seconds within which a process must reach the barrier, also on a busy machine"""
_SITE = Path(__file__).with_name("barrier_site")


class Barrier:
    """A barrier for processes that have the variables in `environment`, and for their children."""

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
        """Stop processes before they publish a local object whose path matches `pattern`."""
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
        """Return the ids of the processes that have reached the barrier."""
        return [int(path.name) for path in self._reached.iterdir()]

    def wait(self, alive: Callable[[], bool] = lambda: True) -> int:
        """Wait until a process has reached the barrier, and return its id.

        Parameters
        ----------
        alive
            Returns whether a process that can reach the barrier still runs.
        """
        wait_until(lambda: bool(self.waiting()) or not alive(), "the barrier", PATIENCE)
        assert self.waiting(), "ended without having reached the barrier"
        return self.waiting()[0]

    @contextmanager
    def at(self, pattern: str, action: Callable[[int], object]) -> Iterator[None]:
        """Hold the first process that reaches the barrier until `action` has returned.

        The action gets the id of the process and runs in a thread, in parallel with the block. At
        the end of the block, errors of the action are raised.

        Raises
        ------
        AssertionError
            At the end of the block, if no process has reached the barrier.
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
    """Return a barrier for a test module; the shared Ray is restarted so that it applies there."""
    barrier = Barrier(tmp_path_factory.mktemp("barrier"))
    shared_ray.end()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in barrier.environment.items():
            patch.setenv(name, value)
        yield barrier
    shared_ray.end()
