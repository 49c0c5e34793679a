"""Run every benchmark and write the page of figures: `make bench`.

Each benchmark is a program of its own that prints Markdown tables; this one runs them one after the
other, so that none disturbs another, and says on which machine. A program that fails leaves the
reason on the page instead of figures, and the others still run. With `--only` the other sections
of the page stay as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
LIMIT_SECONDS = 900


@dataclass(frozen=True)
class Benchmark:
    """One program."""

    title: str
    command: tuple[str, ...]
    quick: tuple[str, ...]
    """Options of a run that only shows that it works."""
    writes_json: bool = True


BENCHMARKS = {
    "conversion": Benchmark(
        "Conversion",
        ("conversion.py", "--gigabytes", "1"),
        ("--gigabytes", "0.05", "--repeats", "1"),
    ),
    "storage": Benchmark(
        "Object storage", ("storage.py",), ("--gigabytes", "0.05", "--repeats", "1")
    ),
    "streaming": Benchmark(
        "Streaming",
        ("streaming.py",),
        ("--years", "1", "--epochs", "1", "--repeats", "1", "--peer-seconds", "1"),
    ),
    "memory": Benchmark("Memory", ("memory.py",), ("--sizes", "0.1", "1")),
    "training": Benchmark("Training step", ("training.py",), ("--steps", "1"), writes_json=False),
    "ray_train": Benchmark(
        "Training on two workers",
        ("ray_train.py",),
        ("--rounds", "2", "--steps", "1", "--batch", "1", "--hidden", "16"),
    ),
    "submit": Benchmark("Submit to first step", ("submit.py",), ("--repeats", "1")),
    "scaling": Benchmark("Scaling", ("scaling.py",), ("--rounds", "1", "--hidden", "64")),
    "forecasts": Benchmark(
        "Forecasts and scores",
        ("forecasts.py",),
        ("--hidden", "16", "--windows", "4", "--batch", "2", "--repeats", "1"),
    ),
    "models": Benchmark("Models", ("models.py",), ("--models", "convlstm"), writes_json=False),
}


def main() -> None:
    """Run, then write the page at once."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="Markdown page to write")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="small sizes: to see that all run")
    options = parser.parse_args()
    page = Page(options.output)
    failed = []
    for number, name in enumerate(options.only, start=1):
        benchmark = BENCHMARKS[name]
        command = [*benchmark.command, *(benchmark.quick if options.quick else ())]
        print(f"== {number} of {len(options.only)}: {name}", file=sys.stderr, flush=True)
        began = time.monotonic()
        text, figures, done = run(command, benchmark.writes_json)
        print(f"   {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        if not done:
            failed.append(name)
        page.set(name, benchmark.title, f"`python tests/benchmarks/{' '.join(command)}`", text)
        page.figures[name] = figures
        page.write()
    print(f"written: {options.output}", file=sys.stderr)
    if failed:
        print(f"no figures of: {', '.join(failed)}", file=sys.stderr)
        sys.exit(1)


def run(command: list[str], writes_json: bool) -> tuple[str, dict[str, Any] | None, bool]:
    """What the program printed, its figures, and whether it ended well."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "figures.json"
        asked = ["--json", str(file)] if writes_json else []
        try:
            done = subprocess.run(
                [sys.executable, "-W", "ignore", str(HERE / command[0]), *command[1:], *asked],
                stdout=subprocess.PIPE,
                text=True,
                timeout=LIMIT_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return f"No figures: it took longer than {LIMIT_SECONDS} s.", None, False
        if done.returncode:
            return f"No figures: it ended with code {done.returncode}.", None, False
        figures = json.loads(file.read_text()) if file.exists() else None
    return done.stdout.strip(), figures, True


class Page:
    """The page and, beside it, the figures as JSON; sections that are not set again stay."""

    def __init__(self, path: Path):
        self._path, self._json = path, path.with_suffix(".json")
        before = path.read_text() if path.exists() else ""
        self._sections = {
            match[1]: match[0].strip()
            for match in re.finditer(r"(?ms)^## ([^\n]+)\n.*?(?=^## |\Z)", before)
        }
        self.figures: dict[str, Any] = {}
        if self._json.exists():
            self.figures = json.loads(self._json.read_text())["benchmarks"]

    def set(self, name: str, title: str, command: str, text: str) -> None:
        """Replace one section."""
        when = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
        self._sections[title] = f"## {title}\n\n{command}, {when}\n\n{text}"

    def write(self) -> None:
        """Both files."""
        titles = [benchmark.title for benchmark in BENCHMARKS.values()]
        sections = [self._sections[title] for title in titles if title in self._sections]
        head = (
            f"# Performance figures\n\n`make bench` writes this page. Machine: {machine()}.\n\n"
            "Figures are medians of runs in alternating order on one machine. Quote ratios rather "
            "than single figures, because the speed of a shared machine drifts. Rows that begin "
            'with "limit" measure a part of the work alone, on the same bytes and in the same run. '
            "The output of the other libraries is compared with the source before their time "
            'counts. "Processor seconds" are CPU time, and "load" is the load average of the '
            "machine when the figures were taken."
        )
        self._path.write_text("\n\n".join([head, *sections]) + "\n")
        content = {"machine": machine(), "benchmarks": self.figures}
        self._json.write_text(json.dumps(content, indent=2) + "\n")


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
