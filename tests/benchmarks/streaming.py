"""How many windows a second reach one process, beside its peers and the memory limit.

`python tests/benchmarks/streaming.py` makes a synthetic archive of hourly 32 x 64 fields in a
temporary folder, converts it, and draws normalised float32 batches of 64 windows of 24 frames in
the order of training, reads included. All sides read the same store on the same machine in
alternating runs; the table gives the median, the lowest and the highest run. Before anything is
timed, each side delivers the same windows and they are compared value by value.

- *memory copy*: the windows of one batch copied from random places of an array in memory, on one
  thread: what no loader of one process that copies on one core can beat.
- *direct*: the stream as training uses it.
- *Ray Data*: the same batches, read by tasks of Ray Data.
- *xbatcher*: its windows of the lazily opened store, one read a window, stacked and normalised.
- *litdata*, *MosaicML streaming*: the first year of the frames, written in the format of each and
  read by it; once as frames, and random windows put together from them, and once with every window
  stored whole, in its own shuffled order through its own loader. The table says how many times the
  bytes of the frames that takes.
- *DataLoader*: one random Zarr read a window, with the compiled codec pipeline and without.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from figures import (
    Requirement,
    add_json_option,
    alternate,
    print_requirements,
    print_table,
    say,
    write_json,
)
from peer import Peer, PeerFailed
from ray_processes import start_ray

BATCH = 64
PIPELINES = {
    "zarrs": "zarrs.ZarrsCodecPipeline",
    "zarr": "zarr.core.codec_pipeline.BatchedCodecPipeline",
}
COPIES = ("litdata", "mosaicml-streaming")
COPIED_FRAMES = 8760
COPY, DIRECT, RAY = "memory copy", "direct", "Ray Data"


def main() -> None:
    """Make the store, time every side, print the table."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--years", type=int, default=4, help="years of the archive")
    options.add_argument("--epochs", type=int, default=4, help="epochs of a run of the stream")
    options.add_argument("--repeats", type=int, default=3, help="runs of each side")
    options.add_argument("--peer-seconds", type=float, default=3.0, help="length of a peer's run")
    options.add_argument("--store", help="a WeatherBench store to read; default: made here")
    add_json_option(options)
    given = options.parse_args()

    import ray

    start_ray(512 * 2**20)
    with tempfile.TemporaryDirectory(prefix="gmg-bench-") as folder:
        say("making the store")
        uri = given.store or made_store(Path(folder), given.years)
        sides = Sides(uri, given.epochs, given.peer_seconds, Path(folder))
        chosen = sides.all()
        say("comparing what the sides deliver")
        sides.check()
        report(sides, alternate(chosen, given.repeats), given.json)
        sides.close()
    ray.shutdown()


def made_store(folder: Path, years: int) -> str:
    """Write and convert a synthetic archive."""
    from pipelines.archives.synthetic import write_weatherbench
    from pipelines.conversion.convert import convert
    from pipelines.conversion.options import ConversionRequest

    write_weatherbench(folder / "archive", range(2010, 2010 + years))
    store = str(folder / "t2m.zarr")
    convert(ConversionRequest("weatherbench", str(folder / "archive"), store))
    return store


