"""How many windows a second reach one process, beside a torch DataLoader and the memory limit.

``python tests/benchmarks/streaming.py`` makes a synthetic archive of hourly 32 x 64 fields in a
temporary folder, converts it, and draws normalised float32 batches of 64 windows of 24 frames in
the order of training, reads included. All sides read the same store on the same machine in
alternating runs; the table gives the median, the lowest and the highest run.

- *memory copy*: the windows of one batch copied from random places of an array in memory, on one
  thread: what no loader of one process that copies on one core can beat.
- *direct*: the stream as training uses it.
- *Ray Data*: the same batches, read by tasks of Ray Data.
- *DataLoader*: one random Zarr read a window, with the compiled codec pipeline and without.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 64
PIPELINES = {
    "zarrs": "zarrs.ZarrsCodecPipeline",
    "zarr": "zarr.core.codec_pipeline.BatchedCodecPipeline",
}


def main() -> None:
    """Make the store, time every side, print the table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--years", type=int, default=4, help="years of the archive")
    options.add_argument("--epochs", type=int, default=4, help="epochs of a run of the stream")
    options.add_argument("--repeats", type=int, default=3, help="runs of each side")
    options.add_argument("--peer-seconds", type=float, default=4.0, help="length of a peer's run")
    options.add_argument("--store", help="a WeatherBench store to read; default: made here")
    given = options.parse_args()

    import ray

    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    ray.init(
        address="local",
        num_cpus=os.cpu_count(),
        object_store_memory=512 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
    )
    with tempfile.TemporaryDirectory() as folder:
        uri = given.store or made_store(Path(folder), given.years)
        sides = Sides(uri, given.epochs, given.peer_seconds)
        print_table(sides, measure(sides.all(), given.repeats))
    ray.shutdown()


def made_store(folder: Path, years: int) -> str:
    """Write and convert a synthetic archive."""
    from pipelines.archives.synthetic import write_weatherbench
    from pipelines.convert import ConversionRequest, convert

    write_weatherbench(folder / "archive", range(2010, 2010 + years))
    store = str(folder / "t2m.zarr")
    convert(ConversionRequest("weatherbench", str(folder / "archive"), store))
    return store


class Sides:
    """The loaders that are compared; each returns windows a second of one run."""

    def __init__(self, uri: str, epochs: int, peer_seconds: float):
        from pipelines.normalisation import Normalisation
        from pipelines.order import OrderConfig
        from pipelines.store import open_store
        from pipelines.stream import WindowStream
        from pipelines.transport_ray import SlabDataConfig, SlabPlan
        from pipelines.windows import WindowSpec, window_starts

        self.store, self.epochs, self.peer_seconds = open_store(uri), epochs, peer_seconds
        self.spec = WindowSpec(12, 12)
        # Every window of the archive, whatever its splits: longer runs are steadier.
        self.starts = window_starts(
            self.store.times, self.store.available, self.store.cadence, self.spec
        )
        variables = (next(iter(self.store.variables)),)
        self.normalisation = Normalisation.from_store(self.store, variables, "standardise")
        common = (self.store, variables, self.spec, self.starts, OrderConfig(BATCH))
        self.direct = WindowStream(*common, self.normalisation, range(BATCH))
        [shard] = SlabDataConfig({"train": SlabPlan(*common, self.normalisation)}).configure(
            {"train": None}, 1
        )
        self.ray = shard["train"].stream()

    def all(self) -> dict[str, Callable[[], float]]:
        """Name -> one run."""
        return {
            "memory copy": self.memory_copy,
            "direct": lambda: self.stream(self.direct),
            "Ray Data": lambda: self.stream(self.ray),
            "DataLoader, 2 workers, zarrs": lambda: self.dataloader(2, "zarrs"),
            "DataLoader, 0 workers, zarrs": lambda: self.dataloader(0, "zarrs"),
            "DataLoader, 2 workers, zarr": lambda: self.dataloader(2, "zarr"),
        }

    def stream(self, stream: Any) -> float:
        began, windows = time.perf_counter(), 0
        for epoch in range(self.epochs):
            for batch in stream.epoch(epoch):
                windows += len(batch.starts)
        return windows / (time.perf_counter() - began)

    def memory_copy(self) -> float:
        rng = np.random.default_rng(0)
        frames = np.ones((BATCH * 512, *self.store.spatial_shape), np.float32)
        ring = [
            np.ones((BATCH, self.spec.frames, *self.store.spatial_shape), np.float32)
            for _ in range(4)
        ]
        places = rng.integers(0, len(frames) - self.spec.frames, (300, BATCH)).tolist()
        began = time.perf_counter()
        for step, heads in enumerate(places):
            for window, head in zip(ring[step % 4], heads, strict=True):
                np.copyto(window, frames[head : head + self.spec.frames])
        return len(places) * BATCH / (time.perf_counter() - began)

    def dataloader(self, workers: int, pipeline: str) -> float:
        from torch.utils.data import DataLoader

        windows = RandomWindows(
            self.store.uri, self.starts, self.spec.frames, self.normalisation, PIPELINES[pipeline]
        )
        loader = DataLoader(
            windows,
            batch_size=BATCH,
            shuffle=True,
            num_workers=workers,
            multiprocessing_context="spawn" if workers else None,
        )
        batches = iter(loader)
        next(batches)  # the workers have started
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < self.peer_seconds:
            count += len(next(batches))
        return count / (time.perf_counter() - began)


class RandomWindows:
    """A map-style data set: one Zarr read and one normalisation a window."""

    def __init__(self, uri: str, starts: np.ndarray, frames: int, normalisation: Any, path: str):
        self.uri, self.starts, self.frames = uri, starts, frames
        self.normalisation, self.path = normalisation, path
        self.array: Any = None

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> Any:
        import torch
        import zarr

        from pipelines.store import open_store

        if self.array is None:
            with zarr.config.set({"codec_pipeline.path": self.path}):
                store = open_store(self.uri)
                self.array = store.array(next(iter(store.variables)))
        start = self.starts[index]
        frames = self.array[start : start + self.frames]
        return torch.from_numpy(self.normalisation.apply(frames[:, None]))


def measure(sides: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Windows a second of every run; the order alternates, so that none is always first."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats):
        names = list(sides) if repeat % 2 == 0 else list(sides)[::-1]
        for name in names:
            rates[name].append(sides[name]())
    return rates


def print_table(sides: Sides, rates: dict[str, list[float]]) -> None:
    """The table in Markdown, and what the machine was doing."""
    frames, (height, width) = sides.spec.frames, sides.store.spatial_shape
    window_bytes = frames * height * width * 4
    limit = statistics.median(rates["memory copy"])
    chunk = next(iter(sides.store.variables.values())).chunk_frames
    print(
        f"\nWindows of {frames} x {height} x {width} float32 ({window_bytes / 1e3:.0f} kB) in "
        f"batches of {BATCH}; {len(sides.starts)} windows, chunks of {chunk} frames; "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; "
        f"the direct stream holds {sides.direct.nbytes / 1e6:.0f} MB\n"
    )
    print("| side | windows/s | lowest - highest | GB/s | of the memory copy |")
    print("|---|---:|---:|---:|---:|")
    for name, runs in rates.items():
        median = statistics.median(runs)
        print(
            f"| {name} | {median:,.0f} | {min(runs):,.0f} - {max(runs):,.0f} "
            f"| {median * window_bytes / 1e9:.2f} | {median / limit:.0%} |"
        )


if __name__ == "__main__":
    main()
