"""Skill on real data: several models at one budget, several seeds, baselines beside.

    python jobs/study.py --study era5_t2m --source era5-2mt-2019-03-uk.grib --folder build/era5
    python jobs/study.py --study mine.yaml --source FOLDER --folder build/mine --seeds [0,1,2]

Converts the archive, trains every system of the study for the same steps, scores each on the test
period, and writes FOLDER/study.md with the tables and FOLDER/study.json with every number. Each
step is a command that is printed; what is done already is not done again, so the same command
resumes after a stop, and more seeds or epochs only add to it. Studies are YAML files in
jobs/studies. The way through the code: jobs/studies/definition.py, jobs/steps.py and
jobs/studies/tables.py.
"""

from __future__ import annotations

from pathlib import Path

from jobs.command_line import main_guard, parser_class
from jobs.steps import job, step


def study(
    study: str,
    source: str,
    folder: str,
    systems: list[str] | None = None,
    seeds: list[int] | None = None,
    epochs: int | None = None,
    workers: int = 2,
) -> None:
    """Convert, train, score, tabulate.

    Args:
        study: name of a study in jobs/studies, or a YAML file.
        source: URI of the archive.
        folder: local folder for store, runs, reports and tables.
        systems: those to compare; by default all of the study.
        seeds: of the first weights and of the order of the windows; by default [0].
        epochs: passes over the train windows, in place of the study's.
        workers: training processes.
    """
    import json
    import shlex

    import yaml

    from jobs.command_line import finite
    from jobs.studies.definition import flags, folder_name, load
    from jobs.studies.tables import as_dict, is_scored, read, tables

    plan = load(study)
    names, place = plan.chosen(systems), Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    store = str(place / "store.zarr")

    step(f"{plan.title}: archive -> store")
    conversion = ["convert", "--archive", plan.archive, "--source", source, "--store", store]
    if plan.splits:
        splits = place / "splits.yaml"
        splits.write_text(yaml.safe_dump(dict(plan.splits)))
        conversion += ["--splits", str(splits)]
    job("reprocess.py", *conversion, *flags(plan.convert))

    trained = []
    for seed in seeds or [0]:
        for system in names:
            step(f"{system}, seed {seed}")
            run_uri, report = (
                str(place / kind / f"{folder_name(system)}-{seed}") for kind in ("runs", "reports")
            )
            job(
                plan.job,
                *("--store", store, "--run", run_uri, "--workers", str(workers)),
                *plan.training_flags(system, seed, epochs),
            )
            if not is_scored(run_uri, report):
                job(
                    "evaluate.py",
                    *("--checkpoint", run_uri, "--store", store, "--report", report),
                    *flags(plan.evaluate),
                )
            trained.append(read(system, seed, run_uri, report))
            (place / "study.md").write_text("\n".join(tables(plan, trained)) + "\n")
            (place / "study.json").write_text(json.dumps(finite(as_dict(plan, trained)), indent=1))

    step("tables")
    print((place / "study.md").read_text())
    print(f"tables: {shlex.quote(str(place / 'study.md'))}")


def main() -> None:
    """Parse and study."""
    parser = parser_class()(description=__doc__)
    parser.add_function_arguments(study)
    study(**vars(parser.parse_args()))


if __name__ == "__main__":
    main_guard(main)
