"""The command line of the training jobs: defaults, nearest names, and a quick --help."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml

from jobs.training.entry import parse
from jobs.training.options import ModelOptions, TrainOptions
from jobs.training.plan import TrainingPlan
from pipelines.errors import UsageError
from pipelines.stream.windows import WindowSpec
from tests.conftest import ROOT

REQUIRED = ["--store", "store.zarr", "--run", "run"]


def test_the_defaults_are_table_1_of_the_paper() -> None:
    weather = parse("weatherbench.yaml", "", REQUIRED)
    assert weather.model.name == "gmg-s"
    assert weather.model.hidden == (128, 128, 128, 128)
    assert (weather.model.patch_size, weather.model.attention_hidden) == (2, 64)
    assert (weather.data.input_frames, weather.data.horizon) == (12, 12)
    assert (weather.training.epochs, weather.training.global_batch) == (100, 16)
    traffic = parse("taxibj.yaml", "", REQUIRED)
    assert traffic.model.name == "gmg-m"
    assert (traffic.data.input_frames, traffic.data.horizon) == (4, 4)
    assert traffic.data.normalise == "minmax"
    assert traffic.training.epochs == 200


@pytest.mark.parametrize(
    ("config", "frames", "epochs"),
    [("moving_mnist", (10, 10), 600), ("cikm2017", (5, 10), 100), ("shanghai2020", (10, 10), 200)],
)
def test_the_defaults_of_clips_are_table_1_of_the_paper(
    config: str, frames: tuple[int, int], epochs: int
) -> None:
    options = parse(f"{config}.yaml", "", REQUIRED)
    assert options.model.name == "gmg-l"
    assert (options.model.patch_size, options.model.attention_hidden) == (4, 32)
    assert (options.data.input_frames, options.data.horizon) == frames
    assert (options.training.epochs, options.training.global_batch) == (epochs, 16)
    assert (options.training.learning_rate, options.training.loss) == (3e-4, "l1+l2")


def test_a_yaml_overrides_the_defaults_and_the_command_line_overrides_both(tmp_path: Path) -> None:
    config = tmp_path / "small.yaml"
    config.write_text("model: {hidden: [8, 8, 8, 8]}\ntraining: {epochs: 3, seed: 5}\n")
    options = parse(
        "weatherbench.yaml", "", [*REQUIRED, "--config", str(config), "--training.epochs", "7"]
    )
    assert options.model.hidden == (8, 8, 8, 8)
    assert (options.training.epochs, options.training.seed) == (7, 5)
    assert options.training.global_batch == 16


def test_options_survive_a_round_trip_through_json() -> None:
    options = parse("taxibj.yaml", "", [*REQUIRED, "--model.hidden", "[4,4]", "--workers", "2"])
    assert TrainOptions.from_dict(options.as_dict()) == options


@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        (["--training.epoch", "3"], "training.epochs"),
        (["--trainin.epochs", "3"], "training.epochs"),
        (["--model.nam", "gmg-s"], "model.name"),
        (["--worker", "3"], "workers"),
    ],
)
def test_an_unknown_option_is_refused_with_the_nearest_name(
    argument: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        parse("weatherbench.yaml", "", [*REQUIRED, *argument])
    assert refused.value.code == 2
    assert f"did you mean '--{hint}'" in capsys.readouterr().err


def test_an_unknown_key_in_a_yaml_is_refused_with_the_nearest_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "wrong.yaml"
    config.write_text("training: {epoch: 3}\n")
    with pytest.raises(SystemExit) as refused:
        parse("weatherbench.yaml", "", [*REQUIRED, "--config", str(config)])
    assert refused.value.code == 2
    assert "training.epochs" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes",
    [
        *(
            {"workers": given}
            for given in (0, 17, "0:2", "3:2", "1:17", "1:", ":2", "many", "1:2:3")
        ),
        {"cpus_per_worker": 0},
    ],
)
def test_impossible_numbers_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        TrainOptions(store="a", run="b", **changes)


def test_workers_are_a_number_or_a_range_on_the_command_line_and_in_a_yaml(tmp_path: Path) -> None:
    options = parse("weatherbench.yaml", "", [*REQUIRED, "--workers", "1:16"])
    assert (options.worker_range.least, options.worker_range.most) == (1, 16)
    assert TrainOptions.from_dict(options.as_dict()) == options
    config = tmp_path / "range.yaml"
    config.write_text('workers: "2:4"\n')
    options = parse("weatherbench.yaml", "", [*REQUIRED, "--config", str(config)])
    assert str(options.worker_range) == "2 to 4"
    assert parse("weatherbench.yaml", "", [*REQUIRED, "--workers", "3"]).workers == 3
    assert not parse(
        "weatherbench.yaml", "", [*REQUIRED, "--workers", "3:3"]
    ).worker_range.is_elastic


def test_every_registered_model_can_be_trained_by_its_name() -> None:
    from gmg_model import create_model, list_models

    for name in list_models():
        overrides = ModelOptions(name, hidden=(8, 8, 8, 8)).overrides()
        create_model(name, in_shape=(1, 16, 16), **overrides)


def test_model_options_have_the_defaults_of_the_model_itself() -> None:
    from gmg_model.models.gmg import GMGConfig

    own = {f.name: f.default for f in dataclasses.fields(GMGConfig)}
    for option in dataclasses.fields(ModelOptions):
        if option.name in own:
            assert option.default == own[option.name], option.name


def test_further_options_of_a_model_reach_it_from_the_command_line() -> None:
    options = parse("weatherbench.yaml", "", [*REQUIRED, "--model.options.offset_scale", "2.5"])
    assert options.model.overrides()["offset_scale"] == 2.5
    assert TrainOptions.from_dict(options.as_dict()) == options
    with pytest.raises(UsageError, match=r"--model\.patch_size"):
        ModelOptions(options={"patch_size": 3}).overrides()


def test_a_model_with_weights_per_frame_has_the_window_of_the_data() -> None:
    def overrides(name: str) -> dict[str, Any]:
        unused: dict[str, Any] = dict.fromkeys(("train_starts", "validation_starts", "order"))
        return TrainingPlan(
            options=TrainOptions(store="a", run="b", model=ModelOptions(name)),
            store=cast(Any, SimpleNamespace(spatial_shape=(16, 32))),
            variables=("t2m",),
            window=WindowSpec(input_frames=5, horizon=7),
            normalisation=cast(Any, SimpleNamespace(labels=("t2m",))),
            **unused,
        ).model_overrides

    sizes = {"in_shape": (1, 16, 32), "input_frames": 5, "horizon": 7}
    assert sizes.items() <= overrides("srvp").items()
    assert "input_frames" not in overrides("gmg-s")
    with pytest.raises(UsageError, match=r"--data\.input_frames"):
        ModelOptions("srvp", options={"input_frames": 3}).overrides()


def test_every_shipped_yaml_holds_known_options_only() -> None:
    known = {field.name for field in dataclasses.fields(TrainOptions)}
    configs = sorted((ROOT / "jobs" / "configs").glob("*.yaml"))
    assert configs
    for path in configs:
        assert set(yaml.safe_load(path.read_text())) <= known
        parse(path.name, "", REQUIRED)


@pytest.mark.parametrize("script", ["train_weatherbench.py", "train_shanghai2020.py"])
def test_help_and_usage_errors_import_neither_torch_nor_ray(script: str) -> None:
    probe = (
        "import runpy, sys\n"
        f"sys.argv = ['{script}', *sys.argv[1:]]\n"
        "try:\n"
        f"    runpy.run_path('{ROOT / 'jobs' / script}', run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    print(end.code, sorted({'torch', 'ray', 'zarr', 'xarray'} & set(sys.modules)))\n"
    )
    for arguments, code in ((["--help"], 0), (["--sotre", "x"], 2)):
        done = subprocess.run(
            [sys.executable, "-c", probe, *arguments], capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == f"{code} []"
