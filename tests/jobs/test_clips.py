"""Archives of clips, from the command line to scores."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from jobs.training.driver.job import train
from jobs.training.options import DataOptions, ModelOptions, TrainingOptions, TrainOptions
from jobs.training.plan import make_plan
from pipelines.conversion.convert import convert
from pipelines.conversion.options import ConversionOptions, ConversionRequest
from pipelines.errors import UsageError
from tests.support.archives.clip_archives import write_digits, write_shanghai
from tests.support.processes.training_runs import job, losses, small_options, write_untrained_run

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module")
def radar_store(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Write 9 train clips, 1 for validation and 2 for test, at 6 and then 12 minutes."""
    folder = tmp_path_factory.mktemp("shanghai")
    write_shanghai(folder / "archive", train=10, test=2)
    store = str(folder / "store.zarr")
    convert(ConversionRequest("shanghai2020", str(folder / "archive"), store))
    return store


def options(store: str, run: str, **data: int) -> TrainOptions:
    """Return the options of two steps of a small GMG-s."""
    return small_options(
        store,
        run,
        workers=1,
        model=ModelOptions(hidden=(8, 8), patch_size=2, filter_size=3, attention_hidden=4),
        data=DataOptions(**{"input_frames": 10, "horizon": 10, **data}, normalise="minmax"),
        training=TrainingOptions(epochs=1, global_batch=5, learning_rate=3e-3, seed=3),
    )


def test_a_model_of_clips_is_trained_and_scored_beside_persistence(
    radar_store: str, tmp_path: Path
):
    run = str(tmp_path / "run")
    train(options(radar_store, run))
    assert len(losses(run)) == 2
    done = job(
        "evaluate.py",
        *("--checkpoint", run, "--store", radar_store, "--report", str(tmp_path / "report")),
    )
    assert done.returncode == 0, done.stderr
    for words in ("sample 10 to sample 11", "+12 min", "+120 min", "persistence (skill"):
        assert words in done.stdout
    assert "climatology: none: clips have no calendar" in done.stdout
    result = json.loads((tmp_path / "report" / "scores.json").read_text())
    assert result["lead_seconds"] == [720 * lead for lead in range(1, 11)]
    scores = result["variables"]["reflectivity"]["protocols"]
    assert set(scores["strict"]) == {"model", "persistence", "extrapolation"}
    assert any(name.startswith("csi") for name in scores["radar"]["persistence"]["overall"])
    page = (tmp_path / "report" / "report.html").read_text()
    assert "clip test/00000, frame 10" in page
    # Pictures and the numbers of curves hold any four digits.
    words = re.sub(r'<svg.*?</svg>|"data:[^"]*"', "", page, flags=re.DOTALL)
    assert "1970" not in words


def test_part_of_a_clip_with_two_cadences_is_not_a_window(radar_store: str, tmp_path: Path):
    with pytest.raises(UsageError, match="is not a whole clip of 20"):
        make_plan(options(radar_store, str(tmp_path / "run"), input_frames=5))


def test_anomalies_of_clips_are_refused(radar_store: str, tmp_path: Path):
    asked = options(radar_store, str(tmp_path / "run"), anomalies=True)
    with pytest.raises(UsageError, match=r"(?s)clips have no calendar.*without --data\.anomalies"):
        make_plan(asked)


def test_scoring_the_train_clips_is_refused(radar_store: str, tmp_path: Path):
    run = str(tmp_path / "run")
    write_untrained_run(options(radar_store, run))
    done = job(
        "evaluate.py",
        *("--checkpoint", run, "--store", radar_store, "--report", str(tmp_path / "report")),
        *("--split", "train"),
    )
    assert done.returncode == 4
    assert "sample 0 to sample 8 overlaps sample 0 to sample 8" in done.stderr


def test_videos_are_scored_by_frames_and_not_by_hours(tmp_path: Path):
    write_digits(tmp_path / "archive")
    store, run = str(tmp_path / "store.zarr"), str(tmp_path / "run")
    few = {"samples": 5, "validation_samples": 0, "test_samples": 2, "frames": 5}
    request = ConversionOptions(archive_options=few)
    convert(ConversionRequest("moving_mnist", str(tmp_path / "archive"), store, request))
    write_untrained_run(options(store, run, input_frames=2, horizon=3))
    done = job(
        "evaluate.py",
        *("--checkpoint", run, "--store", store, "--report", str(tmp_path / "report"), "--json"),
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["lead_seconds"], result["lead_frames"]) == (None, [1, 2, 3])
    assert "+3 frames" in (tmp_path / "report" / "report.html").read_text()


def test_the_command_line_takes_the_options_of_an_archive(tmp_path: Path):
    folder = write_digits(tmp_path / "archive")
    place = ("--source", str(folder), "--store", str(tmp_path / "s"))
    asked = ("--samples", "6", "--validation_samples", "2", "--test_samples", "1", "--json")
    done = job("reprocess.py", "plan", "--archive", "moving_mnist", *place, *asked)
    assert done.returncode == 0, done.stderr
    assert "clips" in done.stdout
    assert "9 of 20 frames" in done.stdout
    assert "sample 8 to sample 8 (protocol)" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["samples"]["count"] == 9
    refused = job("reprocess.py", "plan", "--archive", "taxibj", *place, "--samples", "6")
    assert refused.returncode == 2
    assert "archive 'taxibj' has no option 'samples'" in refused.stderr
