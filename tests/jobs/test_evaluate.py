"""``jobs/evaluate.py`` as a user runs it: what it prints, writes and refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.training import checkpoints
from pipelines.store import open_store
from tests.training_runs import ROOT, job, small_options, write_untrained_run


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


def test_the_train_split_is_refused_with_code_4(run, traffic_store, tmp_path):
    done = job(
        "evaluate.py",
        *("--checkpoint", run, "--store", traffic_store, "--report", str(tmp_path / "new")),
        *("--split", "train"),
    )
    assert done.returncode == 4
    first, last = open_store(traffic_store).statistics["period"]
    assert f"{first} to {last}" in done.stderr
    assert not (tmp_path / "new").exists()


def test_a_checkpoint_of_other_statistics_is_refused_with_code_4(run, traffic_store, tmp_path):
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


def test_a_misspelt_option_is_refused_with_code_2_and_the_nearest_name(tmp_path):
    done = job("evaluate.py", "--checkpiont", "x", "--store", "y", "--report", str(tmp_path))
    assert done.returncode == 2
    assert "did you mean 'checkpoint'" in done.stderr


def test_help_needs_none_of_the_heavy_packages():
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
