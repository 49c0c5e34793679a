"""Train GMG-m on TaxiBJ (or BikeNYC) inflow and outflow: 4 half-hourly frames in, 4 out.

    python jobs/reprocess.py convert --archive taxibj --source FOLDER --store STORE
    python jobs/train_taxibj.py --store STORE --run RUN --workers 2
    python jobs/evaluate.py --checkpoint RUN --store STORE --report REPORT

The defaults are jobs/configs/taxibj.yaml; the way through the code stands in
jobs/train_weatherbench.py.
"""

from jobs.command_line import main_guard
from jobs.training.options import parse


def main() -> None:
    """Parse, train, say how it ended."""
    options = parse(default="taxibj.yaml", description=__doc__)

    from jobs.training.driver.job import train

    print(train(options).summary())


if __name__ == "__main__":
    main_guard(main)
