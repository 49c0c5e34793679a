"""The package: the command `gmg`, and the data files that a wheel must hold."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from jobs import console
from jobs.command_line import set_program
from tests.conftest import ROOT

PACKAGES = ("pipelines", "gmg_model", "jobs")


@pytest.fixture
def gmg(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run `gmg`; returns its exit code and what it wrote to both streams."""

    def run(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["gmg", *arguments])
        with pytest.raises(SystemExit) as ended:
            console.main()
        written = capsys.readouterr()
        return ended.value.code, written.out, written.err

    yield run
    set_program("")


@pytest.mark.parametrize(
    "command",
    [
        *(job for job in console.JOBS if job != "train"),
        *(f"train {name}" for name in console.DATA_SETS),
        "reprocess convert",
    ],
)
def test_every_job_has_a_subcommand_and_names_itself_in_its_help(gmg, command: str):
    code, out, err = gmg(*command.split(), "--help")
    assert (code, err) == (0, "")
    assert f"usage: gmg {command}" in out
    assert "python jobs/" not in out


def test_a_misspelt_job_or_data_set_is_an_error_with_the_nearest_name(gmg):
    assert "did you mean 'evaluate'?" in gmg("evalaute")[2]
    assert gmg("evalaute")[0] == 2
    assert "did you mean 'taxibj'?" in gmg("train", "taxi")[2]
    assert "all options: gmg export --help" in gmg("export", "--rn", "r")[2]


def test_a_train_job_exists_for_every_data_set():
    trained = {path.stem.removeprefix("train_") for path in (ROOT / "jobs").glob("train_*.py")}
    assert trained == set(console.DATA_SETS)


def test_a_wheel_holds_every_data_file(tmp_path: Path):
    copy = tmp_path / "source"
    copy.mkdir()
    tracked = subprocess.run(
        ["git", "ls-files", *PACKAGES, "pyproject.toml", "README.md", "LICENSE"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    for name in tracked:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(copy)], check=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        held = set(wheel.namelist())
    assert {name for name in tracked if name.startswith(PACKAGES)} <= held
    assert any(name.endswith("entry_points.txt") for name in held)
