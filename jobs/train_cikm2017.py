"""Train GMG-L on the radar echoes of CIKM2017: 5 frames of 6 minutes in, 10 out.

    python jobs/reprocess.py convert --archive cikm2017 --source FOLDER --store STORE --regrid 64x64
    python jobs/train_cikm2017.py --store STORE --run RUN --workers 2
    python jobs/evaluate.py --checkpoint RUN --store STORE --report REPORT --split validation

FOLDER holds train.txt and, for the test split, testA.txt and testB.txt. The papers score a tenth of
train.txt, which is the store's validation split. No checkpoint is chosen by the test split.

The defaults are jobs/configs/cikm2017.yaml. The way through the code is described in
jobs/train_weatherbench.py.
"""

from jobs.command_line import main_guard
from jobs.training.entry import train_from


def main() -> None:
    """Train; the defaults are those of `jobs/configs/cikm2017.yaml`."""
    train_from("cikm2017.yaml", description=__doc__)


if __name__ == "__main__":
    main_guard(main)
