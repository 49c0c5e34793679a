"""All jobs share one command line: the same help, files of options, errors and JSON."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from jobs.command_line import as_typed, choose, main_guard, set_program
from jobs.reprocessing.verbs import VERBS
from pipelines.errors import UsageError
from tests.conftest import ROOT

ARCHIVE = ("--archive", "era5", "--source", "a", "--store", "s")
COMMANDS: dict[str, tuple[str, ...]] = {
    "reprocess plan": (*ARCHIVE, "--input_frames", "3", "--horizon", "2", "--regrid", "5.625"),
    "reprocess convert": (*ARCHIVE, "--variables", "10u", "1e3", "--repair", "--samples", "12"),
    "reprocess inspect": ("--store", "s", "--plot", "figures"),
    "reprocess verify": ("--store", "s"),
    "reprocess publish": ("--store", "s", "--icechunk", "history"),
    "reprocess runs": ("--icechunk", "history"),
    "train_weatherbench": ("--store", "s", "--run", "r", "--model.hidden", "[8,8]"),
    "train_taxibj": ("--store", "s", "--run", "r", "--workers", "1:4"),
    "train_moving_mnist": ("--store", "s", "--run", "r", "--model.options.offset_scale", "2"),
    "train_cikm2017": ("--store", "s", "--run", "r", "--training.epochs", "3"),
    "train_shanghai2020": ("--store", "s", "--run", "r", "--data.variables", "[dbz]"),
    "train_radar": ("--source", "a", "--run", "r", "--threshold", "5"),
    "evaluate": ("--checkpoint", "r", "--store", "s", "--report", "p", "--thresholds", "20,30"),
    "predict": ("--checkpoint", "r", "--store", "s", "--latest", "--netcdf", "f.nc"),
    "export": ("--run", "r", "--to", "f"),
    "compare": ("--evaluations", "a", "b", "--csv", "c.csv"),
    "study": ("--study", "era5_t2m", "--source", "a", "--folder", "f", "--seeds", "[0,1]"),
    "demo": ("--folder", "f"),
}
"""job, with its verb -> options that it can be given, the required ones among them"""

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a job's `main`; returns its exit code and what it wrote to both streams."""

    def run(command: str, *arguments: str) -> tuple[int, str, str]:
        job, *verb = command.split()
        monkeypatch.setattr(sys, "argv", [f"{job}.py", *verb, *arguments])
        with pytest.raises(SystemExit) as ended:
            main_guard(importlib.import_module(f"jobs.{job}").main)
        written = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, written.out, written.err

    return run


def misspelt(command: str) -> tuple[str, str]:
    """Return an option of a command, and a name near it that is no option."""
    name = COMMANDS[command][0].removeprefix("--")
    return name, f"{name}x"


def test_every_verb_is_tested_here():
    assert {c.split()[1] for c in COMMANDS if c.startswith("reprocess ")} == set(VERBS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_lists_the_shared_options_and_those_of_the_job(call: Call, command: str):
    code, out, err = call(command, "--help")
    assert (code, err) == (0, "")
    for option in ("--config", "--print_config", "--json", COMMANDS[command][0]):
        assert option in out


@pytest.mark.parametrize("command", COMMANDS)
def test_a_printed_configuration_gives_the_same_options_when_it_is_read(
    call: Call, command: str, tmp_path: Path
):
    code, printed, err = call(command, *COMMANDS[command], "--print_config")
    assert (code, err) == (0, "")
    assert yaml.safe_load(printed)["json"] is False
    file = tmp_path / "options.yaml"
    file.write_text(printed)
    assert call(command, "--config", str(file), "--print_config") == (0, printed, "")


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option_ends_with_2_and_the_nearest_name(call: Call, command: str):
    name, wrong = misspelt(command)
    code, out, err = call(command, f"--{wrong}", "1")
    assert (code, out) == (2, "")
    assert f"unknown option '--{wrong}': did you mean '--{name}'?" in err
    assert f"python jobs/{command.replace(' ', '.py ')}" in err.replace(".py --help", " --help")


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_key_in_a_file_ends_with_2_and_its_line(
    call: Call, command: str, tmp_path: Path
):
    name, wrong = misspelt(command)
    file = tmp_path / "wrong.yaml"
    file.write_text(f"# options\n{wrong}: 1\n")
    code, out, err = call(command, *COMMANDS[command], "--config", str(file))
    assert (code, out) == (2, "")
    assert f"unknown option '{wrong}': did you mean '{name}'?" in err
    assert f"where: {file}, line 2" in err


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_that_is_not_yaml_ends_with_2_and_its_line(call: Call, command: str, tmp_path: Path):
    file = tmp_path / "wrong.yaml"
    file.write_text("store: s\nrun: [a\n")
    code, out, err = call(command, "--config", str(file))
    assert (code, out) == (2, "")
    assert "not valid YAML" in err
    assert f"where: {file}, line 3" in err


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "demo"])
def test_missing_options_are_named_together(call: Call, command: str):
    code, out, err = call(command)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: give --{misspelt(command)[0]}")


def test_a_value_that_does_not_fit_names_the_option_and_what_it_takes(call: Call, tmp_path: Path):
    file = tmp_path / "wrong.yaml"
    file.write_text("horizon: many\n")
    plan = ("reprocess plan", *COMMANDS["reprocess plan"])
    assert "--stride must be int, not two" in call(*plan, "--stride", "two")[2]
    assert "one of ['every', 'openstl']" in call(*plan, "--counting", "all")[2]
    code, _, err = call(*plan, "--config", str(file))
    assert code == 2
    assert "--horizon must be int or null, not many" in err
    assert f"where: {file}, line 1" in err


def test_help_and_errors_about_options_import_nothing_heavy():
    script = f"""
import importlib, sys
for command in {list(COMMANDS)!r}:
    job, *verb = command.split()
    for wrong in ("--help", "--no_such_option"):
        sys.argv = [job + ".py", *verb, wrong]
        try:
            importlib.import_module("jobs." + job).main()
        except SystemExit:
            pass
    # Archives declare their options beside their decoders, which need NumPy and no more.
    heavy = {{"ray", "torch", "zarr", "xarray", "pandas", "scipy", "matplotlib"}} & set(sys.modules)
    assert not heavy, (command, heavy)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_subcommand_is_chosen_and_a_misspelt_one_is_an_error():
    known = {"plan": "say what is done", "convert": "do it"}
    assert choose("VERB", known, ["plan", "--store", "s"], "") == ("plan", ["--store", "s"])
    with pytest.raises(UsageError, match="unknown VERB 'plam'") as error:
        choose("VERB", known, ["plam"], "")
    assert "did you mean 'plan'?" in str(error.value)
    with pytest.raises(UsageError, match="VERB is missing"):
        choose("VERB", known, [], "")


def test_remedies_name_commands_as_the_user_calls_them():
    text = "python jobs/reprocess.py verify --store s; python jobs/train_taxibj.py --help"
    assert as_typed(text) == text
    set_program("gmg study")
    try:
        assert as_typed(text) == "gmg reprocess verify --store s; gmg train taxibj --help"
    finally:
        set_program("")
