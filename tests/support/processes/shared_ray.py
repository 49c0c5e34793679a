"""One small Ray for all test modules that need nothing special, started when it is first used.

Starting Ray, and its workers with all that they import, takes longer than most tests. A module that
needs a Ray of its own (another environment, several nodes, other settings) calls :func:`end` first:
a process has one Ray at a time, and the shared one comes back when it is next asked for.
"""

from __future__ import annotations

import os
import sys

from pipelines.cluster.session import start_here

_STORAGES = ("AWS_", "GOOGLE_", "STORAGE_EMULATOR_")
_environment: dict[str, str] = {}
"""of the storages, as the running workers know it"""


def use() -> None:
    """Have the shared Ray run, with the storages that this process's environment names."""
    import ray

    global _environment
    if ray.is_initialized() and _environment == _storages():
        return
    end()
    _environment = _storages()
    # A cluster that runs on this machine already is not the tests'.
    start_here(4, 200 * 1024**2, log_to_driver=False, configure_logging=False)


def be_there() -> None:
    """Have a Ray run in this process: the one that does, or else the shared one."""
    import ray

    if not ray.is_initialized():
        use()


def address() -> str:
    """Of the Ray that runs, for ``RAY_ADDRESS`` of processes that are to join it."""
    import ray

    return ray.get_runtime_context().gcs_address


def end() -> None:
    """Shut down whatever Ray this process runs; nothing happens where there is none."""
    if "ray" in sys.modules:
        import ray

        ray.shutdown()


def _storages() -> dict[str, str]:
    return {k: value for k, value in os.environ.items() if k.startswith(_STORAGES)}
