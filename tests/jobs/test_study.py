"""Studies: what comes with the project can be trained, and a study ends in tables of its scores."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
import yaml

from gmg_model import create_model
from jobs.studies.definition import known, load
from jobs.studies.tables import is_scored
from jobs.training.entry import parse
from jobs.training.run.run_folder import read_history
from pipelines.errors import UsageError
from tests.support.archives.archives_made_here import write_traffic
from tests.support.processes import shared_ray
from tests.support.processes.training_runs import job

DEFAULTS = {
    "train_weatherbench.py": "weatherbench.yaml",
    "train_taxibj.py": "taxibj.yaml",
    "train_moving_mnist.py": "moving_mnist.yaml",
    "train_shanghai2020.py": "shanghai2020.yaml",
}


@pytest.mark.parametrize("name", known())
def test_every_system_of_every_study_is_a_model_that_can_be_trained(name: str):
    study = load(name)
    sizes = set()
    for system in study.systems:
        arguments = ["--store", "s", "--run", "r", *study.training_flags(system, 3, epochs=5)]
        options = parse(DEFAULTS[study.job], None, arguments)
        assert (options.training.seed, options.training.epochs) == (3, 5)
        with torch.device("meta"):
            create_model(options.model.name, in_shape=(1, 64, 64), **options.model.overrides())
        sizes.add((options.model.hidden, options.training.global_batch, options.data.horizon))
    assert len(sizes) == 1, "systems of one study are trained alike"


def test_unknown_studies_and_systems_are_refused_with_the_nearest_name(tmp_path: Path):
    with pytest.raises(UsageError, match="era5_t2m"):
        load("era5_t2")
    with pytest.raises(UsageError, match="convlstm"):
        load("bikenyc").chosen(["convlst"])
    own = tmp_path / "own.yaml"
    own.write_text("title: no systems\n")
    with pytest.raises(UsageError, match="cannot be read"):
        load(str(own))


@pytest.mark.usefixtures("ray_cluster")
def test_a_study_trains_scores_and_tabulates_and_knows_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RAY_ADDRESS", shared_ray.address())
    write_traffic(tmp_path / "archive")
    own = tmp_path / "mine.yaml"
    own.write_text(
        yaml.safe_dump(
            {
                "title": "Made traffic",
                "archive": "taxibj",
                "job": "train_taxibj.py",
                "train": {
                    "model.hidden": [8, 8],
                    "model.filter_size": 3,
                    "training.epochs": 1,
                    "training.global_batch": 40,
                },
                "systems": {"plain": {"model.name": "convlstm"}},
                "evaluate": {"max_windows": 20},
            }
        )
    )
    command = ("study.py", "--study", str(own), "--source", str(tmp_path / "archive"))
    command += ("--folder", str(tmp_path / "study"), "--workers", "1")
    began = time.monotonic()
    first = job(*command)
    assert first.returncode == 0, first.stderr
    lines = (tmp_path / "study" / "study.md").read_text().splitlines()
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in lines if "|" in line}
    assert {"plain", "persistence", "climatology"} <= set(rows)
    (entry,) = json.loads((tmp_path / "study" / "study.json").read_text())["trained"]
    overall = entry["variables"]["flow"]["protocols"]["strict"]["model"]["overall"]["rmse"]
    assert f"{overall:.3g}" in rows["plain"]
    history = read_history(str(tmp_path / "study/runs/plain-0"))
    spent = sum(step["processor_seconds"] for step in history)
    assert 0 < spent < time.monotonic() - began
    assert entry["device"] == "cpu"
    assert entry["minutes"] == pytest.approx(spent / 60, abs=0.01)

    # What the same command would skip.
    assert is_scored(str(tmp_path / "study/runs/plain-0"), str(tmp_path / "study/reports/plain-0"))
    assert not is_scored(str(tmp_path / "study/runs/plain-0"), str(tmp_path / "nothing"))

    # A run of an earlier version is named, not tabulated without its cost.
    for file in (tmp_path / "study/runs/plain-0/history").iterdir():
        steps = [json.loads(line) for line in file.read_text().splitlines()]
        rest = [{k: v for k, v in step.items() if k != "processor_seconds"} for step in steps]
        file.write_text("".join(json.dumps(step) + "\n" for step in rest))
    again = job(*command)
    assert again.returncode == 4
    assert "did not note what its steps cost" in again.stderr
