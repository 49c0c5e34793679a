"""Run every benchmark and write the page of figures: ``make bench``.

Each benchmark is a program of its own that prints Markdown tables; this one runs them one after the
other, so that none disturbs another, and says on which machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent
BENCHMARKS = {
    "Conversion": ("conversion.py", "--gigabytes", "1"),
    "Streaming": ("streaming.py",),
    "Training step": ("training.py",),
    "Models": ("models.py",),
}


def main() -> None:
    """Run, then write the page at once."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="Markdown page to write")
    output = parser.parse_args().output
    page = [
        "# Performance figures",
        "",
        f"Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}; {machine()}. Medians of "
        "alternating runs on one machine; quote ratios rather than single figures, because shared "
        "machines drift.",
    ]
    for title, command in BENCHMARKS.items():
        print(f"== {title}", file=sys.stderr, flush=True)
        done = subprocess.run(
            [sys.executable, "-W", "ignore", str(HERE / command[0]), *command[1:]],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        page += ["", f"## {title}", "", f"`python tests/benchmarks/{' '.join(command)}`", ""]
        page += [done.stdout.strip()]
    output.write_text("\n".join(page) + "\n")
    print(f"written: {output}", file=sys.stderr)


def machine() -> str:
    """Processor, cores, memory and the versions that decide the figures."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "ray", "zarr"))
    processor = names[0] if names else platform.processor()
    return f"{processor}, {os.cpu_count()} cores, {memory:.0f} GiB; {versions}"


if __name__ == "__main__":
    main()
