"""Train GMG-L on the radar echoes of Shanghai2020: 10 frames of 6 minutes in, 10 of 12 out.

    python jobs/reprocess.py convert --archive shanghai2020 --source FOLDER --store STORE \\
        --regrid 64x64
    python jobs/train_shanghai2020.py --store STORE --run RUN --workers 2
    python jobs/evaluate.py --checkpoint RUN --store STORE --report REPORT

FOLDER holds train and test. Windows are whole clips, because the cadence changes inside them.

The defaults are jobs/configs/shanghai2020.yaml. The way through the code is described in
jobs/train_weatherbench.py.
"""

from jobs.command_line import main_guard
from jobs.training.entry import train_from


def main() -> None:
    """Train; the defaults are those of `jobs/configs/shanghai2020.yaml`."""
    train_from("shanghai2020.yaml", description=__doc__)


if __name__ == "__main__":
    main_guard(main)
