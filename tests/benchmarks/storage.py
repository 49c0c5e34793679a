"""Conversion to and streaming from object storage 30 ms away, and how many requests that takes.

`python tests/benchmarks/storage.py` serves S3 on loopback (rclone, with files behind it) behind a
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
from dataclasses import asdict, dataclass
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
from ray_processes import process_seconds, processor_seconds, start_ray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.servers.latency_proxy import DelayingProcess, delaying
from tests.support.servers.object_storage import S3Server, serve_s3

BATCH = 64
LOCAL, REMOTE, UPLOAD = "conversion to the local disk", "conversion to S3", "limit: s3fs alone"
STREAM = "windows, direct, S3"


@dataclass(frozen=True)
class Run:
    """One run of one side."""

    seconds: float
    client_seconds: float
    """on processors, of this process and Ray"""
    server_seconds: float
    """on processors, of the server and the relay"""
    counts: dict[str, int]
    """requests by method and bytes, as the relay counted them"""

    @property
    def requests(self) -> int:
        return sum(n for method, n in self.counts.items() if method not in ("up", "down"))


class Sides:
    """What is measured."""

    def __init__(self, folder: Path, server: S3Server, proxy: DelayingProcess, gigabytes: float):
        self.folder, self.source = folder, folder / "archive"
        self.server, self.bucket, self.proxy = server, server.bucket(), proxy
        say("making the archive")
        write_archive(self.source, frames_of(gigabytes))
        self._runs = 0

    def prepare(self) -> None:
        """The store whose shards are uploaded and whose windows are drawn."""
        self.local = self.folder / "kept"
        convert_here(self.source, self.local)
        self.remote = f"{self.bucket}/kept"
        convert_here(self.source, self.remote)
        self.keys = [
            str(path.relative_to(self.local))
            for path in self.local.rglob("*")
            if path.is_file() and path.relative_to(self.local).parts[0] in (".ledger", "t2m")
        ]
        for shard in sorted(self.local.glob("t2m/c/*/0/0")):
            place = f"{self.remote}/{shard.relative_to(self.local)}"
            if self._storage().cat_file(place) != shard.read_bytes():
                raise RuntimeError(f"{place} differs from the shard on the local disk")
        self.shards = {
            str(path.relative_to(self.local)): path.read_bytes()
            for path in sorted(self.local.glob("t2m/c/*/0/0"))
        }

    def convert_locally(self) -> Run:
        store = self.folder / "store"
        result = self._counted(lambda: convert_here(self.source, store))
        shutil.rmtree(store)
        return result

    def convert_remotely(self) -> Run:
        store = self._place("converted")
        result = self._counted(lambda: convert_here(self.source, store))
        self._storage().rm(store, recursive=True)
        return result

    def upload(self) -> Run:
        store = self._place("uploaded")
        content = {f"{store}/{name}": data for name, data in self.shards.items()}
        result = self._counted(lambda: self._storage().pipe(content))
        self._storage().rm(store, recursive=True)
        return result

    def _counted(self, action: Callable[[], Any]) -> Run:
        os.sync()
        self.proxy.counts()
        used = self._processor_seconds()
        began = time.perf_counter()
        action()
        seconds = time.perf_counter() - began
        client, server = (b - a for a, b in zip(used, self._processor_seconds(), strict=True))
        return Run(seconds, client, server, self.proxy.counts())

    def _processor_seconds(self) -> tuple[float, float]:
        """Of this process and Ray, and of the server and the relay."""
        assert self.server.process is not None
        others = [self.server.process.pid, self.proxy.pid]
        return processor_seconds(), sum(map(process_seconds, others))

    def _place(self, name: str) -> str:
        """A new prefix, in which the server has the folders of the keys that will come.

        An object storage has none. This server makes them as keys come, and where two requests
        make the same one it may fail one of them, which then waits a second for its second try.
        """
        self._runs += 1
        place = f"{self.bucket}/{name}{self._runs}"
        folders = sorted({key.rpartition("/")[0] for key in self.keys})
        self._storage().pipe({f"{place}/{folder}/.folder": b"" for folder in folders}, batch_size=1)
        return place

    def _storage(self) -> Any:
        import fsspec

        return fsspec.filesystem("s3")

    def stream(self, place: str, epochs: int) -> Callable[[], Run]:
        """Draw every batch of some epochs; seconds are those of a thousand windows."""
        from pipelines.inputs.normalisation import Normalisation
        from pipelines.stores.store import open_store
        from pipelines.stream.order import OrderConfig
        from pipelines.stream.window_stream import WindowStream
        from pipelines.stream.windows import WindowSpec, window_starts

        store, spec = open_store(place), WindowSpec(12, 12)
        starts = window_starts(store.times, store.available, store.cadence, spec)
        self.windows = len(starts) * epochs
        normalisation = Normalisation.from_store(store, ("t2m",), "standardise")

        def run() -> Run:
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

    def fetch(self) -> Run:
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
    parser.add_argument("--repeats", type=int, default=5)
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
        sides = Sides(Path(name), server, proxy, options.gigabytes)
        say("converting once to each place and comparing the shards")
        sides.prepare()
        taken = alternate(
            {
                LOCAL: sides.convert_locally,
                REMOTE: sides.convert_remotely,
                UPLOAD: sides.upload,
                "windows, direct, local disk": sides.stream(str(sides.local), options.epochs),
                STREAM: sides.stream(sides.remote, options.epochs),
                "limit: s3fs alone, every shard once": sides.fetch,
            },
            options.repeats,
        )
        ray.shutdown()
        report(sides, taken, options)


def processors_permit(taken: dict[str, list[Run]], megabytes: float) -> float:
    """MB/s at which every core of this machine is busy with nothing but the work itself."""
    convert = statistics.median(run.client_seconds for run in taken[LOCAL])
    upload = statistics.median(run.client_seconds + run.server_seconds for run in taken[UPLOAD])
    return megabytes * (os.cpu_count() or 1) / (convert + upload)


def report(sides: Sides, taken: dict[str, list[Run]], options: argparse.Namespace) -> None:
    """Rates, requests and what is required."""
    frames = frames_of(options.gigabytes)
    megabytes = frames * FRAME_BYTES / 1e6
    stored = sum(map(len, sides.shards.values())) / 1e6
    print(
        "\nThe S3 server is on loopback, behind a relay that delays each request by "
        f"{1000 * options.latency:.0f} ms. The archive has {megabytes:.0f} MB and is stored in "
        f"{len(sides.shards)} shards of {stored:.0f} MB in total. A run reads {sides.windows} "
        "windows of 24 x 32 x 64. Server, relay and client share "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}."
    )
    rows, rates = [], {}
    for label, runs in taken.items():
        of_windows = label.startswith("windows")
        seconds = statistics.median(run.seconds for run in runs)
        rates[label] = (sides.windows if of_windows else megabytes) / seconds
        last = runs[-1]
        rows.append(
            (
                label,
                f"{rates[label]:,.0f} {'windows/s' if of_windows else 'MB/s'}",
                f"{min(run.seconds for run in runs):.2f} to {max(run.seconds for run in runs):.2f}",
                f"{statistics.median(run.client_seconds for run in runs):.2f}",
                f"{statistics.median(run.server_seconds for run in runs):.2f}",
                f"{last.requests:,}",
                f"{last.counts.get('up', 0) / 1e6:,.0f}",
                f"{last.counts.get('down', 0) / 1e6:,.0f}",
            )
        )
    print_table(
        (
            "",
            "rate (median)",
            "seconds",
            "processor seconds, client",
            "processor seconds, server and relay",
            "requests",
            "MB up",
            "MB down",
        ),
        rows,
    )
    print(
        "\nMB/s count decoded megabytes (10^6 bytes), also for the limits. The relay counts the "
        "requests, including those of the workers."
    )
    per_window = taken[STREAM][-1].requests / sides.windows
    requirements = [
        Requirement(
            "conversion to S3, relative to the slower of local disk and s3fs alone",
            rates[REMOTE] / min(rates[LOCAL], rates[UPLOAD]),
            0.7,
            "x",
        ),
        Requirement("windows/s from S3", rates[STREAM], 20_000),
    ]
    shared = processors_permit(taken, megabytes)
    print(
        f"\nThe server and the relay use the same {os.cpu_count()} cores as the client. With the "
        "processor seconds that decoding, encoding, uploading and storing take alone, at most "
        f"{shared:,.0f} MB/s are possible here. The conversion to S3 reaches "
        f"{rates[REMOTE] / shared:.2f}x of that."
    )
    print(f"\nRequests per window: {per_window:.4f}.")
    print_requirements(requirements)
    figures = {
        "rates": rates,
        "processors_permit": shared,
        "requests_per_window": per_window,
        "runs": {label: [asdict(run) for run in runs] for label, runs in taken.items()},
    }
    write_json(options.json, figures, requirements)


if __name__ == "__main__":
    main()
