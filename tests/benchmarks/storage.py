"""Conversion to and streaming from object storage 30 ms away, and how many requests that takes.

``python tests/benchmarks/storage.py`` serves S3 on loopback (rclone, with files behind it) behind a
relay in which every request waits, converts a seeded archive to it and to the local disk, uploads
the same shards with s3fs alone, and draws shuffled batches from the store there. The relay counts
requests and bytes. All programs share the machine's cores: the server, the relay and the client.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from conversion import convert_here
from figures import (
    Requirement,
    add_json_option,
    alternate,
    print_requirements,
    print_table,
    say,
    write_json,
)
from made_archive import FRAME_BYTES, frames_of, write_archive
from ray_processes import start_ray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.latency_proxy import DelayingProcess, delaying
from tests.object_storage import serve_s3

BATCH = 64
LOCAL, REMOTE, UPLOAD = "conversion to the local disk", "conversion to S3", "limit: s3fs alone"


class Sides:
    """The runs; each returns seconds and what the relay counted meanwhile."""

    def __init__(self, folder: Path, bucket: str, proxy: DelayingProcess, gigabytes: float):
        self.source, self.folder, self.bucket, self.proxy = (
            folder / "archive",
            folder,
            bucket,
            proxy,
        )
        say("making the archive")
        write_archive(self.source, frames_of(gigabytes))
        self._runs = 0

    def prepare(self) -> None:
        """The store whose shards are uploaded and whose windows are drawn."""
        self.local = self.folder / "kept"
        convert_here(self.source, self.local)
        self.remote = f"{self.bucket}/kept"
        convert_here(self.source, self.remote)
        for shard in sorted(self.local.glob("t2m/c/*/0/0")):
            place = f"{self.remote}/{shard.relative_to(self.local)}"
            if self._storage().cat_file(place) != shard.read_bytes():
                raise RuntimeError(f"{place} differs from the shard on the local disk")
        self.shards = {
            str(path.relative_to(self.local)): path.read_bytes()
            for path in sorted(self.local.glob("t2m/c/*/0/0"))
        }

    def convert_locally(self) -> tuple[float, dict[str, int]]:
        store = self.folder / "store"
        result = self._counted(lambda: convert_here(self.source, store))
        shutil.rmtree(store)
        return result

    def convert_remotely(self) -> tuple[float, dict[str, int]]:
        store = self._place("converted")
        result = self._counted(lambda: convert_here(self.source, store))
        self._storage().rm(store, recursive=True)
        return result

    def upload(self) -> tuple[float, dict[str, int]]:
        store = self._place("uploaded")
        content = {f"{store}/{name}": data for name, data in self.shards.items()}
        result = self._counted(lambda: self._storage().pipe(content))
        self._storage().rm(store, recursive=True)
        return result

    def _counted(self, action: Callable[[], Any]) -> tuple[float, dict[str, int]]:
        os.sync()
        self.proxy.counts()
        began = time.perf_counter()
        action()
        return time.perf_counter() - began, self.proxy.counts()

    def _place(self, name: str) -> str:
        self._runs += 1
        return f"{self.bucket}/{name}{self._runs}"

    def _storage(self) -> Any:
        import fsspec

        return fsspec.filesystem("s3")

    def stream(self, place: str, epochs: int) -> Callable[[], tuple[float, dict[str, int]]]:
        """Draw every batch of some epochs; seconds are those of a thousand windows."""
        from pipelines.normalisation import Normalisation
        from pipelines.order import OrderConfig
        from pipelines.store import open_store
        from pipelines.stream import WindowStream
        from pipelines.windows import WindowSpec, window_starts

        store, spec = open_store(place), WindowSpec(12, 12)
        starts = window_starts(store.times, store.available, store.cadence, spec)
        self.windows = len(starts) * epochs
        normalisation = Normalisation.from_store(store, ("t2m",), "standardise")

        def run() -> tuple[float, dict[str, int]]:
            # A stream of its own a run, so that every run asks for the shards' indexes.
            stream = WindowStream(
                store, ("t2m",), spec, starts, OrderConfig(BATCH), normalisation, range(BATCH)
            )

            def draw() -> None:
                drawn = sum(len(b.starts) for e in range(epochs) for b in stream.epoch(e))
                if drawn != self.windows:
                    raise RuntimeError(f"{drawn} windows were drawn of {self.windows}")

            return self._counted(draw)

        return run

    def fetch(self) -> tuple[float, dict[str, int]]:
        """Every shard once with s3fs alone, eight at a time, nothing decoded."""
        storage = self._storage()
        places = [f"{self.remote}/{name}" for name in self.shards]

        def read() -> None:
            with ThreadPoolExecutor(8) as pool:
                for _ in pool.map(lambda place: storage.cat_file(place, 0, None), places):
                    pass

        return self._counted(read)


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--latency", type=float, default=0.03, help="seconds a request waits")
    parser.add_argument("--epochs", type=int, default=1, help="epochs of a run of the stream")
    parser.add_argument("--repeats", type=int, default=3)
    add_json_option(parser)
    options = parser.parse_args()
    import ray
    import s3fs

    with (
        tempfile.TemporaryDirectory(prefix="gmg-bench-") as name,
        serve_s3(Path(name) / "s3") as server,
        delaying(server.endpoint, options.latency) as proxy,
    ):
        os.environ["AWS_ENDPOINT_URL"] = proxy.endpoint
        s3fs.S3FileSystem.clear_instance_cache()
        start_ray()
        sides = Sides(Path(name), server.bucket(), proxy, options.gigabytes)
        say("converting once to each place and comparing the shards")
        sides.prepare()
        taken = alternate(
            {
                LOCAL: sides.convert_locally,
                REMOTE: sides.convert_remotely,
                UPLOAD: sides.upload,
                "windows, direct, local disk": sides.stream(str(sides.local), options.epochs),
                "windows, direct, S3": sides.stream(sides.remote, options.epochs),
                "limit: s3fs alone, every shard once": sides.fetch,
            },
            options.repeats,
        )
        ray.shutdown()
        report(sides, taken, options)


def report(sides: Sides, taken: dict[str, list[Any]], options: argparse.Namespace) -> None:
    """Rates, requests and what is required."""
    frames = frames_of(options.gigabytes)
    megabytes = frames * FRAME_BYTES / 1e6
    stored = sum(map(len, sides.shards.values())) / 1e6
    seconds = {label: statistics.median(run for run, _ in runs) for label, runs in taken.items()}
    print(
        f"\nS3 on loopback behind a relay in which each request waits {1000 * options.latency:.0f} "
        f"ms; {megabytes:.0f} MB in {len(sides.shards)} shards of {stored:.0f} MB together, "
        f"{sides.windows} windows of 24 x 32 x 64 a run; server, relay and client on "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}."
    )
    rows, rates = [], {}
    for label, runs in taken.items():
        of_windows = label.startswith("windows")
        rates[label] = (sides.windows if of_windows else megabytes) / seconds[label]
        counts = runs[-1][1]
        requests = sum(n for method, n in counts.items() if method not in ("up", "down"))
        rows.append(
            (
                label,
                f"{rates[label]:,.0f} {'windows/s' if of_windows else 'MB/s'}",
                f"{min(run for run, _ in runs):.2f} to {max(run for run, _ in runs):.2f}",
                f"{requests:,}",
                f"{counts.get('up', 0) / 1e6:,.0f}",
                f"{counts.get('down', 0) / 1e6:,.0f}",
            )
        )
    print_table(("", "rate (median)", "seconds", "requests", "MB up", "MB down"), rows)
    print("\nMB/s are decoded megabytes (10^6 bytes), also those of the limits.")
    counts = taken["windows, direct, S3"][-1][1]
    requests = sum(n for method, n in counts.items() if method not in ("up", "down"))
    lower = min(rates[LOCAL], rates[UPLOAD])
    requirements = [
        Requirement(
            "conversion to S3, of the lower of local and s3fs alone",
            rates[REMOTE] / lower,
            0.7,
            "x",
        ),
        Requirement("windows/s from S3", rates["windows, direct, S3"], 20_000),
    ]
    print(f"\nRequests per window: {requests / sides.windows:.4f}.")
    print_requirements(requirements)
    figures = {
        "rates": rates,
        "requests_per_window": requests / sides.windows,
        "requests": {label: runs[-1][1] for label, runs in taken.items()},
    }
    write_json(options.json, figures, requirements)


if __name__ == "__main__":
    main()
