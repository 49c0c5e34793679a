"""How fast an archive becomes a store, beside xarray + dask threads and the limits of the machine.

``python tests/benchmarks/conversion.py --gigabytes 1`` makes a seeded NetCDF archive in a temporary
folder, converts it in alternating runs, and prints tables in Markdown. Both sides read the same
file and write the same array: float32, chunks of 64 and shards of 4096 frames, blosc-lz4 + shuffle.
The platform also computes moments and checksums and keeps a ledger; its peer does not.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

HEIGHT, WIDTH = 32, 64
CHUNK, SHARD = 64, 4096
FRAME_BYTES = 4 * HEIGHT * WIDTH
YEAR = 8760


def write_archive(folder: Path, frames: int, files: int, seed: int = 0) -> list[Path]:
    """Hourly float32 fields as smooth as temperature: travelling waves and a little noise."""
    import netCDF4

    rng = np.random.default_rng(seed)
    lat = np.linspace(-87.1875, 87.1875, HEIGHT)
    lon = np.arange(WIDTH) * 360 / WIDTH
    waves = rng.uniform(0.2, 1.0, (6, 3))
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, part in enumerate(np.array_split(np.arange(frames), files)):
        path = folder / f"2m_temperature_{2000 + number}_5.625deg.nc"
        with netCDF4.Dataset(path, "w") as file:
            for name, values in (("lat", lat), ("lon", lon)):
                file.createDimension(name, len(values))
                file.createVariable(name, "f8", (name,))[:] = values
            file.createDimension("time", len(part))
            time_axis = file.createVariable("time", "i8", ("time",))
            time_axis.units, time_axis.calendar = "hours since 2000-01-01", "proleptic_gregorian"
            time_axis[:] = part
            t2m = file.createVariable(
                "t2m", "f4", ("time", "lat", "lon"), contiguous=True, fill_value=np.nan
            )
            t2m.units = "K"
            for begin in range(0, len(part), YEAR):
                hours = part[begin : begin + YEAR, None, None]
                field = 288 - 40 * np.sin(np.radians(lat))[:, None] ** 2 + np.zeros_like(hours)
                field = field + 5 * np.sin(2 * np.pi * (hours / 24 + lon / 360))
                for k, (amplitude, speed, phase) in enumerate(waves, start=1):
                    angle = np.radians(k * lon) - 0.02 * speed * hours + 6 * phase
                    field = field + amplitude * np.cos(angle) * np.cos(np.radians(lat))[:, None]
                noise = rng.standard_normal((len(hours), HEIGHT, WIDTH), dtype=np.float32)
                t2m[begin : begin + len(hours)] = field.astype(np.float32) + 0.05 * noise
        paths.append(path)
    return paths


def convert_here(source: Path, store: Path) -> None:
    """The platform, on the Ray that runs."""
    from pipelines.convert import ConversionRequest, convert
    from pipelines.plan import ConversionOptions

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


def decode_and_encode(source: Path, store: Path) -> None:
    """The limit of one process: read and compress every shard, write nothing."""
    _each_shard(source, store, write=False)


def decode_encode_write(source: Path, store: Path) -> None:
    """The limit of one process with the write."""
    _each_shard(source, store, write=True)


def _each_shard(source: Path, store: Path, *, write: bool, part: int = 0, of: int = 1) -> None:
    import netCDF4

    from pipelines.shard import ShardEncoder

    store.mkdir(parents=True, exist_ok=True)
    number = 0
    for path in sorted(source.glob("*.nc")):
        with netCDF4.Dataset(path) as file:
            t2m = file["t2m"]
            t2m.set_auto_maskandscale(False)
            for begin in range(0, len(t2m), SHARD):
                number += 1
                if number % of != part:
                    continue
                encoder = ShardEncoder((HEIGHT, WIDTH), CHUNK, SHARD)
                encoder.add(t2m[begin : begin + SHARD])
                data = encoder.finish()
                if write:
                    (store / f"{part}-{number}").write_bytes(b"".join(data))


def limit_on_all_cores(source: Path, store: Path) -> None:
    """Decode, encode and write with one process a core: what no converter can beat."""
    cores = os.cpu_count() or 1
    script = "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); "
    script += "from conversion import _each_shard; "
    script += "_each_shard(Path(sys.argv[2]), Path(sys.argv[3]), write=True, "
    script += "part=int(sys.argv[4]), of=int(sys.argv[5]))"
    here = str(Path(__file__).parent)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", script, here, str(source), str(store), str(part), str(cores)]
        )
        for part in range(cores)
    ]
    if any(worker.wait() for worker in workers):
        raise RuntimeError("a process of the limit failed")


def raw_write(source: Path, store: Path) -> None:
    """Copy the bytes from the page cache to new files, uncompressed."""
    store.mkdir(parents=True, exist_ok=True)
    for path in source.glob("*.nc"):
        with open(path, "rb") as reading, open(store / path.name, "wb") as writing:
            while block := reading.read(32 * 1024**2):
                writing.write(block)


def memory_copy(source: Path, store: Path) -> None:
    """Copy the bytes in memory."""
    block = np.ones(32 * 1024**2, np.uint8)
    target = np.empty_like(block)
    for path in source.glob("*.nc"):
        for _ in range(path.stat().st_size // len(block)):
            np.copyto(target, block)


def compare(
    runs: dict[str, Callable[[Path, Path], None]], source: Path, repeats: int
) -> dict[str, list[tuple[float, float]]]:
    """Seconds and processor seconds of every run; the order alternates: no one is always first."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        names = list(runs) if repeat % 2 == 0 else list(runs)[::-1]
        for name in names:
            store = source.parent / "store"
            shutil.rmtree(store, ignore_errors=True)
            os.sync()
            began, used = time.perf_counter(), processor_seconds()
            runs[name](source, store)
            taken[name].append((time.perf_counter() - began, processor_seconds() - used))
            shutil.rmtree(store, ignore_errors=True)
    return taken


