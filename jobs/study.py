"""Compare models on real data: the same budget for each, several seeds, baselines beside them.

    python jobs/study.py --study era5_t2m --source era5-2mt-2019-03-uk.grib --folder build/era5
    python jobs/study.py --study mine.yaml --source FOLDER --folder build/mine --seeds [0,1,2]

Converts the archive, trains every system of the study for the same number of steps, and scores each
on the test period. Writes FOLDER/study.md with the tables and FOLDER/study.json with every number.
Each step is a command, which is printed before it runs. What is done already is skipped, so the
same command resumes after a stop, and with more seeds or epochs it only adds what is missing.
Studies are YAML files in jobs/studies. The way through the code, in jobs/studies: what a study is
(definition.py), the jobs that it runs (stages.py), and its tables (tables.py).
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from jobs.command_line import main_guard, parse_options, print_json
from jobs.steps import step


@dataclass(frozen=True)
class StudyOptions:
    """What to study, on which data, and where everything is written."""

    study: str
    """name of a study in jobs/studies, or a YAML file"""
    source: str
    """URI of the archive"""
    folder: str
    """local folder for the store, the runs, the reports and the tables"""
    systems: list[str] | None = None
    """systems to compare; by default all of the study"""
    seeds: list[int] | None = None
    """seeds of the first weights and of the order of the windows; by default [0]"""
    epochs: int | None = None
    """passes over the train windows, in place of the study's"""
    workers: int = 2
    """training processes"""


def study(options: StudyOptions, json: bool = False) -> None:
    """Convert, train, score, and write the tables again after each system."""
    from jobs.studies.definition import load
    from jobs.studies.stages import Stages

    plan = load(options.study)
    systems = plan.chosen(options.systems)
    stages = Stages(plan, Path(options.folder), options.workers)

    step(f"{plan.title}: archive -> store")
    stages.convert(options.source)
    trained = []
    for seed in options.seeds or [0]:
        for system in systems:
            step(f"{system}, seed {seed}")
            trained.append(stages.train_and_score(system, seed, options.epochs))
            stages.write_tables(trained)

    step("tables")
    print(stages.tables.read_text())
    print(f"tables: {shlex.quote(str(stages.tables))}")
    if json:
        print_json({"tables": str(stages.tables), **stages.numbers(trained)})


def main() -> None:
    """Parse the options and run the study."""
    study(*parse_options(StudyOptions, __doc__))


if __name__ == "__main__":
    main_guard(main)
