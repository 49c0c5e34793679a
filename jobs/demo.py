"""The whole main job on a made archive: make it, reprocess, train on two workers, evaluate.

    make demo            (or: python jobs/demo.py --folder build/demo)

Every step is the command that a user would type, printed before it runs. The archive is synthetic
and says so; it has the files and the layout of WeatherBench's 2 m temperature, so the same commands
work on the real one. In the middle of the training one worker is killed, as a spot instance would
be, and the run goes on from its checkpoint. A second run takes up where the first stopped.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from jobs.command_line import main_guard, parser_class, progress
from jobs.steps import job, step

YEARS = (2014, 2015, 2016, 2017)
"""Two train years, so that the climatology may depend on the season; validation; test."""
SPLITS = """train: ["2014", "2015"]
validation: ["2016", "2016"]
test: ["2017", "2017"]
"""
TRAINING = (
    *("--model.hidden", "[32,32]", "--model.patch_size", "4"),
    *("--model.residual", "true", "--model.circular", "true"),
    *("--data.input_frames", "6", "--data.horizon", "6", "--data.every", "6"),
    *("--training.epochs", "2", "--training.learning_rate", "2e-3"),
    *("--checkpoints.every_steps", "60", "--validation.windows", "128"),
)
"""A small GMG-s on every sixth window: minutes instead of days; real settings are in configs/."""


def main() -> None:
    """Run the four commands, then say where the page is."""
    parser = parser_class()(description=__doc__)
    parser.add_argument("--folder", default="build/demo", help="where everything is written")
    folder = Path(parser.parse_args().folder)
    archive, store, report = folder / "archive", folder / "store.zarr", folder / "report.html"

    step("1/4  a synthetic archive in WeatherBench's layout")
    write_archive(archive)

    step("2/4  raw archive -> Zarr store")
    splits = folder / "splits.yaml"
    splits.write_text(SPLITS)
    job(
        "reprocess.py",
        *("convert", "--archive", "weatherbench", "--source", str(archive)),
        *("--store", str(store), "--splits", str(splits)),
    )

    step("3/4  two-worker DDP training, one worker killed on the way")
    run_uri = str(folder / "run")
    job(
        "train_weatherbench.py",
        *("--store", str(store), "--run", run_uri, "--workers", "2", "--use_gpu", "false"),
        *TRAINING,
        meanwhile=lambda training: kill_a_worker(training, run_uri),
    )

    step("4/4  scores against persistence and climatology")
    job(
        "evaluate.py",
        *("--checkpoint", run_uri, "--store", str(store), "--report", str(report)),
        *("--max_windows", "400"),
    )
    print(f"\nThe page: {report.resolve()}")


def write_archive(archive: Path) -> None:
    """One file a year; a file that is there from an earlier run is kept."""
    from pipelines.archives.synthetic import write_weatherbench

    with progress("writing", "years") as report:
        for done, year in enumerate(YEARS, start=1):
            if not list(archive.glob(f"*/*_{year}_*.nc")):
                write_weatherbench(archive, [year])
            report(done, len(YEARS))


def kill_a_worker(training: subprocess.Popen[bytes], run_uri: str) -> None:
    """``kill -9`` one training worker once the run's first checkpoint is there."""
    import psutil

    from jobs.training.run.checkpoints import list_checkpoints

    if list_checkpoints(run_uri):
        return  # a run that is resumed, or done, has shown it already
    while training.poll() is None and not list_checkpoints(run_uri):
        time.sleep(0.5)
    if training.poll() is not None:
        return
    for process in psutil.Process(training.pid).children(recursive=True):
        if process.is_running() and "RayTrainWorker" in process.name():
            step_done = list_checkpoints(run_uri)[-1].step
            print(
                f"   kill -9 {process.pid}: a training worker dies after the checkpoint of step "
                f"{step_done}; Ray Train starts a new group, which resumes from there",
                flush=True,
            )
            process.kill()
            return


if __name__ == "__main__":
    main_guard(main)
