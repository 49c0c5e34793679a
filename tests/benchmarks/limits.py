"""What the machine allows at most when an archive becomes a store: the work with nothing around it.

Run as a program it is one process of the limit on all cores: arguments source, share, shares; it
says `ready`, and for each line on its standard input, a folder, it writes its share there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from made_archive import HEIGHT, WIDTH

CHUNK, SHARD = 64, 4096


def each_shard(source: Path, store: Path, *, write: bool, part: int = 0, of: int = 1) -> None:
    """Read and compress every shard, or every one of a share, and write it if asked."""
    import netCDF4

    from pipelines.stores.shards import ShardEncoder

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


def decode_and_encode(source: Path, store: Path) -> None:
    """The limit of one process: read and compress every shard, write nothing."""
    each_shard(source, store, write=False)


def decode_encode_write(source: Path, store: Path) -> None:
    """The limit of one process with the write."""
    each_shard(source, store, write=True)


class AllCores:
    """Decode, encode and write with one process a core, started beforehand."""

    def __init__(self, source: Path):
        cores = os.cpu_count() or 1
        self._workers = [
            subprocess.Popen(
                [sys.executable, __file__, str(source), str(part), str(cores)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for part in range(cores)
        ]
        self._wait()

    def __call__(self, source: Path, store: Path) -> None:
        """Write all shards to `store`."""
        for worker in self._workers:
            assert worker.stdin is not None
            worker.stdin.write(f"{store}\n")
            worker.stdin.flush()
        self._wait()

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.communicate()

    def _wait(self) -> None:
        for worker in self._workers:
            assert worker.stdout is not None
            if not worker.stdout.readline():
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


def main() -> None:
    """One process of the limit on all cores."""
    import netCDF4  # noqa: F401

    from pipelines.stores.shards import ShardEncoder

    ShardEncoder((HEIGHT, WIDTH), CHUNK, SHARD)  # imports what encoding needs
    source, part, of = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    print("ready", flush=True)
    for line in sys.stdin:
        each_shard(source, Path(line.strip()), write=True, part=part, of=of)
        print("done", flush=True)


if __name__ == "__main__":
    main()