def start_ray() -> float:
    """Start Ray and return the seconds until it could run a task."""
    import ray

    # Ray's workers yield to every other process by default, those of the peer do not.
    os.environ.setdefault("RAY_worker_niceness", "0")
    began = time.perf_counter()
    ray.init(
        address="local",
        num_cpus=os.cpu_count(),
        object_store_memory=128 * 1024**2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    ray.get(ray.remote(lambda: None).remote())
    return time.perf_counter() - began


def _raylet() -> int:
    from ray._private.worker import _global_node

    if _global_node is None:
        raise RuntimeError("Ray was not started by this process")
    return _global_node.all_processes["raylet"][0].process.pid


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


def measure_memory(folder: Path, gigabytes: float, files: int) -> tuple[int, int]:
    """Peak of any worker on a fresh Ray: before any conversion, and after this one."""
    import ray

    source = folder / "larger"
    write_archive(source, int(gigabytes * 1e9 / FRAME_BYTES), files)
    start_ray()
    empty = peak_worker_bytes()
    convert_here(source, folder / "store")
    peak = peak_worker_bytes()
    ray.shutdown()
    shutil.rmtree(source)
    shutil.rmtree(folder / "store")
    return empty, peak


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--files", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--larger", type=float, default=5.0, help="of the memory test; 0: skip it")
    options = parser.parse_args()
    import ray

    with tempfile.TemporaryDirectory(prefix="gmg-bench-") as name:
        folder = Path(name)
        frames = int(options.gigabytes * 1e9 / FRAME_BYTES)
        source = folder / "archive"
        write_archive(source, frames, options.files)
        starting = start_ray()
        taken = compare(
            {
                "this platform (Ray Data)": convert_here,
                "xarray + dask threads, zarrs": lambda a, b: convert_with_dask(
                    a, b, "zarrs.ZarrsCodecPipeline"
                ),
                "xarray + dask threads, zarr-python": lambda a, b: convert_with_dask(
                    a, b, "zarr.core.codec_pipeline.BatchedCodecPipeline"
                ),
                "limit: decode + encode, one process": decode_and_encode,
                "limit: decode + encode + write, one process": decode_encode_write,
                "limit: decode + encode + write, a process a core": limit_on_all_cores,
                "limit: raw write": raw_write,
                "limit: memory copy": memory_copy,
            },
            source,
            options.repeats,
        )
        ray.shutdown()
        megabytes = frames * FRAME_BYTES / 1e6
        print(
            f"\nConversion of {megabytes:.0f} MB ({frames} frames of {HEIGHT} x {WIDTH} float32 in "
            f"{options.files} NetCDF file(s)) on {os.cpu_count()} cores; starting Ray took "
            f"{starting:.1f} s and is not counted.\n"
        )
        print(
            "| | MB/s (median) | seconds (least to most) | processor seconds (median) | "
            "seconds, first run |"
        )
        print("|---|---|---|---|---|")
        for label, runs in taken.items():
            seconds, used = zip(*runs[1:], strict=True)
            print(
                f"| {label} | {megabytes / statistics.median(seconds):.0f} | "
                f"{min(seconds):.2f} to {max(seconds):.2f} | {statistics.median(used):.2f} | "
                f"{runs[0][0]:.2f} |"
            )
        if not options.larger:
            return
        shutil.rmtree(source)
        print("\n| archive | peak of one worker | above an idle worker |\n|---|---|---|")
        for scale in (1.0, options.larger):
            size = options.gigabytes * scale
            empty, peak = measure_memory(folder, size, max(1, round(options.files * scale)))
            print(f"| {size:g} GB | {peak / 1e6:.0f} MB | {(peak - empty) / 1e6:.0f} MB |")


if __name__ == "__main__":
    main()
