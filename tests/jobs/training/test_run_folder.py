"""The folder of a run: the same configuration resumes, another one is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from jobs.training.options import (
    CheckpointOptions,
    DataOptions,
    TrackingOptions,
    TrainingOptions,
    TrainOptions,
    ValidationOptions,
)
from jobs.training.run import run_folder, tensorboard
from pipelines.errors import UsageError


@pytest.fixture
def options(tmp_path: Path) -> TrainOptions:
    return TrainOptions(store="store.zarr", run=str(tmp_path / "run"))


def test_the_first_start_writes_the_resolved_options_versions_and_fingerprint(
    options: TrainOptions,
) -> None:
    assert run_folder.check_same(options, "f" * 64) is False
    run_folder.write_record(options, "f" * 64)
    record = json.loads((Path(options.run) / "run.json").read_text())
    assert TrainOptions.from_dict(record["options"]) == options
    assert record["statistics_fingerprint"] == "f" * 64
    assert {"python", "torch", "ray", "zarr"} <= set(record["versions"])


def test_the_same_options_resume_and_leave_the_record_untouched(options: TrainOptions) -> None:
    run_folder.write_record(options, "f")
    before = (Path(options.run) / "run.json").read_bytes()
    assert run_folder.check_same(options, "f") is True
    assert (Path(options.run) / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        {"workers": 2},
        {"use_gpu": "false"},
        {"training": TrainingOptions(epochs=200)},
        {"checkpoints": CheckpointOptions(every_steps=10, keep=5)},
        {"validation": ValidationOptions(every_epochs=2, every_steps=50)},
        {"training": TrainingOptions(patience=3)},
        {"tracking": TrackingOptions(tensorboard=False, mlflow_uri="http://host:5000")},
    ],
)
def test_workers_epochs_and_intervals_may_change(
    options: TrainOptions, change: dict[str, object]
) -> None:
    run_folder.write_record(options, "f")
    assert run_folder.check_same(dataclasses.replace(options, **change), "f") is True


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"store": "other.zarr"}, "store: 'store.zarr' -> 'other.zarr'"),
        ({"data": DataOptions(horizon=6)}, "data.horizon: 12 -> 6"),
        ({"training": TrainingOptions(learning_rate=1e-2)}, "training.learning_rate: 0.0003"),
        ({"training": TrainingOptions(compile=True)}, "training.compile: False -> True"),
        ({"training": TrainingOptions(on_nonfinite="skip")}, "'stop' -> 'skip'"),
        ({"training": TrainingOptions(global_batch=8)}, "training.global_batch: 16 -> 8"),
        ({"validation": ValidationOptions(windows=8)}, "validation.windows: 256 -> 8"),
    ],
)
def test_any_other_change_is_refused_and_listed(
    options: TrainOptions, change: dict[str, object], line: str
) -> None:
    run_folder.write_record(options, "f")
    before = (Path(options.run) / "run.json").read_bytes()
    with pytest.raises(UsageError, match="begun with another configuration") as refused:
        run_folder.check_same(dataclasses.replace(options, **change), "f")
    assert line in str(refused.value)
    assert (Path(options.run) / "run.json").read_bytes() == before


def test_a_store_with_other_statistics_is_refused(options: TrainOptions) -> None:
    run_folder.write_record(options, "a" * 64)
    with pytest.raises(UsageError, match="statistics of the store: aaaaaaaaaaaa -> bbbbbbbbbbbb"):
        run_folder.check_same(options, "b" * 64)


def test_a_folder_that_holds_something_else_is_refused_and_left_alone(
    options: TrainOptions,
) -> None:
    folder = Path(options.run)
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match=r"thesis\.tex"):
        run_folder.check_place(options.run)
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]


def test_a_repeated_stretch_of_history_counts_once(tmp_path: Path) -> None:
    uri = str(tmp_path)
    steps = [{"step": step, "loss": 1.0 / (step + 1)} for step in range(6)]
    run_folder.write_history(uri, steps[:2])
    run_folder.write_history(uri, steps[2:6])
    run_folder.write_history(uri, steps[2:4])  # resumed from step 2, then checkpointed earlier
    assert [record["step"] for record in run_folder.read_history(uri)] == [0, 1, 2, 3]
    run_folder.write_history(uri, steps[4:])
    assert run_folder.read_history(uri) == steps


def test_forgetting_deletes_the_stretches_from_a_step_on(tmp_path: Path) -> None:
    uri = str(tmp_path)
    steps = [{"step": step, "loss": 1.0, "time": 1.8e9} for step in range(9)]
    for first in (0, 3, 6):
        run_folder.write_history(uri, steps[first : first + 3])
        tensorboard.write(uri, steps[first : first + 3])
    run_folder.forget_after(uri, 6)
    assert run_folder.read_history(uri) == steps[:6]
    kept = sorted(path.name for path in (tmp_path / run_folder.EVENTS).iterdir())
    assert kept == [tensorboard.file_name(0), tensorboard.file_name(3)]
    run_folder.forget_after(uri, 0)
    assert run_folder.read_history(uri) == []
