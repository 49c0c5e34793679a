"""The commands and the Python of every page run in the order of the page.

Each page has a folder of its own. FOLDER on a page is a small archive that is made here. Trainings
use a model of four channels and a few windows; all other options are those of the page. Commands
run in this process, see `tests.support.processes.training_runs.job`; tests/jobs/test_scripts.py
starts jobs as processes. A command that is not run here is listed in
tests/support/pages/page_walk.py, with the test that runs it or the reason why none does. The Python
of a page runs after its commands; tests/test_page_python.py checks that all of it is run.
"""

from __future__ import annotations

import dataclasses
import io
import json
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

from gmg_model import create_model, list_models, load_exported, registry
from gmg_model.training.optimisation import Optimisation
from gmg_model.training.options import OptimisationOptions
from jobs.training.driver import job as training
from jobs.training.run.checkpoints import load_checkpoint
from pipelines.archives.radar.formats import bom_rf3
from pipelines.timeline.splits import read_splits_file
from tests.conftest import ROOT
from tests.support.archives.clip_archives import write_kth
from tests.support.archives.radar_files import five_minutes, knmi_folder
from tests.support.archives.small_archives import hourly, write_netcdf
from tests.support.archives.static_archives import constants
from tests.support.pages.page_walk import NOT_HERE, SHELL, Walk, tiny
from tests.support.pages.pages import BLOCK, DOCS, PAGES, page_commands, page_python
from tests.support.processes.training_runs import small_options, write_untrained_run

NOT_WALKED = {
    "cluster.md": "on clusters and buckets that are not here: the job API, the autoscaler and two "
    "nodes are tests/cluster, the files for ray up and kubectl tests/infra; options are parsed in "
    "tests/test_documentation.py",
}
"""page whose job commands are not run here -> the reason"""
PROGRAMS = ("python", "helm", *SHELL, *NOT_HERE)
OTHER_PYTHON = {
    "tests/benchmarks/": "measure, on a machine that does nothing else",
    "docs/picture.py": "test_the_picture_of_the_readme_is_drawn_from_a_run",
}


@pytest.fixture(scope="module", autouse=True)
def ray(ray_cluster: None) -> None:
    """Start one Ray for all pages."""


