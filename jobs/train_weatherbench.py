"""Train GMG-s on WeatherBench 2 m temperature, or any other gridded store: 12 frames in, 12 out.

    python jobs/reprocess.py convert --archive weatherbench --source FOLDER --store STORE
    python jobs/train_weatherbench.py --store STORE --run RUN --workers 2
    python jobs/evaluate.py --checkpoint RUN --store STORE --report REPORT

The same command resumes a run that was stopped. The way through the code: the options
(jobs/training/options.py, jobs/configs/weatherbench.yaml) become a plan of windows
(jobs/training/plan.py); Ray Train starts the workers (jobs/training/driver/job.py), each of which
steps through its share of every global batch (jobs/training/worker/loop.py) with the model of
gmg_model/models/gmg.py.
"""

from jobs.command_line import main_guard
from jobs.training.options import parse


def main() -> None:
    """Parse, train, say how it ended."""
    options = parse(default="weatherbench.yaml", description=__doc__)

    from jobs.training.driver.job import train

    print(train(options).summary())


if __name__ == "__main__":
    main_guard(main)
