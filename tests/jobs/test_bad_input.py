"""What cannot work is refused: one clear message, the documented exit code, and nothing is changed.

Every test gives a whole command line to a job. Around each, the store and everything that the test
laid out are compared byte by byte, and Ray may not start.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobs import evaluate, train_weatherbench
from jobs.command_line import main_guard
from jobs.export import ExportOptions, export
from jobs.training.options import TrainOptions
from jobs.training.run import checkpoints
from pipelines.storage import lease
from pipelines.stores.store import open_store
from tests.support.processes import shared_ray
from tests.support.processes.training_runs import small_options, write_config, write_untrained_run


@dataclass(frozen=True)
class Refusal:
    """How a command ended."""

    code: int
    message: str


Refuse = Callable[..., Refusal]


@pytest.fixture
def refused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    traffic_store: str,
    tmp_path: Path,
) -> Refuse:
    """Run a job's `main` with a command line; it has to be refused and to leave no trace."""
    import ray

    shared_ray.end()

    def no_compute(*_: object, **__: object) -> None:
        pytest.fail("Ray was started for a command that cannot work")

    def refuse(main: Callable[[], None], *arguments: str) -> Refusal:
        monkeypatch.setattr(ray, "init", no_compute)
        monkeypatch.setattr(
            sys, "argv", [f"{main.__module__.removeprefix('jobs.')}.py", *arguments]
        )
        before = contents(Path(traffic_store)), contents(tmp_path)
        # The Ray of the tests before tells of workers that died until it has ended.
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main_guard(main)
        assert (contents(Path(traffic_store)), contents(tmp_path)) == before
        written = capsys.readouterr()
        assert written.out == ""
        assert written.err.startswith("error: ")
        assert isinstance(ended.value.code, int)
        return Refusal(ended.value.code, written.err)

    return refuse


