"""One small Ray that all test modules without special needs share; the first use starts it.

The start of Ray and its workers takes longer than most tests. A module that needs a Ray of its own
(another environment, several nodes, other settings) calls `end` first, because a process can have
only one Ray at a time. The shared Ray is started again when it is next used.
"""

from __future__ import annotations

import os
import sys

from pipelines.cluster.session import start_here

_STORAGES = ("AWS_", "GOOGLE_", "STORAGE_EMULATOR_")
_environment: dict[str, str] = {}
"""environment variables of the storages that the running workers know"""


def use() -> None:
    """Start the shared Ray unless it runs with the storages in this process's environment."""
    import ray

    global _environment
    if ray.is_initialized() and _environment == _storages():
        return
    end()
    _environment = _storages()
    # Do not join a cluster that already runs on this machine.
    start_here(4, 200 * 1024**2, log_to_driver=False, configure_logging=False)


def be_there() -> None:
    """Start the shared Ray unless this process is already connected to a Ray."""
    import ray

    if not ray.is_initialized():
        use()


def address() -> str:
    """Return the address of the running Ray, for `RAY_ADDRESS` of processes that join it."""
    import ray

    return ray.get_runtime_context().gcs_address


def end() -> None:
    """Shut down the Ray of this process, if there is one."""
    if "ray" in sys.modules:
        import ray

        ray.shutdown()


def _storages() -> dict[str, str]:
    return {k: value for k, value in os.environ.items() if k.startswith(_STORAGES)}
