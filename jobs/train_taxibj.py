"""Train GMG-m on TaxiBJ (or BikeNYC) inflow and outflow: 4 half-hourly frames in, 4 out.

    python jobs/reprocess.py convert --archive taxibj --source FOLDER --store STORE
    python jobs/train_taxibj.py --store STORE --run RUN --workers 2
    python jobs/evaluate.py --checkpoint RUN --store STORE --report REPORT

The defaults are jobs/configs/taxibj.yaml. The way through the code is described in
jobs/train_weatherbench.py.
"""

from jobs.command_line import main_guard
from jobs.training.entry import train_from


def main() -> None:
    """Train; the defaults are those of `jobs/configs/taxibj.yaml`."""
    train_from("taxibj.yaml", description=__doc__)


if __name__ == "__main__":
    main_guard(main)
