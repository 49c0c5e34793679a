"""The command line of reprocess: verbs, exit codes, the line of JSON."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import xarray as xr

from jobs.reprocessing.presentation import show_store
from pipelines.audit.inspection import inspect as describe
from pipelines.stores.moments import missing_moments
from pipelines.stores.statistics import reduce_moments
from pipelines.stores.store import open_store
from tests.support.archives.small_archives import write_days
from tests.support.processes import training_runs


def job(*arguments: object) -> subprocess.CompletedProcess[str]:
    return training_runs.job("reprocess.py", *arguments)


def last_line(done: subprocess.CompletedProcess[str]) -> dict:
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a/ (three days, one missing) and s/, its store."""
    folder = tmp_path_factory.mktemp("job")
    write_days(folder / "a", 1, 2, 4)
    done = training_runs.script("reprocess.py", *convert(folder), "--shard_frames", 24, "--json")
    assert done.returncode == 0, done.stderr
    report = last_line(done)
    assert report["frames"] == 96
    assert (report["shards_written"], report["shards_skipped"], report["gaps"]) == (4, 0, 1)
    assert report["bytes_stored"] > 0
    assert report["seconds"] > 0
    return folder


def convert(folder: Path, verb: str = "convert") -> list[object]:
    return [verb, "--archive", "weatherbench", "--source", folder / "a", "--store", folder / "s"]


def test_a_second_convert_says_that_there_is_nothing_to_do(folder: Path):
    done = job(*convert(folder), "--json")
    assert done.returncode == 0
    assert "nothing to do" in done.stdout
    assert last_line(done)["changed"] is False


def test_plan_says_what_would_be_done_and_writes_nothing(folder: Path, tmp_path: Path):
    store = tmp_path / "new"
    arguments = ["plan", "--archive", "weatherbench", "--source", folder / "a", "--store", store]
    done = job(*arguments, "--variables", "t2m", "--json")
    assert done.returncode == 0, done.stderr
    plan = last_line(done)
    assert (plan["frames"], plan["shards_due"]) == (96, 1)
    assert plan["gaps"][0] == {
        "first": "2010-01-03T00:00:00",
        "last": "2010-01-03T23:00:00",
        "frames": 24,
        "why": "missing_in_source",
    }
    assert not store.exists()


def test_plan_refuses_a_folder_that_convert_would_refuse(folder: Path):
    place = ["--source", folder / "a", "--store", folder / "a"]
    for verb in ("plan", "convert"):
        done = job(verb, "--archive", "weatherbench", *place)
        assert (done.returncode, done.stdout) == (2, "")
        assert "the folder holds something other than a store" in done.stderr


def test_inspect_draws_what_can_be_read_and_names_the_shard_that_cannot(
    folder: Path, tmp_path: Path
):
    store, figures = tmp_path / "s", tmp_path / "figures"
    shutil.copytree(folder / "s", store)
    shard = store / "t2m" / "c" / "0" / "0" / "0"
    plot = ("inspect", "--store", store, "--plot", figures)
    shard.write_bytes(shard.read_bytes()[:-40])
    done = job(*plot)
    assert done.returncode == 4
    assert "2 of 3 figures cannot be drawn (map_t2m, histogram_t2m)" in done.stderr
    assert "in t2m/c/0/0/0" in done.stderr
    assert f"--store {store} --repair" in done.stderr
    assert [path.name for path in figures.iterdir()] == ["timeline.png"]
    shard.unlink()
    done = job(*plot)
    assert done.returncode == 4
    assert "in t2m/c/0/0/0" in done.stderr
    assert "1 MISSING: see verify" in done.stdout


def test_inspect_describes_the_store(folder: Path):
    done = job("inspect", "--store", folder / "s", "--json")
    assert done.returncode == 0, done.stderr
    description = last_line(done)
    assert (description["frames"], description["frames_available"]) == (96, 72)
    assert description["variables"]["t2m"]["shards"] == 4
    assert description["splits_origin"] == "fraction"
    assert description["statistics_fingerprint"] == open_store(str(folder / "s")).fingerprint
    assert [file["uri"] for file in description["provenance"]["files"]] == [
        str(path) for path in sorted((folder / "a").iterdir())
    ]
    assert "(synthetic)" in done.stdout
    assert "2010-01-03T00:00:00 to 2010-01-03T23:00:00" in done.stdout


