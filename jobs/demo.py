"""The whole workflow on a synthetic archive: write it, convert it, train on two workers, evaluate.

    make demo            (or: python jobs/demo.py --folder build/demo)

Every step is the command that a user would type, and is printed before it runs. The archive has the
files and the layout of WeatherBench's 2 m temperature, so the same commands work on the real one;
its store and its page say that the data are synthetic. During the training one worker is killed, as
a spot machine would be, and the run resumes from its checkpoint. The same command again resumes
where it stopped.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jobs.command_line import main_guard, parse_options, print_json, progress
from jobs.steps import job, kill_a_worker, step

YEARS = (2014, 2015, 2016, 2017)
"""Two train years, so that the climatology can depend on the season; one validation year; one test
year."""
SPLITS = """train: ["2014", "2015"]
validation: ["2016", "2016"]
test: ["2017", "2017"]
"""
TRAINING = (
    *("--workers", "2", "--use_gpu", "false"),
    *("--model.hidden", "[32,32]", "--model.patch_size", "4"),
    *("--model.residual", "true", "--model.circular", "true"),
    *("--data.input_frames", "6", "--data.horizon", "6", "--data.every", "6"),
    *("--training.epochs", "2", "--training.learning_rate", "2e-3"),
    *("--checkpoints.every_steps", "60", "--validation.windows", "128"),
)
"""A small GMG-s on every sixth window takes minutes. Real settings are in jobs/configs."""


@dataclass(frozen=True)
class DemoOptions:
    """Where the demo writes."""

    folder: str = "build/demo"
    """local folder for the archive, the store, the run and the report"""


def demo(options: DemoOptions, json: bool = False) -> None:
    """Run the four steps, and print where the page is."""
    folder = Path(options.folder)
    archive, store, run = folder / "archive", str(folder / "store.zarr"), str(folder / "run")
    splits, report = folder / "splits.yaml", folder / "report.html"

    step("1/4  a synthetic archive in WeatherBench's layout")
    write_archive(archive)
    splits.write_text(SPLITS)

    step("2/4  raw archive -> Zarr store")
    source = ("--archive", "weatherbench", "--source", str(archive))
    job("reprocess.py", "convert", *source, "--store", store, "--splits", str(splits))

    step("3/4  two-worker DDP training, one worker killed during the run")
    train = ("train_weatherbench.py", "--store", store, "--run", run, *TRAINING)
    job(*train, meanwhile=lambda training: kill_a_worker(training, run))

    step("4/4  scores against persistence and climatology")
    given = ("--checkpoint", run, "--store", store, "--report", str(report))
    job("evaluate.py", *given, "--max_windows", "400")
    print(f"\nThe page: {report.resolve()}")
    if json:
        print_json({"store": store, "run": run, "page": str(report)})


def write_archive(archive: Path) -> None:
    """Write one file per year; files of an earlier demo are kept."""
    from pipelines.archives.synthetic import write_weatherbench

    with progress("writing", "years") as report:
        for done, year in enumerate(YEARS, start=1):
            if not list(archive.glob(f"*/*_{year}_*.nc")):
                write_weatherbench(archive, [year])
            report(done, len(YEARS))


def main() -> None:
    """Parse the options and run the demo."""
    demo(*parse_options(DemoOptions, __doc__))


if __name__ == "__main__":
    main_guard(main)
