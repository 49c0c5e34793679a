"""Train GMG-L on the radar echoes of CIKM2017: 5 frames of 6 minutes in, 10 out.

    python jobs/reprocess.py convert --archive cikm2017 --source FOLDER --store STORE --regrid 64x64
    python jobs/train_cikm2017.py --store STORE --run RUN --workers 2
    python jobs/evaluate.py --checkpoint RUN --store STORE --report REPORT --split validation

FOLDER holds train.txt and, for the test split, testA.txt and testB.txt. The papers score the tenth
of train.txt that is the store's validation split; the test split is one that nobody chose a
checkpoint by.

The defaults are jobs/configs/cikm2017.yaml; the way through the code stands in
jobs/train_weatherbench.py.
"""

from jobs.command_line import main_guard
from jobs.training.options import parse


def main() -> None:
    """Parse, train, say how it ended."""
    options = parse(default="cikm2017.yaml", description=__doc__)

    from jobs.training.driver.job import train

    print(train(options).summary())


if __name__ == "__main__":
    main_guard(main)
