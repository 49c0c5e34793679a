"""How fast an archive becomes a store, beside its peers and the limits of the machine.

`python tests/benchmarks/conversion.py --gigabytes 1` makes a seeded NetCDF archive in a temporary
folder, converts it in alternating runs, and prints tables in Markdown. All sides read the same
file and write the same array: float32, chunks of 64 and shards of 4096 frames, blosc-lz4 + shuffle;
in an unmeasured first run what each wrote is compared with the source, value by value. The platform
also computes moments and checksums and keeps a ledger; its peers do not. The peers' choices are
their fastest: one dask chunk a shard, and the compiled codec pipeline as well as the plain one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

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
from limits import (
    CHUNK,
    SHARD,
    AllCores,
    decode_and_encode,
    decode_encode_write,
    memory_copy,
    raw_write,
)
from made_archive import FRAME_BYTES, HEIGHT, WIDTH, frames_of, write_archive
from peer import Peer, PeerFailed
from ray_processes import processor_seconds, start_ray

OURS = "this platform (Ray Data)"
DASK, DASK_PLAIN = "xarray + dask threads, zarrs", "xarray + dask threads, zarr-python"
BEAM = {
    "in_memory": "xarray-beam, local runner, zarrs",
    "multi_threading": "xarray-beam, local runner on two threads, zarrs",
}
ONE_ENCODES = "limit: decode + encode, one process"
ONE_WRITES = "limit: decode + encode + write, one process"
ALL_WRITE = "limit: decode + encode + write, one process per core"
Side = Callable[[Path, Path], None]


def convert_here(source: Path, store: Path | str) -> None:
    """The platform, on the Ray that runs."""
    from pipelines.conversion.convert import convert
    from pipelines.conversion.options import ConversionOptions, ConversionRequest

    options = ConversionOptions(chunk_frames=CHUNK, shard_frames=SHARD)
    convert(ConversionRequest("weatherbench", str(source), str(store), options))


def convert_with_dask(source: Path, store: Path, pipeline: str) -> None:
    """The peer: xarray on dask threads, one dask chunk a shard."""
    import dask
    import xarray as xr
    import zarr
    from zarr.codecs import BloscCodec

    encoding = {
        "chunks": (CHUNK, HEIGHT, WIDTH),
        "shards": (SHARD, HEIGHT, WIDTH),
        "compressors": [BloscCodec(cname="lz4", clevel=5, shuffle="shuffle", typesize=4)],
    }
    files = sorted(source.glob("*.nc"))
    with (
        dask.config.set(scheduler="threads", num_workers=os.cpu_count()),
        zarr.config.set({"codec_pipeline.path": pipeline}),
        xr.open_mfdataset(files, chunks={"time": SHARD}, engine="netcdf4")
        if len(files) > 1
        else xr.open_dataset(files[0], chunks={"time": SHARD}, engine="netcdf4") as dataset,
    ):
        dataset.chunk(time=SHARD).drop_encoding().to_zarr(
            store, zarr_format=3, consolidated=True, encoding={"t2m": encoding}
        )


def check_store(source: Path, store: Path) -> None:
    """RuntimeError where the store at `store` is not the values of the source."""
    import netCDF4
    import zarr

    written = zarr.open_array(str(store / "t2m"), mode="r")
    if (written.chunks[0], (written.shards or (0,))[0]) != (CHUNK, SHARD):
        raise RuntimeError(f"chunks {written.chunks} and shards {written.shards} were written")
    first = 0
    for path in sorted(source.glob("*.nc")):
        with netCDF4.Dataset(path) as file:
            t2m = file["t2m"]
            t2m.set_auto_maskandscale(False)
            for begin in range(0, len(t2m), SHARD):
                values = t2m[begin : begin + SHARD]
                if not np.array_equal(written[first : first + len(values)], values):
                    raise RuntimeError(f"frames from {first} differ from the source's")
                first += len(values)
    if first != written.shape[0]:
        raise RuntimeError(f"{written.shape[0]} frames were written of {first}")


class Run:
    """One side's run: seconds and processor seconds; the first one checks what it wrote."""

    def __init__(self, side: Side, source: Path, writes_a_store: bool):
        self._side, self._source, self._unchecked = side, source, writes_a_store
        self.first_seconds = 0.0

    def __call__(self) -> tuple[float, float]:
        store = self._source.parent / "store"
        shutil.rmtree(store, ignore_errors=True)
        os.sync()
        began, used = time.perf_counter(), processor_seconds()
        self._side(self._source, store)
        seconds, used = time.perf_counter() - began, processor_seconds() - used
        self.first_seconds = self.first_seconds or seconds
        if self._unchecked:
            check_store(self._source, store)
            self._unchecked = False
        shutil.rmtree(store, ignore_errors=True)
        return seconds, used


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--files", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    add_json_option(parser)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="gmg-bench-") as name:
        source = Path(name) / "archive"
        frames = frames_of(options.gigabytes)
        say("making the archive")
        write_archive(source, frames, options.files)
        measure(source, frames, options)