@pytest.fixture(scope="module")
def charts(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Write FOLDER: hourly temperatures of ten weeks around March 2018, in two files."""
    folder = tmp_path_factory.mktemp("charts")
    times = hourly("2018-02-10", 24 * 70)
    day = np.sin(2 * np.pi * np.arange(len(times)) / 24)[:, None, None]
    grid = np.arange(64).reshape(8, 8) / 8
    noise = np.random.default_rng(0).normal(0, 0.5, (len(times), 8, 8))
    values = (280 + 5 * day + grid + noise).astype(np.float32)
    for name, part in (("a", slice(None, 700)), ("b", slice(700, None))):
        write_netcdf(folder / f"{name}.nc", times[part], values=values[part])
    return str(folder)


@pytest.fixture(scope="module")
def quickstart(charts: str, tmp_path_factory: pytest.TempPathFactory) -> Walk:
    """Follow docs/quickstart.md, with a real training, and return the folder and its commands."""
    really = training.train
    folder = tmp_path_factory.mktemp("quickstart")
    walk = Walk(folder, {"FOLDER": charts}, train=lambda options: really(tiny(options)), draws=True)
    walk.page(DOCS / "quickstart.md")
    return walk


@pytest.fixture
def walk(tmp_path: Path, charts: str) -> Walk:
    return Walk(tmp_path, {"FOLDER": charts})


def test_the_quickstart_ends_with_a_page_a_forecast_and_a_model_for_python(quickstart: Walk):
    folder = quickstart.folder
    scores = json.loads((folder / "reports/first/scores.json").read_text())
    systems = scores["variables"]["t2m"]["protocols"]["strict"]
    assert {"model", "persistence", "climatology"} <= set(systems)
    assert (folder / "reports/first/report.html").stat().st_size > 100_000
    with xr.open_dataset(folder / "forecast.nc") as forecast:
        assert forecast["t2m"].attrs["units"] == "K"
        assert forecast.sizes["lead_time"] == 12
    assert list((folder / "figures").glob("*.png"))


def test_the_page_about_python_converts_reads_and_streams_a_store(walk: Walk):
    names = walk.python(DOCS / "python.md")
    store, frames = names["store"], names["frames"]
    assert names["report"].frames == len(store.times) == 24 * 70
    np.testing.assert_array_equal(frames[:, 0], names["dataset"]["t2m"].values[:24])
    assert names["inputs"].shape[1:] == names["truth"].shape[1:] == (12, 1, 8, 8)
    assert names["state"] == {"epoch": 1, "step": 0}
    assert names["windows"].stream.steps_per_epoch * 16 > len(names["table"]) > 100
    assert all(270 < row["mean"] < 300 for row in names["table"])


def test_the_picture_of_the_readme_is_drawn_from_a_run(quickstart: Walk, tmp_path: Path):
    (tmp_path / "store.zarr").symlink_to(quickstart.folder / "t2m.zarr")
    (tmp_path / "run").symlink_to(quickstart.folder / "runs/first")
    names = runpy.run_path(str(DOCS / "picture.py"), run_name="picture")
    drawn = Image.open(io.BytesIO(names["picture"](tmp_path)))
    assert len(drawn.convert("RGB").getcolors(1 << 24) or ()) > 50
    with Image.open(DOCS / "forecast.png") as shown:
        assert shown.width == drawn.width


def test_the_lines_of_python_in_the_quickstart_give_the_same_forecast(quickstart: Walk):
    names = quickstart.python(DOCS / "quickstart.md")
    with xr.open_dataset(quickstart.folder / "forecast.nc") as forecast:
        values = forecast["t2m"].values.reshape(np.shape(names["forecast"]))
    np.testing.assert_allclose(np.asarray(names["forecast"]), values, rtol=1e-5)


def test_the_commands_of_the_readme_run_beside_those_of_the_quickstart(
    walk: Walk, quickstart: Walk
):
    (walk.folder / "t2m.zarr").symlink_to(quickstart.folder / "t2m.zarr")
    walk.page(ROOT / "README.md", skip=quickstart.walked)
    assert [command.split()[1] for command in walk.walked] == [
        "jobs/reprocess.py",
        "jobs/train_weatherbench.py",
    ]


def test_the_python_of_the_readme_makes_a_model_and_loads_a_trained_one(quickstart: Walk):
    names = quickstart.python(ROOT / "README.md")
    assert names["forecast"].shape == (1, 12, 1, 32, 64)
    best = load_checkpoint(str(quickstart.folder / "runs/first"))
    for name, weights in names["trained"].state_dict().items():
        torch.testing.assert_close(weights, best.tensors[name], rtol=0, atol=0)
    assert not names["trained"].training


def test_reprocessing_as_its_page_says(walk: Walk):
    walk.places = {
        **walk.places,
        # tests/pipelines/conversion/test_convert_object_storage.py tests real object storage.
        "s3://bucket/raw": walk.places["FOLDER"],
        "s3://bucket/t2m.zarr": str(walk.folder / "bucket.zarr"),
    }
    splits = walk.folder / "splits.yaml"
    page = DOCS / "reprocessing.md"
    for command in page_commands(page):
        walk.command(command)
        if command.startswith("printf"):
            # The page has the years of WeatherBench, but FOLDER has only ten weeks.
            assert list(read_splits_file(str(splits))) == ["train", "validation", "test"]
            text = 'train: ["2018-02", "2018-03-10"]\nvalidation: ["2018-03-12", "2018-03-20"]\n'
            splits.write_text(text + 'test: ["2018-03-21", "2018-04"]\n')
    assert "nothing to do" in walk.said
    assert (walk.folder / "windows.csv").read_text().count("\n") > 1000


def test_history_as_its_page_says(walk: Walk):
    walk.page(DOCS / "history.md")
    assert "nothing to do" not in walk.said
    assert len(walk.walked) == 3
    snapshot = re.search(r"(\w{20})  +run of", walk.said)
    assert snapshot, walk.said
    walk.places = {"R3DK6TW6V1ZCM33TF0NG": snapshot[1]}
    history = walk.python(DOCS / "history.md")["dataset"]
    with xr.open_zarr(walk.folder / "t2m.zarr") as store:
        xr.testing.assert_identical(history.load(), store.load())


def test_static_fields_and_regridding_as_the_weather_page_says(walk: Walk, tmp_path: Path):
    latitudes, longitudes = np.linspace(-60, 60, 8), np.linspace(0, 300, 8)
    globe = np.linspace(-87.1875, 87.1875, 32), np.arange(64) * 5.625
    fields = constants().interp(lat=latitudes, lon=longitudes, method="nearest")
    (tmp_path / "constants").mkdir()
    fields.to_netcdf(tmp_path / "constants" / "constants_5.625deg.nc")
    # The resolution is twice that of `--regrid 5.625`.
    fine = tmp_path / "era5"
    write_globe(fine, (2 * len(globe[0]), 2 * len(globe[1])))
    walk.places = {
        "2m_temperature": walk.places["FOLDER"],
        "constants": str(tmp_path / "constants"),
        "FOLDER": str(fine),
    }
    walk.page(DOCS / "weather.md")
    assert xr.open_zarr(tmp_path / "era5.zarr")["t2m"].shape[1:] == (32, 64)
    assert (tmp_path / "forecast.nc").exists()
    names = walk.python(DOCS / "weather.md")
    static = names["static"]
    torch.testing.assert_close(static.mean((1, 2)), torch.zeros(2), rtol=0, atol=1e-5)
    frames = torch.randn(1, 2, 1, 8, 8)
    with torch.no_grad():
        bound, given = names["model"](frames, 1), names["model"](frames, 1, static=static)
        assert not torch.equal(bound, names["model"](frames, 1, static=-static))
    torch.testing.assert_close(bound, given)


def write_globe(folder: Path, shape: tuple[int, int]) -> None:
    """Write two days of hourly fields on a regular grid of the globe."""
    folder.mkdir()
    rows, columns = shape
    half = 90 / rows
    times = hourly("2018-03-01", 48)
    values = np.random.default_rng(0).normal(280, 5, (48, *shape)).astype(np.float32)
    coordinates = {
        "time": times,
        "latitude": np.linspace(-90 + half, 90 - half, rows),
        "longitude": np.arange(columns) * 360 / columns,
    }
    attributes = {"units": "K"}
    data = {"t2m": (("time", "latitude", "longitude"), values, attributes)}
    xr.Dataset(data, coordinates).to_netcdf(folder / "march.nc")


def test_radar_composites_as_their_page_says(walk: Walk, composites: str):
    walk.places = {"FOLDER": composites, "128x128": "4x4"}
    walk.runs = {"RUN": of_radar("RUN")}
    walk.page(DOCS / "radar.md")
    assert (walk.folder / "forecast.nc").exists()
    assert xr.open_zarr(walk.folder / "radar.zarr")["reflectivity"].shape[1:] == (4, 4)
    functions = ("recognises", "times", "quantities", "read")
    given = {name: getattr(bom_rf3, name) for name in functions}
    assert walk.python(DOCS / "radar.md", **given)["FORMAT"] == bom_rf3.FORMAT


@pytest.fixture(scope="module")
def composites(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Write FOLDER of the radar pages: ten hours of KNMI composites."""
    folder = tmp_path_factory.mktemp("composites")
    return str(knmi_folder(folder, five_minutes("2021-06-07T08:00", 120)))


def test_the_example_of_clips_runs(walk: Walk, tmp_path: Path):
    people = {f"person{n:02d}_walking_d1": 45 for n in (1, 2, 11, 12, 13, 14, 22)}
    write_kth(tmp_path / "kth", people, (64, 64))
    walk.places = {"FOLDER": str(tmp_path / "kth")}
    walk.page(DOCS / "adding-an-archive.md")


def of_radar(run: str, **changes: Any) -> Callable[[Path], None]:
    """Return a function that writes a run on the folder's `radar.zarr`, with these options."""

    def make(folder: Path) -> None:
        options = small_options(str(folder / "radar.zarr"), str(folder / run))
        model = dataclasses.replace(options.model, options=changes)
        write_untrained_run(dataclasses.replace(options, model=model))

    return make


def test_forecasts_and_scores_as_their_page_says(quickstart: Walk, composites: str):
    def again(name: str) -> Callable[[Path], None]:
        return lambda folder: (folder / name).symlink_to(folder / "runs/first")

    walk = Walk(
        quickstart.folder,
        # Two workers replace the page's eight.
        {"FOLDER": composites, "8": "2", "20": "3"},
        {
            "runs/a": again("runs/a"),
            "runs/b": again("runs/b"),
            "runs/radar": of_radar("runs/radar"),
            "runs/ensemble": of_radar("runs/ensemble", noise=1),
        },
    )
    walk.page(DOCS / "forecasts.md", skip=quickstart.walked)
    period = json.loads((quickstart.folder / "forecasts.zarr/zarr.json").read_text())
    assert period["consolidated_metadata"]["metadata"]
    assert (quickstart.folder / "comparison.csv").read_text().count("\n") > 10
    frames = newest_frames(quickstart)
    names = walk.python(DOCS / "forecasts.md", frames=frames)
    made = names["forecasts"]
    assert made["t2m"].dims == ("init_time", "lead_time", "latitude", "longitude")
    assert made["t2m"].attrs["units"] == "K"
    assert made["valid_time"].dims == ("init_time", "lead_time")
    check_exported(names, frames)


def newest_frames(quickstart: Walk) -> np.ndarray:
    """Return the newest frames of the store: (12, 1, 8, 8) in kelvin."""
    with xr.open_zarr(quickstart.folder / "t2m.zarr") as store:
        return store["t2m"].values[-12:, None]


def check_exported(names: dict[str, Any], frames: np.ndarray) -> None:
    """Check that a page's forecast by an exported model is in kelvin and has the stated length."""
    assert names["forecast"].shape == (12, 1, 8, 8)
    assert abs(names["forecast"].mean() - frames.mean()) < 10
    np.testing.assert_allclose(names["forecast"], names["forecaster"](frames), rtol=1e-5)


def test_training_an_ensemble_as_the_page_of_models_says(quickstart: Walk, tmp_path: Path):
    walk = Walk(tmp_path)
    (tmp_path / "t2m.zarr").symlink_to(quickstart.folder / "t2m.zarr")
    walk.page(DOCS / "models.md")
    record = next((tmp_path / "runs/ensemble").glob("step_*/checkpoint.json"))
    assert json.loads(record.read_text())["options"]["training"]["loss"] == "crps"


@pytest.fixture
def minimal_gated(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Write the module that docs/adding-a-model.md shows, register the model, and return it."""
    [code] = page_python(DOCS / "adding-a-model.md")
    assert len(code.splitlines()) < 100
    module = ModuleType("gmg_model.models.minimal_gated")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(code, str(DOCS / "adding-a-model.md"), "exec"), module.__dict__)
    for name, function in module.MODELS.items():
        monkeypatch.setitem(registry._MODELS, name, function)
    return module


def test_the_model_of_the_page_is_trained_by_name(minimal_gated: ModuleType, quickstart: Walk):
    assert "minimal-gated" in list_models()
    walk = Walk(quickstart.folder)
    walk.page(DOCS / "adding-a-model.md")
    [run] = (quickstart.folder / "runs/minimal").glob("step_*")
    model = load_checkpoint(str(run)).model()
    assert isinstance(model, minimal_gated.MinimalStack)


def test_the_model_of_the_page_learns_and_forecasts_any_horizon(minimal_gated: ModuleType):
    torch.manual_seed(0)
    options = {"in_shape": (1, 8, 8), "patch_size": 2, "hidden": (8, 8), "filter_size": 3}
    model = create_model("minimal-gated", **options)
    frames = torch.randn(2, 6, 1, 8, 8)
    optimisation = Optimisation(model, OptimisationOptions(schedule="constant"), total_steps=2)
    losses = []
    for step in range(2):
        loss = optimisation.backward(model, frames, 4, None, weight=0.5).mean()
        optimisation.update(step, loss)
        losses.append(float(loss))
    assert losses[1] < losses[0]
    model.eval()
    with torch.no_grad():
        long = model(frames, 5)
        torch.testing.assert_close(model(frames, 2), long[:, :2])
        torch.testing.assert_close(model(frames.flip(0), 5).flip(0), long)


def test_what_the_page_of_training_says(quickstart: Walk, tmp_path: Path):
    walk = Walk(tmp_path, {"STORE": str(quickstart.folder / "t2m.zarr"), "RUN": "run"})
    walk.page(DOCS / "training.md")
    assert load_exported(tmp_path / "exported").record["window"]["horizon"] == 12
    frames = newest_frames(quickstart)
    check_exported(walk.python(DOCS / "training.md", frames=frames), frames)


def test_the_studies_of_real_archives_can_be_begun(shared: Path, tmp_path: Path):
    """A whole study trains for minutes; here a run of untrained weights replaces the training."""
    archives = tmp_path / "archives"
    archives.mkdir()
    for file in (*shared.glob("data/era5/*"), *shared.glob("data/traffic/*.h5")):
        (archives / file.name).symlink_to(file)
    walk = Walk(tmp_path, {"ARCHIVES/": f"{archives}/"})
    walk.page(DOCS / "real-data.md")
    assert len(list((tmp_path / "build").glob("*-report/scores.json"))) == 3


def test_every_command_of_every_page_is_run_or_says_why_not():
    here = Path(__file__).read_text()
    for page in PAGES:
        commands = page_commands(page)
        if any(command.startswith("python jobs/") for command in commands):
            walk = rf'(walk\.page\(|page = )(ROOT|DOCS) / "{page.name}"'
            assert page.name in NOT_WALKED or re.search(walk, here), page.name
        text = BLOCK.sub("", page.read_text())
        inline = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]
        for command in (
            *commands,
            *(code for code in inline if code.partition(" ")[0] in PROGRAMS),
        ):
            program, *words = command.split()
            known = program in (*NOT_HERE, *SHELL) or page.name in NOT_WALKED
            if program == "python":
                known = words[0].startswith(("jobs/", *OTHER_PYTHON))
            assert known, f"{page}: {command}"
