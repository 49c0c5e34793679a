"""`jobs/evaluate.py` as a user runs it: what it prints and writes, and its errors."""

from __future__ import annotations

import html
import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import evaluate
from jobs.export import ExportOptions, export
from jobs.forecasts.forecasters.trained import load_trained, selection_notes
from jobs.training.run import checkpoints
from pipelines.errors import UsageError
from pipelines.stores.store import open_store
from tests.support.processes.training_runs import ROOT, job, small_options, write_untrained_run


@pytest.fixture(scope="module")
def run(traffic_store: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run with one checkpoint of a small model on the traffic store."""
    folder = str(tmp_path_factory.mktemp("runs") / "one")
    write_untrained_run(small_options(traffic_store, folder))
    return folder


def test_a_checkpoint_is_scored_beside_its_baselines(run, traffic_store, tmp_path):
    done = job(
        "evaluate.py",
        *("--checkpoint", run, "--store", traffic_store, "--report", str(tmp_path / "day.html")),
        *("--max_windows", "8"),
    )
    assert done.returncode == 0, done.stderr
    for words in ("model", "persistence", "climatology", "+1 h", "+3 h", "8 of "):
        assert words in done.stdout
    assert len(done.stdout.splitlines()) <= 12
    result = json.loads((tmp_path / "day.json").read_text())
    (scores,) = result["variables"].values()
    assert scores["protocols"]["strict"]["model"]["overall"]["rmse"] > 0
    assert scores["protocols"]["openstl"]["climatology"]["overall"]["mse_pixel_sum"] > 0
    assert result["checkpoint_uri"].endswith("step_000000000")
    assert result["windows"]["scored"] == 8
    assert result["climatology"] in (tmp_path / "day.html").read_text()
    assert "read local time where it says UTC" in done.stdout


def test_an_exported_folder_scores_as_the_run_that_it_came_from(run, traffic_store, tmp_path):
    exported = tmp_path / "exported"
    export(ExportOptions(run, str(exported)))
    found = {}
    for name, checkpoint in (("run", run), ("folder", str(exported))):
        done = job(
            "evaluate.py",
            *("--checkpoint", checkpoint, "--store", traffic_store, "--max_windows", "2"),
            *("--report", str(tmp_path / name), "--protocols", "detail"),
        )
        assert done.returncode == 0, done.stderr
        found[name] = json.loads((tmp_path / name / "scores.json").read_text())
    ours, theirs = found["run"], found["folder"]
    assert theirs["variables"] == ours["variables"]
    assert theirs["notes"] == ours["notes"]
    assert not any("period" in note for note in theirs["notes"])
    assert (theirs["epoch"], theirs["options"]) == (ours["epoch"], ours["options"])
    record = json.loads((exported / "model.json").read_text())
    del record["validation_period"], record["epoch"], record["options"]
    (exported / "model.json").write_text(json.dumps(record))
    older = load_trained(str(exported))
    assert "does not say which period chose its checkpoint" in selection_notes(older, "test")[0]
    # The period that chose the checkpoint cannot be the test period, in either form of the model.
    record["validation_period"] = open_store(traffic_store).attributes["splits"]["test"]
    (exported / "model.json").write_text(json.dumps(record))
    done = job(
        "evaluate.py",
        *("--checkpoint", str(exported), "--store", traffic_store),
        *("--report", str(tmp_path / "no")),
    )
    assert done.returncode == 4
    assert "the validation period that chose this checkpoint" in done.stderr


def test_a_note_says_that_the_validation_split_chose_the_checkpoint(
    finished_run, traffic_store, tmp_path
):
    places = ("--checkpoint", finished_run.run, "--store", traffic_store, "--report", tmp_path)
    done = job("evaluate.py", *places, "--split", "validation", "--max_windows", "2")
    assert done.returncode == 0, done.stderr
    (note,) = (
        n
        for n in json.loads((tmp_path / "scores.json").read_text())["notes"]
        if "has chosen this checkpoint" in n
    )
    assert note in done.stdout
    assert note in html.unescape((tmp_path / "report.html").read_text())


def test_json_is_one_object_on_standard_output(run, traffic_store, tmp_path):
    done = job(
        "evaluate.py",
        *("--checkpoint", run, "--store", traffic_store, "--report", str(tmp_path)),
        *("--max_windows", "2", "--protocols", "openstl", "--json"),
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["report"] == str(tmp_path / "report.html")
    assert (tmp_path / "report.html").exists()


def test_the_train_split_ends_the_job_with_code_4(run, traffic_store, tmp_path):
    done = job(
        "evaluate.py",
        *("--checkpoint", run, "--store", traffic_store, "--report", str(tmp_path / "new")),
        *("--split", "train"),
    )
    assert done.returncode == 4
    first, last = open_store(traffic_store).statistics["period"]
    assert f"{first} to {last}" in done.stderr
    assert not (tmp_path / "new").exists()


def test_a_checkpoint_of_other_statistics_ends_the_job_with_code_4(run, traffic_store, tmp_path):
    folder = Path(run) / checkpoints.directory_name(0)
    other = tmp_path / "other"
    other.mkdir()
    for name in ("weights.safetensors", "training.safetensors"):
        (other / name).write_bytes((folder / name).read_bytes())
    record = json.loads((folder / "checkpoint.json").read_text())
    (other / "checkpoint.json").write_text(
        json.dumps(record | {"statistics_fingerprint": "0" * 64})
    )
    done = job(
        "evaluate.py",
        *("--checkpoint", str(other), "--store", traffic_store, "--report", str(tmp_path / "new")),
    )
    assert done.returncode == 4
    assert "000000000000" in done.stderr
    assert open_store(traffic_store).fingerprint[:12] in done.stderr


def test_a_misspelt_option_ends_with_code_2_and_the_nearest_name(tmp_path):
    done = job("evaluate.py", "--checkpiont", "x", "--store", "y", "--report", str(tmp_path))
    assert done.returncode == 2
    assert "did you mean '--checkpoint'" in done.stderr


def test_help_does_not_import_heavy_packages():
    code = (
        "import sys, contextlib, jobs.evaluate\n"
        "sys.argv = ['evaluate.py', '--help']\n"
        "with contextlib.suppress(SystemExit):\n"
        "    jobs.evaluate.main()\n"
        "print(sorted({'ray', 'torch', 'zarr', 'xarray', 'matplotlib'} & sys.modules.keys()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "--max_windows" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


CANNOT_SCORE = {
    "--horizon 300": ["a window spans 303 frames (3 + 300 at stride 1)", "lower input_frames"],
    "--horizon 0": ["horizon must be at least 1, not 0"],
    "--workers -1": ["workers must be 0 or more, not -1"],
    "--members 4": ["no 4 members", "trained with noise"],
    "--protocols strickt": ["no protocol 'strickt'", "did you mean 'strict'?"],
    "--protocols srvp": ["no protocol 'srvp'", "8-bit images"],
    "--protocols ensemble": ["scores several members", "--members 2"],
    "--thresholds strong": ["'strong' is no list of numbers", "20,30,40"],
    "--thresholds nan,inf,280": ["'nan,inf,280' is no list of numbers", "20,30,40"],
    "--thresholds 20,30,20.0": ["'20,30,20.0' has a number twice"],
    "--seed -1": ["no seed -1", "--seed of 0 to 2147483647"],
    "--resamples -1": ["resamples must be 0 or at least 100, not -1"],
    "--resamples 1": ["resamples must be 0 or at least 100, not 1", "0 for no intervals"],
}


@pytest.mark.parametrize(("arguments", "messages"), CANNOT_SCORE.items(), ids=CANNOT_SCORE)
def test_options_that_cannot_be_used_are_an_error_before_the_work(
    run, traffic_store, tmp_path, monkeypatch, arguments, messages
):
    report = tmp_path / "report"
    given = ["--checkpoint", run, "--store", traffic_store, "--report", str(report)]
    monkeypatch.setattr("sys.argv", ["evaluate.py", *given, *arguments.split()])
    with pytest.raises(UsageError) as raised:
        evaluate.main()
    for message in messages:
        assert message in str(raised.value)
    assert not report.exists()


def test_a_horizon_beyond_training_is_scored_with_a_note(
    run, traffic_store, tmp_path, monkeypatch, capsys
):
    given = ["--checkpoint", run, "--store", traffic_store, "--report", str(tmp_path)]
    options = ["--horizon", "5", "--max_windows", "2"]
    monkeypatch.setattr("sys.argv", ["evaluate.py", *given, *options])
    evaluate.main()
    assert "note: 5 frames are forecast with a model that was trained for 3" in (
        capsys.readouterr().out
    )
    result = json.loads((tmp_path / "scores.json").read_text())
    assert len(result["lead_seconds"]) == 5
    assert "nothing was learnt of the later ones" in result["notes"][0]
    assert (tmp_path / "scores.csv").read_text().startswith("system,variable,")
    assert (tmp_path / "fields.zarr" / "zarr.json").exists()
