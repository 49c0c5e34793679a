"""Training from and to S3: the same losses and scores as on local paths, and clear errors."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import fsspec
import pytest

from jobs.training.options import TrainOptions
from jobs.training.run import checkpoints
from tests.support.processes.training_runs import job, losses, write_config
from tests.support.servers.object_storage import S3Server, s3_server, upload

__all__ = ["s3_server"]


@pytest.fixture(scope="module")
def options(
    finished_run: TrainOptions, s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> TrainOptions:
    """Return the options of the finished run, with store and run on S3."""
    bucket = s3_server.bucket()
    upload(finished_run.store, f"{bucket}/stores/flow.zarr")
    return dataclasses.replace(
        finished_run, store=f"{bucket}/stores/flow.zarr", run=f"{bucket}/runs/small"
    )


@pytest.fixture(scope="module")
def trained(
    options: TrainOptions, ray_cluster: None, tmp_path_factory: pytest.TempPathFactory
) -> TrainOptions:
    """Train on a Ray that was started beside the server."""
    config = write_config(options, tmp_path_factory.mktemp("config"))
    done = job("train_weatherbench.py", "--config", config)
    assert done.returncode == 0, done.stderr
    assert "trained 2 epochs, 48 steps" in done.stdout
    return options


def test_the_losses_equal_those_on_local_paths(
    trained: TrainOptions, finished_run: TrainOptions
) -> None:
    assert losses(trained.run) == losses(finished_run.run)
    there, here = (
        [(item.step, item.validation_loss) for item in checkpoints.list_checkpoints(place)]
        for place in (trained.run, finished_run.run)
    )
    assert len(there) > 1
    assert there == here


def test_a_finished_run_has_nothing_to_do(trained: TrainOptions, tmp_path: Path) -> None:
    before = objects(trained.run)
    done = job("train_weatherbench.py", "--config", write_config(trained, tmp_path))
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stdout
    assert objects(trained.run) == before


def test_a_checkpoint_is_scored_and_its_report_written_on_s3(trained: TrainOptions) -> None:
    report = f"{trained.run}-report"
    done = job(
        "evaluate.py",
        *("--checkpoint", trained.run, "--store", trained.store, "--report", report),
        *("--max_windows", "4", "--json"),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["report"] == f"{report}/report.html"
    written = {name.partition("/")[0] for name in objects(report)}
    assert written == {"report.html", "scores.json", "scores.csv", "fields.zarr", "sums.npz"}


def test_a_run_contains_no_key(trained: TrainOptions, s3_server: S3Server) -> None:
    secret = s3_server.environment["AWS_SECRET_ACCESS_KEY"].encode()
    contents = objects(trained.run)
    assert len(contents) > 10
    assert not [name for name, content in contents.items() if secret in content]


@pytest.mark.parametrize("option", ["store", "run"])
def test_a_wrong_key_is_refused_at_once(option: str, options: TrainOptions, tmp_path: Path) -> None:
    place = getattr(options, option)
    local = {"store": str(tmp_path / "none.zarr"), "run": str(tmp_path / "run")} | {option: place}
    done = job(
        "train_weatherbench.py",
        *("--store", local["store"], "--run", local["run"]),
        AWS_SECRET_ACCESS_KEY="wrong",
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert f"where: {place}" in done.stderr
    assert "AWS_SECRET_ACCESS_KEY" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_missing_bucket_is_named(options: TrainOptions, tmp_path: Path) -> None:
    done = job("train_weatherbench.py", "--store", options.store, "--run", "s3://nowhere/run")
    assert done.returncode == 2
    assert "the run cannot be written" in done.stderr
    assert "where: s3://nowhere/run" in done.stderr

    run = tmp_path / "run"
    done = job("train_weatherbench.py", "--store", "s3://nowhere/store", "--run", str(run))
    assert done.returncode == 4
    assert "where: s3://nowhere/store" in done.stderr
    assert not run.exists()


def test_an_unreachable_server_is_named(options: TrainOptions, tmp_path: Path) -> None:
    done = job(
        "train_weatherbench.py",
        *("--store", options.store, "--run", str(tmp_path / "run")),
        AWS_ENDPOINT_URL="http://127.0.0.1:1",
        AWS_MAX_ATTEMPTS="1",
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"where: {options.store}" in done.stderr
    assert "AWS_ENDPOINT_URL" in done.stderr


def objects(uri: str) -> dict[str, bytes]:
    fs, root = fsspec.core.url_to_fs(uri)
    fs.invalidate_cache()
    return {path[len(root) + 1 :]: fs.cat_file(path) for path in fs.find(root)}
