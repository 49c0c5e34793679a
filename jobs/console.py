"""The command `gmg`: every job under one name, after `pip install`.

    gmg reprocess convert --archive era5 --source FOLDER --store t2m.zarr
    gmg train weatherbench --store t2m.zarr --run runs/first

`gmg JOB --help` lists the options of a job. A job takes the same options as `python jobs/JOB.py`.
"""

from __future__ import annotations

import importlib
import sys

from jobs.command_line import choose, main_guard, set_program

JOBS = {
    "reprocess": "convert an archive to a Zarr store, and look at the store",
    "train": "train a model",
    "evaluate": "score a model beside its baselines",
    "predict": "forecast",
    "compare": "compare evaluations",
    "export": "write a model as a folder that needs no Ray and no Zarr",
    "study": "compare models on real data",
    "demo": "run the whole workflow on a synthetic archive",
}
"""job -> what it does"""
DATA_SETS = {
    "weatherbench": "2 m temperature, or any other gridded store",
    "taxibj": "inflow and outflow of a city's cells",
    "radar": "a folder of radar composites, from the files to the scores",
    "cikm2017": "radar echoes of CIKM2017",
    "shanghai2020": "radar echoes of Shanghai2020",
    "moving_mnist": "moving digits",
}
"""NAME of `gmg train NAME` -> what it trains on"""


def run_job() -> int | None:
    """Run the job that the command line names, and return its exit code."""
    set_program("gmg")
    job, rest = choose("JOB", JOBS, sys.argv[1:], __doc__)
    name, module = f"gmg {job}", job
    if job == "train":
        set_program(name)
        about = "Train a model with the defaults of a data set.\n\n    gmg train NAME --help"
        data_set, rest = choose("NAME", DATA_SETS, rest, about)
        name, module = f"{name} {data_set}", f"train_{data_set}"
    set_program(name)
    sys.argv = [sys.argv[0], *rest]
    return importlib.import_module(f"jobs.{module}").main()


def main() -> None:
    """Run `gmg`, and end the process with the job's exit code."""
    main_guard(run_job)


if __name__ == "__main__":
    main()