def measure(source: Path, frames: int, options: argparse.Namespace) -> None:
    """All sides in turn."""
    import ray

    starting = start_ray()
    sides: dict[str, Side] = {
        OURS: convert_here,
        DASK: lambda a, b: convert_with_dask(a, b, "zarrs.ZarrsCodecPipeline"),
        DASK_PLAIN: lambda a, b: convert_with_dask(
            a, b, "zarr.core.codec_pipeline.BatchedCodecPipeline"
        ),
    }
    everything = AllCores(source)
    limits: dict[str, Side] = {
        ONE_ENCODES: decode_and_encode,
        ONE_WRITES: decode_encode_write,
        ALL_WRITE: everything,
        "limit: raw write": raw_write,
        "limit: memory copy": memory_copy,
    }
    runs = {label: Run(side, source, True) for label, side in sides.items()}
    absent: dict[str, str] = {}
    peers: list[Peer] = []
    for mode, label in BEAM.items():
        try:
            peers.append(Peer("xarray-beam", str(source), str(CHUNK), str(SHARD)))
            runs[label] = Run(beam(peers[-1], mode), source, True)
        except PeerFailed as error:
            absent[label] = str(error)
    runs |= {label: Run(side, source, False) for label, side in limits.items()}
    for label, run in list(runs.items()):
        say(f"first run: {label}")
        try:
            run()
        except PeerFailed as error:
            del runs[label]
            absent[label] = str(error)
    taken = alternate(runs, options.repeats, dict.fromkeys(BEAM.values(), 2))
    ray.shutdown()
    everything.close()
    for peer in peers:
        peer.close()
    megabytes = frames * FRAME_BYTES / 1e6
    rates = {
        label: megabytes / statistics.median(seconds for seconds, _ in pairs)
        for label, pairs in taken.items()
    }
    print(
        f"\nConversion of {megabytes:.0f} MB ({frames} frames of {HEIGHT} x {WIDTH} float32 in "
        f"{options.files} NetCDF file(s)) on {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f}; starting Ray took {starting:.1f} s and is not counted."
    )
    rows = []
    for label, pairs in taken.items():
        seconds, used = zip(*pairs, strict=True)
        rows.append(
            (
                label,
                f"{rates[label]:,.0f}",
                f"{min(seconds):.2f} to {max(seconds):.2f}",
                f"{statistics.median(used):.2f}",
                f"{runs[label].first_seconds:.2f}",
            )
        )
    rows += [(label, "none", why, "", "") for label, why in absent.items()]
    print_table(
        ("", "MB/s (median)", "seconds", "processor seconds", "seconds, first run"),
        rows,
    )
    print("\nProcessor seconds are those of this process, its children and Ray. Libraries that run")
    print("in a process of their own are not included.")
    requirements = compared(rates)
    print_requirements(requirements)
    write_json(options.json, {"megabytes_per_second": rates, "absent": absent}, requirements)


def beam(peer: Peer, mode: str) -> Side:
    """xarray-beam in its own process."""

    def run(source: Path, store: Path) -> None:
        peer.ask(store=str(store), mode=mode, workers=os.cpu_count())

    return run


def compared(rates: dict[str, float]) -> list[Requirement]:
    """What is promised of a conversion on a local disk."""
    ours = rates[OURS]
    beams = [rates[label] for label in BEAM.values() if label in rates]
    return [
        Requirement(
            "speed relative to the faster xarray + dask",
            ours / max(rates[DASK], rates[DASK_PLAIN]),
            1.0,
            "x",
        ),
        Requirement(
            "speed relative to the faster xarray-beam local runner",
            ours / max(beams) if beams else None,
            1.5,
            "x",
        ),
        Requirement(
            "speed relative to decode + encode + write, one process",
            ours / rates[ONE_WRITES],
            0.6,
            "x",
        ),
        Requirement(
            "speed relative to decode + encode + write, one process per core",
            ours / rates[ALL_WRITE],
            0.6,
            "x",
        ),
    ]


if __name__ == "__main__":
    main()
