"""The whole main street on a made archive: make it, reprocess, train on two workers, evaluate.

    make demo            (or: python jobs/demo.py --folder build/demo)

Every step is the command that a user would type, printed before it runs. The archive is synthetic
and says so; it has the files and the layout of WeatherBench's 2 m temperature, so the same commands
work on the real one. A second run takes up where the first stopped.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from jobs.command_line import parser_class, run
from pipelines.errors import PlatformError

JOBS = Path(__file__).resolve().parent
YEARS = (2014, 2015, 2016, 2017)
"""Two train years, so that the climatology may depend on the season; validation; test."""
SPLITS = """train: ["2014", "2015"]
validation: ["2016", "2016"]
test: ["2017", "2017"]
"""
TRAINING = (
    *("--model.hidden", "[32,32,32,32]", "--model.residual", "true", "--model.circular", "true"),
    *("--data.input_frames", "6", "--data.horizon", "6", "--data.every", "12"),
    *("--training.epochs", "2", "--training.learning_rate", "2e-3"),
    *("--validation.windows", "64"),
)
"""A small GMG-s, every twelfth window: minutes instead of days; real settings are in configs/."""


def main() -> None:
    """Run the four commands, then say where the page is."""
    parser = parser_class()(description=__doc__)
    parser.add_argument("--folder", default="build/demo", help="where everything is written")
    folder = Path(parser.parse_args().folder)
    archive, store, report = folder / "archive", folder / "store.zarr", folder / "report.html"

    step("1/4  a synthetic archive in WeatherBench's layout")
    from jobs.command_line import progress
    from pipelines.archives.synthetic import write_weatherbench

    with progress("writing", "years") as report_progress:
        write_weatherbench(str(archive), years=YEARS, seed=0, progress=report_progress)

    step("2/4  raw archive -> Zarr store")
    splits = folder / "splits.yaml"
    splits.write_text(
        'train: ["2014", "2015"]\nvalidation: ["2016", "2016"]\ntest: ["2017", "2017"]\n'
    )
    job(
        "reprocess.py",
        *("convert", "--archive", "weatherbench", "--source", str(archive)),
        *("--store", str(store), "--splits", str(splits)),
    )

    step("3/4  two-worker DDP training")
    run_uri = str(folder / "run")
    job(
        "train_weatherbench.py",
        *("--store", str(store), "--run", run_uri, "--workers", "2", *TRAINING),
    )

    step("4/4  scores against persistence and climatology")
    job(
        "evaluate.py",
        *("--checkpoint", run_uri, "--store", str(store), "--report", str(report)),
        *("--max_windows", "400"),
    )
    print(f"\nThe page: {report.resolve()}")


def step(title: str) -> None:
    """Announce a step."""
    print(f"\n== {title}", flush=True)


def job(script: str, *arguments: str) -> None:
    """Run one job as a user would, in a process of its own.

    Raises
    ------
    PlatformError
        It ended with another code than 0.
    """
    command = [sys.executable, str(JOBS / script), *arguments]
    print(f"$ python jobs/{script} {shlex.join(arguments)}", flush=True)
    code = subprocess.run(command, check=False).returncode
    if code:
        raise PlatformError(
            f"jobs/{script} ended with code {code}", remedy="see its message above, then run again"
        )


if __name__ == "__main__":
    run(main)