def test_verify_ends_with_4_and_the_command_that_mends(folder: Path, tmp_path: Path):
    assert job("verify", "--store", folder / "s", "--source", folder / "a").returncode == 0
    shard = folder / "s" / "t2m" / "c" / "1" / "0" / "0"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + b"?")
    try:
        done = job("verify", "--store", folder / "s", "--json")
    finally:
        shard.write_bytes(whole)
    assert done.returncode == 4
    assert "altered t2m/c/1/0/0 (t2m, frames 24 to 47)" in done.stdout
    assert "--repair" in done.stdout
    assert last_line(done)["problems"][0]["kind"] == "altered"


def test_the_store_opens_in_bare_xarray(folder: Path):
    dataset = xr.open_zarr(folder / "s")
    assert dataset.t2m.dims == ("time", "latitude", "longitude")
    assert str(dataset.time.values[-1]) == "2010-01-04T23:00:00.000000000"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["convert", "--archve", "era5"], "did you mean '--archive'"),
        (["convert", "--archive", "era6"], "did you mean 'era5'"),
        (["convert", "--archive", "era5"], "give --source, --store"),
        (["convret"], "did you mean 'convert'"),
        (["convert", "--archive", "era5", "a.nc", "b.nc"], "put a glob into quotes"),
        (["convert", "--chunk_frames", "many"], "--chunk_frames must be int"),
        (["verify"], "give --store"),
        ([], "VERB"),
    ],
)
def test_wrong_usage_ends_with_2_and_a_hint(arguments: list[str], message: str):
    done = job(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"--source": "nowhere"}, 3, "the source does not exist"),
        ({"--variables": "t2n"}, 2, "did you mean 't2m'"),
        ({"--archive": "taxibj"}, 4, "written by archive 'weatherbench'"),
        ({"--shard_frames": "48"}, 4, "the store has 24, asked 48"),
        ({"--splits": "no_such_file.yaml"}, 2, "splits file cannot be read"),
        ({"--store": "/dev/null/store"}, 2, "cannot be written"),
        ({"--store": "/proc/store"}, 2, "cannot be written"),
        ({"--store": "s4://bucket/store"}, 2, "no driver for 's4://'"),
        ({"--store": "s3:/bucket/store"}, 2, "give s3://BUCKET/PATH"),
        ({"--source": ""}, 2, "a URI is empty"),
    ],
)
def test_what_is_refused_ends_with_its_code_and_no_traceback(
    folder: Path, change: dict[str, str], code: int, message: str
):
    options = {"--archive": "weatherbench", "--source": folder / "a", "--store": folder / "s"}
    options |= change
    done = job("convert", *(part for option in options.items() for part in option))
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert message in done.stderr
    assert "to do:" in done.stderr
    assert open_store(str(folder / "s")).times.shape == (96,)


def test_a_store_that_is_not_there_ends_with_4_and_the_command_that_makes_it(tmp_path: Path):
    done = job("inspect", "--store", tmp_path / "s")
    assert done.returncode == 4
    assert "python jobs/reprocess.py convert" in done.stderr


@pytest.mark.parametrize(
    "output", [["--plot", "{file}/figures"], ["--manifest", "{file}/windows.csv"]], ids=str
)
def test_figures_and_manifests_that_cannot_be_written_end_with_2(folder: Path, output: list[str]):
    places = [part.format(file=folder / "s" / "zarr.json") for part in output]
    window = ("--input_frames", 2, "--horizon", 2)
    done = job("inspect", "--store", folder / "s", *places, *window)
    assert (done.returncode, done.stdout, "Traceback" in done.stderr) == (2, "", False)
    assert str(folder / "s" / "zarr.json") in done.stderr


def test_a_variable_without_a_value_is_said_to_have_none(folder: Path):
    description = describe(str(folder / "s"))
    assert "train: mean" in show_store(description)
    moments = reduce_moments(lambda: [missing_moments(24, 1, 24)])
    empty = replace(description, statistics={"variables": {"t2m": moments}})
    assert "no value, all 576 are missing" in show_store(empty)


def test_an_unfinished_store_names_the_command_that_finishes_it(folder: Path, tmp_path: Path):
    store = tmp_path / "s"
    (store / ".ledger").mkdir(parents=True)
    plan = (folder / "s" / ".ledger" / "plan.json").read_text()
    (store / ".ledger" / "plan.json").write_text(plan)
    done = job("inspect", "--store", store)
    assert done.returncode == 4
    assert f"--source {folder / 'a'} --store {store}" in done.stderr