def contents(folder: Path) -> dict[str, tuple[int, bytes] | None]:
    """Modification time and bytes of every file below a folder, and the names of its folders."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes()) if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.fixture
def options(traffic_store: str, tmp_path: Path) -> TrainOptions:
    """A training that would run."""
    return small_options(traffic_store, str(tmp_path / "run"))


@pytest.fixture
def train(refused: Refuse, options: TrainOptions, tmp_path: Path) -> Refuse:
    """`python jobs/train_weatherbench.py --config FILE ARGUMENTS`, FILE holding the options."""
    config = write_config(options, tmp_path)
    return lambda *arguments: refused(train_weatherbench.main, "--config", config, *arguments)


@pytest.fixture
def checkpoint(options: TrainOptions) -> checkpoints.Checkpoint:
    """The only checkpoint of a run that was begun with the options."""
    return write_untrained_run(options)


@pytest.fixture
def score(
    refused: Refuse, checkpoint: checkpoints.Checkpoint, traffic_store: str, tmp_path: Path
) -> Refuse:
    """`python jobs/evaluate.py` on the checkpoint; later arguments win."""
    return lambda *arguments: refused(
        evaluate.main,
        *("--checkpoint", checkpoint.uri, "--store", traffic_store),
        *("--report", str(tmp_path / "report"), *arguments),
    )


# --- the store -----------------------------------------------------------------------------------


def test_a_store_that_is_absent_ends_with_4_and_the_command_that_makes_it(
    train: Refuse, tmp_path: Path
) -> None:
    nowhere = str(tmp_path / "nowhere.zarr")
    refusal = train("--store", nowhere)
    assert refusal.code == 4
    assert "there is no store" in refusal.message
    assert f"where: {nowhere}" in refusal.message
    assert (
        f"python jobs/reprocess.py convert --archive ARCHIVE --source SOURCE --store {nowhere}"
        in (refusal.message)
    )


def test_a_store_whose_conversion_did_not_end_names_the_command_that_finishes_it(
    train: Refuse, traffic_store: str, tmp_path: Path
) -> None:
    half = tmp_path / "half.zarr"
    shutil.copytree(traffic_store, half)
    (half / "zarr.json").unlink()
    refusal = train("--store", str(half))
    assert refusal.code == 4
    assert "the conversion of this store did not end" in refusal.message
    assert "reprocess.py convert --archive taxibj --source" in refusal.message


def test_a_store_with_damaged_metadata_is_refused_with_the_command_that_repairs_it(
    train: Refuse, traffic_store: str, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.zarr"
    shutil.copytree(traffic_store, damaged)
    text = (damaged / "zarr.json").read_text()
    (damaged / "zarr.json").write_text(text[: len(text) // 2])
    refusal = train("--store", str(damaged))
    assert refusal.code == 4
    assert "metadata is damaged" in refusal.message
    assert f"where: {damaged / 'zarr.json'}" in refusal.message
    assert "--repair" in refusal.message


# --- the configuration ---------------------------------------------------------------------------


CANNOT_WORK = {
    "--data.variables [flwo]": ["no variable 'flwo'", "did you mean 'flow'?"],
    "--data.horizon 300": [
        "a window spans 303 frames (3 + 300 at stride 1)",
        "the longest run without a gap has 217",
        "2014-04-01T00:00:00 to 2014-04-10T00:00:00",
        "lower input_frames, horizon or stride",
    ],
    "--data.stride 0": ["data.stride must be at least 1, not 0"],
    "--training.global_batch 500": [
        "212 train windows for a global batch of 500",
        "--training.global_batch 212",
    ],
    "--workers 10": [
        "10 workers for a global batch of 9",
        "--workers 9",
        "--training.global_batch",
    ],
    "--model.name gmg-x": ["unknown model 'gmg-x'", "did you mean 'gmg-s'?"],
    "--model.hidden [6,6]": ["hidden", "multiple of 4", "--model."],
    "--model.filter_size 4": ["filter_size=4", "odd"],
    "--model.patch_size 64": ["patch_size=64", "16 x 8"],
    "--training.weight_decay 0.1": ["weight_decay needs optimiser 'adamw'"],
    "--training.gradient_clip -1": ["gradient_clip cannot be -1"],
    "--training.learning_rate 0": ["learning_rate cannot be 0"],
    "--training.ema 1": ["ema cannot be 1"],
    "--training.sampling_end 1.5": ["end=1.5", "fractions of training"],
    "--training.sampling_start 0.9": [
        "sampling_start=0.9 and sampling_end=0.8",
        "fractions of training",
    ],
    "--training.sampling reverse-linear": [
        "gmg-s cannot be trained with reverse scheduled sampling",
        "--training.sampling linear",
        "predrnn",
    ],
    "--training.loss balanced-mse": [
        "balanced-mse needs the values",
        "--training.loss_thresholds",
        "units of the data",
    ],
    "--training.loss balanced-l1 --training.loss_thresholds [20] --training.loss_weights [1,2] "
    "--data.anomalies true": ["--training.loss_thresholds are values", "--data.anomalies false"],
    "--training.loss bce --data.anomalies true": ["needs frames in [0, 1]", "--data.anomalies"],
    "--training.loss bce --data.normalise standardise": ["bce needs frames in [0, 1]", "minmax"],
    "--model.name srvp --model.hidden [8,8] --model.options.output sigmoid --data.anomalies true": [
        "sigmoid needs frames in [0, 1]",
        "--data.anomalies false",
    ],
    "--training.loss_weights [1,2]": ["loss l1+l2 has no options", "balanced-mse"],
    "--training.loss balanced-l1 --training.loss_thresholds [9,3]": ["rising"],
    "--training.micro_batch -1": ["--training.micro_batch must be 0 or more, not -1"],
    "--training.loss l3": ["no loss is called 'l3'", "known: "],
    "--training.schedule onecycl": ["training.schedule", "onecycl", "'onecycle'"],
    "--training.patience 2 --validation.windows 0": [
        "the validation split has no window",
        "--training.patience 0",
    ],
    "--training.on_nonfinite leave": ["on_nonfinite", "leave", "'skip'"],
    "--tracking.mlflow_uri ./mlruns": ["not the address of a server", "http://HOST:PORT"],
    "--checkpoints.storage_wait -1": ["--checkpoints.storage_wait must be 0 or more, not -1"],
    "--training.epochs many": ["training.epochs", "many"],
    "--training.epoch 3": ["did you mean '--training.epochs'?"],
}


@pytest.mark.parametrize(("arguments", "messages"), CANNOT_WORK.items(), ids=CANNOT_WORK)
def test_a_configuration_that_cannot_work_ends_with_2(
    train: Refuse, arguments: str, messages: list[str]
) -> None:
    refusal = train(*arguments.split())
    assert refusal.code == 2
    for message in messages:
        assert message in refusal.message


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("training: {epoch: 3}\n", ["did you mean 'training.epochs'?"]),
        ("trainin: {epochs: 3}\n", ["did you mean 'training.epochs'?"]),
        ("training: [1\n", ["wrong.yaml"]),
        (None, ["wrong.yaml"]),
    ],
    ids=["unknown key", "unknown group", "no YAML", "no file"],
)
def test_a_configuration_file_that_cannot_be_used_ends_with_2(
    train: Refuse, tmp_path: Path, text: str | None, messages: list[str]
) -> None:
    if text is not None:
        (tmp_path / "wrong.yaml").write_text(text)
    refusal = train("--config", str(tmp_path / "wrong.yaml"))
    assert refusal.code == 2
    for message in messages:
        assert message in refusal.message


# --- the run -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("checkpoint")
def test_a_run_of_another_configuration_ends_with_2_and_a_diff(
    train: Refuse, options: TrainOptions
) -> None:
    refusal = train("--training.learning_rate", "0.01", "--data.horizon", "4", "--workers", "1")
    assert refusal.code == 2
    assert "begun with another configuration (there -> here)" in refusal.message
    assert "data.horizon: 3 -> 4" in refusal.message
    assert "training.learning_rate: 0.003 -> 0.01" in refusal.message
    assert "workers:" not in refusal.message
    assert f"where: {options.run}" in refusal.message


@pytest.mark.usefixtures("checkpoint")
def test_a_run_on_a_store_whose_statistics_were_others_ends_with_2(
    train: Refuse, options: TrainOptions, traffic_store: str
) -> None:
    record = Path(options.run) / "run.json"
    written = json.loads(record.read_text()) | {"statistics_fingerprint": "0" * 64}
    record.write_text(json.dumps(written))
    refusal = train()
    assert refusal.code == 2
    now = open_store(traffic_store).fingerprint[:12]
    assert f"statistics of the store: 000000000000 -> {now}" in refusal.message


@pytest.mark.usefixtures("checkpoint")
def test_a_run_that_a_live_process_trains_ends_with_1_and_names_it(
    train: Refuse, options: TrainOptions
) -> None:
    owner = lease.this_process()
    record = json.dumps(dataclasses.asdict(owner))
    (Path(options.run) / ".ledger" / "lease.json").write_text(record)
    refusal = train()
    assert refusal.code == 1
    assert f"another process writes to this run: {owner.owner}" in refusal.message
    assert f"where: {options.run}" in refusal.message


def test_a_run_folder_that_holds_something_else_ends_with_2(train: Refuse, tmp_path: Path) -> None:
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter1.tex").write_text("years of work")
    refusal = train("--run", str(thesis))
    assert refusal.code == 2
    assert "not a run of this project (it holds chapter1.tex)" in refusal.message
    assert f"where: {thesis}" in refusal.message


def test_a_run_in_the_folder_of_the_store_ends_with_2(train: Refuse, traffic_store: str) -> None:
    refusal = train("--run", traffic_store)
    assert refusal.code == 2
    assert "not a run of this project" in refusal.message


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (
            "{folder}/options.yaml",
            "the run cannot be written: {folder}/options.yaml is not a folder",
        ),
        ("{folder}/options.yaml/run", "{folder}/options.yaml is not a folder"),
        ("/proc/run", "the run cannot be written"),
        ("s4://bucket/run", "no driver for 's4://'"),
        ("s3://key:secret@bucket/run", "a URI must not contain credentials"),
    ],
    ids=["a file", "below a file", "no folder can be made", "unknown scheme", "with a key"],
)
def test_a_run_that_cannot_be_written_ends_with_2(
    train: Refuse, tmp_path: Path, run: str, message: str
) -> None:
    refusal = train("--run", run.format(folder=tmp_path))
    assert refusal.code == 2
    assert message.format(folder=tmp_path) in refusal.message
    assert "where: " in refusal.message
    assert "to do: " in refusal.message
    assert "secret" not in refusal.message


# --- the checkpoint ------------------------------------------------------------------------------


def test_a_checkpoint_that_is_absent_ends_with_4(score: Refuse, tmp_path: Path) -> None:
    refusal = score("--checkpoint", str(tmp_path / "nowhere"))
    assert refusal.code == 4
    assert "no complete checkpoint here" in refusal.message
    assert f"where: {tmp_path / 'nowhere'}" in refusal.message


@pytest.mark.parametrize("name", [checkpoints.WEIGHTS, checkpoints.RECORD])
def test_a_checkpoint_that_was_cut_short_ends_with_4(
    score: Refuse, checkpoint: checkpoints.Checkpoint, options: TrainOptions, name: str
) -> None:
    path = Path(checkpoint.uri) / name
    path.write_bytes(path.read_bytes()[:-100])
    for place in (checkpoint.uri, options.run):
        refusal = score("--checkpoint", place)
        assert refusal.code == 4
        assert "no complete checkpoint here" in refusal.message
        assert f"where: {place}" in refusal.message


def test_a_checkpoint_with_a_changed_byte_ends_with_4(
    score: Refuse, checkpoint: checkpoints.Checkpoint
) -> None:
    path = Path(checkpoint.uri) / checkpoints.WEIGHTS
    data = bytearray(path.read_bytes())
    data[-3] ^= 0xFF
    path.write_bytes(data)
    refusal = score()
    assert refusal.code == 4
    assert "'weights.safetensors' is damaged" in refusal.message
    assert f"where: {checkpoint.uri}" in refusal.message


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        ({"statistics_fingerprint": "0" * 64}, ["was trained with statistics 000000000000"]),
        ({"grid": [33, 49]}, ["forecasts a grid of 33 x 49", "the store's is 16 x 8"]),
        ({"variables": ["t2m"]}, ["forecasts t2m", "the store holds flow"]),
        ({"format": 99}, ["format 99", "reads format 1"]),
    ],
    ids=["statistics", "grid", "variables", "format"],
)
def test_a_checkpoint_that_does_not_match_the_store_ends_with_4(
    score: Refuse,
    checkpoint: checkpoints.Checkpoint,
    change: dict[str, object],
    messages: list[str],
) -> None:
    record = Path(checkpoint.uri) / checkpoints.RECORD
    record.write_text(json.dumps(json.loads(record.read_text()) | change))
    refusal = score()
    assert refusal.code == 4
    assert checkpoint.uri in refusal.message
    assert "to do: " in refusal.message
    for message in messages:
        assert message in refusal.message


NO_EXPORT: dict[str, tuple[Any, str]] = {
    "nothing": ({}, "format None; this version reads format 1"),
    "a list": ([], "'model.json' is not a JSON object"),
    "another format": ({"format": 99}, "format 99; this version reads format 1"),
    "no variables": ({"variables": None}, "'model.json' has no 'variables'"),
    "no name": ({"model": {"overrides": {}}}, "'model.json' has no 'model.name'"),
    "no statistics": ({"trained_on": {}}, "has no 'trained_on.statistics_fingerprint'"),
    "an unknown model": ({"model": {"name": "gmg-x", "overrides": {}}}, "did you mean 'gmg-s'?"),
    "another model": ({"model": {"name": "gmg-l", "overrides": {}}}, "are not its weights"),
}


@pytest.mark.parametrize(("change", "message"), NO_EXPORT.values(), ids=NO_EXPORT)
def test_an_exported_folder_that_cannot_be_read_ends_with_4(
    score: Refuse,
    checkpoint: checkpoints.Checkpoint,
    tmp_path: Path,
    change: Any,
    message: str,
) -> None:
    export(ExportOptions(checkpoint.uri, str(tmp_path / "exported")))
    record = tmp_path / "exported/model.json"
    known = json.loads(record.read_text())
    record.write_text(json.dumps(known | change if change else change))
    refusal = score("--checkpoint", str(tmp_path / "exported"))
    assert refusal.code == 4
    assert message in refusal.message
    assert f"where: {tmp_path / 'exported'}" in refusal.message
    assert "export" in refusal.message.split("to do: ")[1]


# --- the rest of an evaluation -------------------------------------------------------------------


def test_a_split_that_is_unknown_ends_with_2_and_the_nearest_name(score: Refuse) -> None:
    refusal = score("--split", "tset")
    assert refusal.code == 2
    assert "unknown split 'tset'" in refusal.message
    assert "did you mean 'test'?" in refusal.message


def test_the_train_split_ends_with_4(score: Refuse) -> None:
    refusal = score("--split", "train")
    assert refusal.code == 4
    assert "would not be honest" in refusal.message


def test_an_evaluation_on_a_store_that_is_absent_ends_with_4(score: Refuse, tmp_path: Path) -> None:
    refusal = score("--store", str(tmp_path / "nowhere.zarr"))
    assert refusal.code == 4
    assert "reprocess.py convert" in refusal.message


def test_a_report_that_cannot_be_written_ends_with_2(score: Refuse) -> None:
    refusal = score("--report", "/dev/null/report")
    assert refusal.code == 2
    assert "the report cannot be written" in refusal.message


def test_a_report_that_is_empty_or_goes_into_the_run_ends_with_2(
    score: Refuse, options: TrainOptions
) -> None:
    empty = score("--report", "")
    assert empty.code == 2
    assert "--report is empty" in empty.message
    inside = score("--report", f"{options.run}/report")
    assert inside.code == 2
    assert "a report is not written into a run" in inside.message
    assert f"where: {options.run}, which holds run.json" in inside.message
