"""A Ray of one's own for a benchmark, and what its processes use."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path


def start_ray(object_store_bytes: int = 128 * 2**20) -> float:
    """Start Ray and return the seconds until it could run a task."""
    import ray

    # Bytecode caches halve the start of every Ray process.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # Ray's workers yield to every other process by default, those of the peer do not.
    os.environ.setdefault("RAY_worker_niceness", "0")
    began = time.perf_counter()
    ray.init(
        address="local",
        num_cpus=os.cpu_count(),
        object_store_memory=object_store_bytes,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    ray.get(ray.remote(lambda: None).remote())
    return time.perf_counter() - began


def processor_seconds() -> float:
    """Time on processors of this process, its ended children, the raylet and its workers."""
    own = os.times()
    total = own.user + own.system + own.children_user + own.children_system
    raylet = _raylet()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except (OSError, IndexError):
            continue
        if raylet in (int(stat.parent.name), int(fields[1])):
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def process_seconds(process: int) -> float:
    """Time on processors of one process, without its children."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_worker_bytes() -> int:
    """The largest resident memory that any worker of this Ray has had."""
    raylet = str(_raylet())
    peaks = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        except (OSError, ValueError):
            continue
        if fields.get("PPid", "").strip() == raylet and "VmHWM" in fields:
            peaks.append(int(fields["VmHWM"].split()[0]) * 1024)
    return max(peaks)


def peak_own_bytes() -> int:
    """The largest resident memory that this process has had."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not tell the peak of a process")


def _raylet() -> int:
    from ray._private.worker import _global_node

    if _global_node is None:
        raise RuntimeError("Ray was not started by this process")
    return _global_node.all_processes["raylet"][0].process.pid