class Sides:
    """The loaders that are compared; each returns windows a second of one run."""

    def __init__(self, uri: str, epochs: int, peer_seconds: float, folder: Path):
        from pipelines.inputs.normalisation import Normalisation
        from pipelines.stores.store import open_store
        from pipelines.stream.order import OrderConfig
        from pipelines.stream.ray_transport import RayTransport
        from pipelines.stream.window_stream import WindowStream
        from pipelines.stream.windows import WindowSpec, window_starts

        self.store, self.epochs, self.peer_seconds = open_store(uri), epochs, peer_seconds
        self.folder = folder
        self.spec = WindowSpec(12, 12)
        # Every window of the archive, whatever its splits: longer runs are steadier.
        self.starts = window_starts(
            self.store.times, self.store.available, self.store.cadence, self.spec
        )
        variables = (next(iter(self.store.variables)),)
        self.normalisation = Normalisation.from_store(self.store, variables, "standardise")
        common = (self.store, variables, self.spec, self.starts, OrderConfig(BATCH))
        self.direct = WindowStream(*common, self.normalisation, range(BATCH))
        self.ray = WindowStream(*common, self.normalisation, range(BATCH), transport=RayTransport)
        self.absent: dict[str, str] = {}
        self.xbatcher: Peer | None = None
        self.copies: dict[str, Peer] = {}

    def all(self) -> dict[str, Callable[[], float]]:
        """Name -> one run."""
        return {
            COPY: self.memory_copy,
            DIRECT: lambda: self.stream(self.direct),
            RAY: lambda: self.stream(self.ray),
            **self._xbatcher(),
            **self._copies(),
            "DataLoader, 2 workers, zarrs": lambda: self.dataloader(2, "zarrs"),
            "DataLoader, 0 workers, zarrs": lambda: self.dataloader(0, "zarrs"),
            "DataLoader, 2 workers, zarr": lambda: self.dataloader(2, "zarr"),
        }

    def _xbatcher(self) -> dict[str, Callable[[], float]]:
        [offset], [scale] = self.normalisation.offset, self.normalisation.scale
        name = next(iter(self.store.variables))
        arguments = (self.store.uri, name, *map(str, (offset, scale, self.spec.frames, BATCH)))

        def run(threads: int) -> float:
            assert self.xbatcher is not None
            return self.xbatcher.ask(seconds=self.peer_seconds, threads=threads, seed=1)["rate"]

        try:
            self.xbatcher = Peer("xbatcher", *arguments)
            self.xbatcher.ask(seconds=0.1, threads=1, seed=0)
        except PeerFailed as error:
            self.absent["xbatcher"], self.xbatcher = str(error), None
            return {}
        return {
            "xbatcher, zarrs": lambda: run(1),
            "xbatcher, 2 threads, zarrs": lambda: run(2),
        }

    def _copies(self) -> dict[str, Callable[[], float]]:
        """Peers that read formats of their own, which they write first."""
        [offset], [scale] = self.normalisation.offset, self.normalisation.scale
        frames = np.asarray(self.store.array(next(iter(self.store.variables)))[:COPIED_FRAMES])
        source, runs = self.folder / "frames.npy", {}
        np.save(source, frames)
        for name in COPIES:
            for stored in ("frames", "windows"):
                place = self.folder / f"{name}-{stored}"
                constants = (offset, scale, self.spec.frames, BATCH, stored)
                say(f"writing {stored} for {name}")
                try:
                    peer = Peer(name, str(source), str(place), *map(str, constants))
                    written = peer.ask(starts=[0], file=str(self.folder / "first.npy"))["bytes"]
                    peer.ask(seconds=0.1, threads=1, seed=0)
                except PeerFailed as error:
                    self.absent[f"{name}, {stored} stored"] = str(error)
                    continue
                label = f"{name}, {stored} stored ({written / frames.nbytes:.1f} x the bytes)"
                self.copies[label] = peer
                runs[label] = partial(self._copy_rate, peer, 1)
                if stored == "windows":
                    runs[f"{label}, 2 workers"] = partial(self._copy_rate, peer, 3)
        return runs

    def _copy_rate(self, peer: Peer, threads: int) -> float:
        return peer.ask(seconds=self.peer_seconds, threads=threads, seed=1)["rate"]

    def check(self) -> None:
        """RuntimeError where a side's windows are not those of the store."""
        for stream in (self.direct, self.ray):
            batch = next(stream.epoch(0))
            self._compare(batch.starts, batch.frames_btchw)
            stream.close()
        chosen = np.linspace(0, len(self.starts) - 1, BATCH).astype(int)
        random, starts = self._random_windows("zarr"), self.starts[chosen]
        self._compare(starts, np.stack([np.asarray(random[i]) for i in chosen.tolist()]))
        file = self.folder / "windows.npy"
        if self.xbatcher is not None:
            self.xbatcher.ask(starts=starts.tolist(), file=str(file))
            self._compare(starts, np.load(file))
        copied = self.starts[self.starts + self.spec.frames <= COPIED_FRAMES]
        starts = copied[np.linspace(0, len(copied) - 1, BATCH).astype(int)]
        for peer in self.copies.values():
            peer.ask(starts=starts.tolist(), file=str(file))
            self._compare(starts, np.load(file))

    def slabs(self) -> int:
        """Slabs that the windows of a whole batch come from, at the poorest step of an epoch."""
        from pipelines.stream.order import slab_frames

        order = self.direct.order(0)
        frames = slab_frames(order.config, order.layout, len(self.starts))
        whole = len(self.starts) // BATCH
        starts = np.stack([order.lane(lane)[:whole] for lane in range(BATCH)])
        return min(len(np.unique(step)) for step in (starts // frames).T)

    def _compare(self, starts: np.ndarray, frames_btchw: np.ndarray) -> None:
        from pipelines.stream.window_stream import read_batches

        names = tuple(self.store.variables)
        [(_, expected)] = read_batches(self.store, names, self.spec, starts, len(starts))
        np.testing.assert_allclose(
            frames_btchw, self.normalisation.apply(expected), rtol=1e-5, atol=1e-5
        )

    def close(self) -> None:
        """End the peers."""
        for peer in (self.xbatcher, *self.copies.values()):
            if peer is not None:
                peer.close()

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

        loader = DataLoader(
            self._random_windows(pipeline),
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

    def _random_windows(self, pipeline: str) -> RandomWindows:
        return RandomWindows(
            self.store.uri, self.starts, self.spec.frames, self.normalisation, PIPELINES[pipeline]
        )


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

        from pipelines.stores.store import open_store

        if self.array is None:
            with zarr.config.set({"codec_pipeline.path": self.path}):
                store = open_store(self.uri)
                self.array = store.array(next(iter(store.variables)))
        start = self.starts[index]
        frames = self.array[start : start + self.frames]
        return torch.from_numpy(self.normalisation.apply(frames[:, None]))


def report(sides: Sides, rates: dict[str, list[float]], json: Path | None) -> None:
    """The tables in Markdown, and what the machine was doing."""
    frames, (height, width) = sides.spec.frames, sides.store.spatial_shape
    window_bytes = frames * height * width * 4
    medians = {name: statistics.median(runs) for name, runs in rates.items()}
    chunk = next(iter(sides.store.variables.values())).chunk_frames
    slabs = sides.slabs()
    print(
        f"\nWindows of {frames} x {height} x {width} float32 ({window_bytes / 1e3:.0f} kB) in "
        f"batches of {BATCH}; {len(sides.starts)} windows, chunks of {chunk} frames; "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}. "
        f"The direct stream keeps {sides.direct.nbytes / 1e6:.0f} MB in memory. Each batch has "
        f"windows from at least {slabs} slabs (runs of whole chunks)."
    )
    rows = [
        (
            name,
            f"{medians[name]:,.0f}",
            f"{min(runs):,.0f} - {max(runs):,.0f}",
            f"{medians[name] * window_bytes / 1e9:.2f}",
            f"{medians[name] / medians[COPY]:.0%}",
        )
        for name, runs in rates.items()
    ]
    rows += [(name, "none", why, "", "") for name, why in sides.absent.items()]
    print_table(("loader", "windows/s", "lowest - highest", "GB/s", "of the memory copy"), rows)
    xbatcher = [rate for name, rate in medians.items() if name.startswith("xbatcher")]
    loaders = [rate for name, rate in medians.items() if name.startswith("DataLoader")]
    requirements = [
        Requirement("windows/s, direct", medians[DIRECT], 60_000),
        Requirement("windows/s, Ray Data", medians[RAY], 30_000),
        Requirement("slabs per batch", slabs, 32),
        Requirement(
            "direct, relative to the fastest xbatcher",
            medians[DIRECT] / max(xbatcher) if xbatcher else None,
            10,
            "x",
        ),
        Requirement(
            "direct, relative to the fastest DataLoader", medians[DIRECT] / max(loaders), 10, "x"
        ),
    ]
    print_requirements(requirements)
    write_json(json, {"windows_per_second": medians, "absent": sides.absent}, requirements)


if __name__ == "__main__":
    main()
