"""One command from a folder of radar composites to a scored forecaster."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

from tests.support.archives.radar_files import five_minutes, write_knmi
from tests.support.processes import shared_ray
from tests.support.processes.training_runs import job, script

SIZE = 32


def write_echoes(folder: Path, first: int, last: int) -> None:
    """KNMI composites of two echoes that cross the image, five minutes apart."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(float)
    times = five_minutes("2021-01-03T20:05", 200)
    for t in range(first, last):
        values = np.zeros((SIZE, SIZE))
        for row, start in ((9, 3), (22, 17)):
            column = (start + t) % (SIZE + 16) - 8
            distance = (y - row) ** 2 + (x - column) ** 2
            values = np.maximum(values, 150 * np.exp(-distance / 18))
        stamp = "".join(sign for sign in str(times[t]) if sign.isdigit())[:12]
        write_knmi(folder / f"RAD_{stamp}.h5", times[t], values.astype(np.uint8))


def train_radar(folder: Path, start: Callable[..., CompletedProcess[str]]) -> tuple[str, dict]:
    done = start(
        "train_radar.py",
        *("--source", str(folder / "composites"), "--run", str(folder / "run")),
        *("--resize", "16x16", "--use_gpu", "false", "--max_windows", "4"),
        *("--model.hidden", "[8,8]", "--model.patch_size", "2", "--model.filter_size", "3"),
        *("--model.attention_hidden", "4", "--data.input_frames", "3", "--data.horizon", "2"),
        *("--training.epochs", "1", "--training.global_batch", "8"),
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((folder / "run.report" / "scores.json").read_text())
    return done.stdout, result["variables"]["reflectivity"]["protocols"]


@pytest.mark.usefixtures("ray_cluster")
def test_a_folder_becomes_a_scored_model_and_the_same_command_repeats_nothing(
    tmp_path: Path,
) -> None:
    write_echoes(tmp_path / "composites", 0, 90)
    # A process of its own, in the Ray of the tests: starting two takes longer than the training.
    of_its_own = partial(script, RAY_ADDRESS=shared_ray.address())
    said, scores = train_radar(tmp_path, of_its_own)
    assert "trained 1 epochs" in said
    assert set(scores["strict"]) == {"model", "persistence", "extrapolation", "climatology"} - (
        {"climatology"} if "climatology: none" in said else set()
    )
    assert "csi_30" in scores["radar"]["model"]["overall"]
    assert (tmp_path / "run.report" / "report.html").exists()

    shutil.rmtree(tmp_path / "run.report")
    said, again = train_radar(tmp_path, job)
    assert said.count("nothing to do") == 2
    assert again == scores


def test_a_folder_without_composites_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "composites").mkdir()
    (tmp_path / "composites" / "readme.txt").write_text("no radar")
    done = job(
        "train_radar.py",
        *("--source", str(tmp_path / "composites"), "--run", str(tmp_path / "run")),
    )
    assert done.returncode == 3
    assert str(tmp_path / "composites") in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["composites"]
