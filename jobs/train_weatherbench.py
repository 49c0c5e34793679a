"""Train GMG-s on WeatherBench 2 m temperature, or any other gridded store: 12 frames in, 12 out.

    python jobs/reprocess.py convert --archive weatherbench --source FOLDER --store STORE
    python jobs/train_weatherbench.py --store STORE --run RUN --workers 2
    python jobs/evaluate.py --checkpoint RUN --store STORE --report REPORT

The same command resumes a run that was stopped. The way through the code:

    options    jobs/training/options.py       defaults: jobs/configs/weatherbench.yaml
    plan       jobs/training/plan.py          the windows, their order and normalisation
    driver     jobs/training/driver/job.py    checks everything, then starts Ray Train's workers
    worker     jobs/training/worker/loop.py   trains on its share of every global batch
    model      gmg_model/models/gmg.py        names the module of each equation of the paper
"""

from jobs.command_line import main_guard
from jobs.training.entry import train_from


def main() -> None:
    """Train; the defaults are those of `jobs/configs/weatherbench.yaml`."""
    train_from("weatherbench.yaml", description=__doc__)


if __name__ == "__main__":
    main_guard(main)
