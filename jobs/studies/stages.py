"""The stages of a study. Each is a job of this project, run in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from jobs.command_line import finite
from jobs.steps import job
from jobs.studies.definition import Study, flags, folder_name
from jobs.studies.tables import Trained, as_dict, is_scored, read, tables


@dataclass(frozen=True)
class Stages:
    """The stages of one study in one folder."""

    study: Study
    folder: Path
    """folder of the store, the runs, the reports and the tables"""
    workers: int
    """number of training processes"""

    @property
    def store(self) -> str:
        """Path of the converted archive."""
        return str(self.folder / "store.zarr")

    @property
    def tables(self) -> Path:
        """Path of the tables in Markdown."""
        return self.folder / "study.md"

    def convert(self, source: str) -> None:
        """Convert the archive at `source` to the store."""
        self.folder.mkdir(parents=True, exist_ok=True)
        places = ["--archive", self.study.archive, "--source", source, "--store", self.store]
        if self.study.splits:
            splits = self.folder / "splits.yaml"
            splits.write_text(yaml.safe_dump(dict(self.study.splits)))
            places += ["--splits", str(splits)]
        job("reprocess.py", "convert", *places, *flags(self.study.convert))

    def train_and_score(self, system: str, seed: int, epochs: int | None) -> Trained:
        """Train one system under one seed, and score its best checkpoint.

        Parameters
        ----------
        epochs
            Passes over the train windows; None for the number that the study sets.
        """
        name = f"{folder_name(system)}-{seed}"
        run, report = str(self.folder / "runs" / name), str(self.folder / "reports" / name)
        job(
            self.study.job,
            *("--store", self.store, "--run", run, "--workers", str(self.workers)),
            *self.study.training_flags(system, seed, epochs),
        )
        if not is_scored(run, report):
            job(
                "evaluate.py",
                *("--checkpoint", run, "--store", self.store, "--report", report),
                *flags(self.study.evaluate),
            )
        return read(system, seed, run, report)

    def write_tables(self, trained: Sequence[Trained]) -> None:
        """Write the tables of all systems trained so far, as Markdown and as JSON."""
        self.tables.write_text("\n".join(tables(self.study, trained)) + "\n")
        numbers = json.dumps(self.numbers(trained), indent=1)
        (self.folder / "study.json").write_text(numbers)

    def numbers(self, trained: Sequence[Trained]) -> dict[str, Any]:
        """Return every number of the tables as values that JSON can hold."""
        return finite(as_dict(self.study, trained))
