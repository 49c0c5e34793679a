"""The command line of reprocess: windows, costs, manifests and figures."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from jobs.reprocessing.arguments import parse
from jobs.reprocessing.verbs import VERBS
from pipelines.errors import UsageError
from tests.jobs.forecasts.stores import weather, write_store
from tests.support.archives.small_archives import write_days
from tests.support.processes import training_runs


def job(*arguments: object) -> subprocess.CompletedProcess[str]:
    return training_runs.job("reprocess.py", *arguments)


def test_a_plan_counts_windows_and_estimates_the_cost(tmp_path: Path):
    write_days(tmp_path / "a", 1, 2, 3, 4, 5)
    command = ("plan", "--archive", "weatherbench", "--source", tmp_path / "a")
    command += ("--store", tmp_path / "s", "--regrid", "2x3")
    done = job(*command, "--input_frames", 3, "--horizon", 2, "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout.splitlines()[-1])
    assert plan["windows"]["splits"] == {"train": 80, "validation": 4, "test": 16}
    assert plan["variables"]["t2m"]["shape"] == [120, 2, 3]
    assert plan["estimate"]["bytes_stored"] > 0
    assert plan["estimate"]["objects"] == 13
    assert "3 -> 2 frames: train 80, validation 4, test 16" in done.stdout
    assert "chunks that were decoded and encoded here" in done.stdout
    assert "--input_frames" in job(*command).stdout, "says how windows are counted"
    assert not (tmp_path / "s").exists()


def test_inspect_draws_a_store_and_lists_its_windows(tmp_path: Path):
    write_store(tmp_path / "s", weather())
    done = job(
        *("inspect", "--store", tmp_path / "s", "--plot", tmp_path / "figures", "--json"),
        *("--input_frames", 12, "--horizon", 12, "--manifest", tmp_path / "windows.csv"),
    )
    assert done.returncode == 0, done.stderr
    described = json.loads(done.stdout.splitlines()[-1])
    assert described["windows"]["splits"] == {"train": 457, "validation": 25, "test": 169}
    assert len((tmp_path / "windows.csv").read_text().splitlines()) == 1 + 457 + 25 + 169
    assert [Path(place).is_file() for place in described["figures"]] == [True] * 3


@pytest.mark.parametrize(
    ("verb", "arguments", "message"),
    [
        ("inspect", ["--horizon", "3"], "both --input_frames and --horizon"),
        ("inspect", ["--manifest", "m.csv"], "--manifest lists windows"),
        ("plan", ["--input_frames", "0", "--horizon", "3"], "--input_frames must be at least 1"),
        ("convert", ["--source_cache_gb", "-1"], "--source_cache_gb must be at least 0"),
        ("convert", ["--shard_frames", "0"], "--shard_frames must be at least 1"),
        ("convert", ["--source", ""], "a URI is empty"),
    ],
)
def test_options_that_contradict_each_other_are_an_error(
    verb: str, arguments: list[str], message: str
):
    places = [] if verb == "inspect" else ["--archive", "era5", "--source", "a"]
    with pytest.raises(UsageError, match=message):
        parse(VERBS[verb].options, verb, "", [*places, "--store", "s", *arguments])
