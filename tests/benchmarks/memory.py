"""Peak memory of conversion and of streaming, from a small store to one ten times as large.

`python tests/benchmarks/memory.py` makes archives of one and of ten gigabytes one after the
other, converts each, and draws shuffled batches of 64 windows from it; each job runs in a process
of its own, whose peak is that of its resident memory (Linux: VmHWM). Memory that files have in the
page cache is nobody's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import chain, count, islice
from pathlib import Path

from figures import (
    Requirement,
    add_json_option,
    print_requirements,
    print_table,
    say,
    write_json,
)
from made_archive import FRAME_BYTES, frames_of, write_archive
from ray_processes import peak_own_bytes, peak_worker_bytes, start_ray

BATCH, DRAWN = 64, 6000
WORKER, DRIVER, STREAM = "conversion, a worker", "conversion, the driver", "streaming"


def write(source: Path, store: Path, gigabytes: float) -> dict[str, int]:
    """Make the archive."""
    write_archive(source, frames_of(gigabytes))
    return {}


def convert(source: Path, store: Path, gigabytes: float) -> dict[str, int]:
    """Convert it on a fresh Ray."""
    import ray
    from conversion import convert_here

    start_ray()
    convert_here(source, store)
    peaks = {WORKER: peak_worker_bytes(), DRIVER: peak_own_bytes()}
    ray.shutdown()
    return peaks


def stream(source: Path, store: Path, gigabytes: float) -> dict[str, int]:
    """Draw as many batches from a small store as from a large one."""
    from pipelines.inputs.normalisation import Normalisation
    from pipelines.stores.store import open_store
    from pipelines.stream.order import OrderConfig
    from pipelines.stream.window_stream import WindowStream
    from pipelines.stream.windows import WindowSpec, window_starts

    opened, spec = open_store(str(store)), WindowSpec(12, 12)
    starts = window_starts(opened.times, opened.available, opened.cadence, spec)
    normalisation = Normalisation.from_store(opened, ("t2m",), "standardise")
    batches = WindowStream(
        opened, ("t2m",), spec, starts, OrderConfig(BATCH), normalisation, range(BATCH)
    )
    epochs = chain.from_iterable(batches.epoch(epoch) for epoch in count())
    for _ in islice(epochs, DRAWN):
        pass
    batches.close()
    return {STREAM: peak_own_bytes()}


JOBS: dict[str, Callable[[Path, Path, float], dict[str, int]]] = {
    "write": write,
    "convert": convert,
    "stream": stream,
}


def main() -> None:
    """Measure both sizes, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=float, nargs="+", default=[1.0, 10.0], help="in gigabytes")
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    add_json_option(parser)
    options = parser.parse_args()
    if options.job:
        [size] = options.sizes
        source, store = options.folder / "archive", options.folder / "store"
        print(json.dumps(JOBS[options.job](source, store, size)))
        return
    peaks: dict[float, dict[str, int]] = {}
    for size in options.sizes:
        peaks[size] = {}
        with tempfile.TemporaryDirectory(prefix="gmg-bench-") as folder:
            for job in JOBS:
                say(f"{job}, {size:g} GB")
                peaks[size] |= in_its_own_process(job, size, folder)
    report(peaks, options.json)


def in_its_own_process(job: str, size: float, folder: str) -> dict[str, int]:
    """What a job printed; a high-water mark never falls, so that none may come before it."""
    command = [sys.executable, "-W", "ignore", __file__, "--job", job, "--folder", folder]
    done = subprocess.run(
        [*command, "--sizes", str(size)], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def report(peaks: dict[float, dict[str, int]], path: Path | None) -> None:
    """The table, and growth against what is allowed."""
    sizes = list(peaks)
    print("\nPeak resident memory of one process, in MB (10^6 bytes).")
    print_table(
        ("", *(f"{size:g} GB" for size in sizes), "largest over smallest"),
        [
            (
                name,
                *(f"{peaks[size][name] / 1e6:,.0f}" for size in sizes),
                f"{growth(peaks, name):.2f}x",
            )
            for name in (WORKER, DRIVER, STREAM)
        ],
    )
    more = peaks[max(peaks)][DRIVER] - peaks[min(peaks)][DRIVER]
    frames = frames_of(max(peaks)) - frames_of(min(peaks))
    print(
        f"\nThe driver keeps the time and the flag of every frame in memory: {more / frames:.0f} "
        f"bytes per frame. Even a small frame has {FRAME_BYTES:,} bytes in the archive."
    )
    requirements = [
        Requirement(f"growth, {name}", growth(peaks, name), 1.1, "x", most=True)
        for name in (WORKER, DRIVER, STREAM)
    ]
    print_requirements(requirements)
    write_json(path, {"peak_bytes": {f"{size:g} GB": p for size, p in peaks.items()}}, requirements)


def growth(peaks: dict[float, dict[str, int]], name: str) -> float:
    """Peak at the largest size over that at the smallest."""
    return peaks[max(peaks)][name] / peaks[min(peaks)][name]


if __name__ == "__main__":
    main()
