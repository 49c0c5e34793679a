"""Conversions that are killed and run again write the store of an undisturbed conversion."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.conversion.convert import convert
from pipelines.conversion.options import ConversionOptions, ConversionRequest
from pipelines.errors import SourceError
from tests.conftest import ROOT
from tests.pipelines.conversion.test_convert import content
from tests.support.archives.clip_archives import write_digits
from tests.support.archives.small_archives import hourly, write_netcdf
from tests.support.processes.barrier import Barrier, barrier
from tests.support.processes.processes import Family

__all__ = ["barrier"]

SHARDS = 150
SMALL = ConversionOptions(chunk_frames=8, shard_frames=16)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write an archive of SHARDS shards in two files."""
    folder = tmp_path_factory.mktemp("archive")
    for first, name in (("2010-01-01", "a.nc"), ("2010-02-20", "b.nc")):
        write_netcdf(folder / name, hourly(first, 8 * SHARDS))
    return folder


@pytest.fixture(scope="module")
def undisturbed(archive: Path, barrier: Barrier, ray_cluster: None) -> dict[str, str]:
    """Return the content of a store whose conversion was not disturbed."""
    store = archive.parent / "undisturbed"
    convert(ConversionRequest("weatherbench", str(archive), str(store), SMALL))
    return content(store)


def records(store: Path) -> int:
    return len(list((store / ".ledger").glob("*/*.json")))


def kill_in_the_middle(barrier: Barrier, store: Path, *arguments: str) -> None:
    """Run `reprocess.py convert` on one worker, and kill it just before it commits shard 40."""
    family = Family()
    command = [sys.executable, str(ROOT / "jobs" / "reprocess.py"), "convert", *arguments]
    command += ["--store", str(store), "--workers", "1"]
    with (
        barrier.before(r"/\.ledger/\w+/000040\.json$"),
        (store.parent / "log").open("w+") as log,
    ):
        environment = os.environ | family.environment
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        barrier.wait(lambda: process.poll() is None)
        family.alive()
        process.kill()
        process.wait()
        # The worker has no driver any more. It is ended too, so that nothing writes to the store.
        family.end(0)
    assert records(store) == 40
    assert not (store / "zarr.json").exists()


def test_a_killed_driver_is_continued(
    barrier: Barrier, archive: Path, undisturbed: dict[str, str], tmp_path: Path
):
    store = tmp_path / "s"
    sizes = ("--chunk_frames", "8", "--shard_frames", "16")
    source = ("--archive", "weatherbench", "--source", str(archive))
    kill_in_the_middle(barrier, store, *source, *sizes)
    (store / "t2m" / "c" / "0" / "0" / "0.0123.partial").write_bytes(b"half an object")
    report = convert(ConversionRequest("weatherbench", str(archive), str(store), SMALL))
    assert 0 < report.shards_skipped < SHARDS
    assert content(store) == undisturbed


def test_a_killed_conversion_of_clips_is_continued(
    barrier: Barrier, ray_cluster: None, tmp_path: Path
):
    digits = write_digits(tmp_path / "digits")
    clips = {"samples": SHARDS - 20, "validation_samples": 10, "test_samples": 10, "frames": 6}
    sizes = {"chunk_frames": 6, "shard_frames": 6}
    options = ConversionOptions(**sizes, archive_options=clips)
    convert(ConversionRequest("moving_mnist", str(digits), str(tmp_path / "whole"), options))
    store = tmp_path / "s"
    given = [word for name, n in {**clips, **sizes}.items() for word in (f"--{name}", str(n))]
    source = ("--archive", "moving_mnist", "--source", str(digits))
    kill_in_the_middle(barrier, store, *source, *given)
    report = convert(ConversionRequest("moving_mnist", str(digits), str(store)))
    assert 0 < report.shards_skipped < SHARDS
    assert content(store) == content(tmp_path / "whole")


def test_a_killed_task_is_done_again(
    barrier: Barrier, archive: Path, undisturbed: dict[str, str], tmp_path: Path
):
    store = tmp_path / "s"
    with barrier.at(r"/\.ledger/t2m/000040\.json$", lambda pid: os.kill(pid, signal.SIGKILL)):
        convert(ConversionRequest("weatherbench", str(archive), str(store), SMALL))
    assert content(store) == undisturbed


def test_a_source_that_is_replaced_during_the_run_stops_it(
    barrier: Barrier, archive: Path, tmp_path: Path
):
    copy = tmp_path / "archive"
    copy.mkdir()
    for path in archive.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())

    def replace(worker: int) -> None:
        (copy / "b.nc").write_bytes((archive / "b.nc").read_bytes())

    request = ConversionRequest("weatherbench", str(copy), str(tmp_path / "s"), SMALL, workers=1)
    with (
        pytest.raises(SourceError, match="changed while") as refused,
        barrier.at(r"/\.ledger/t2m/000005\.json$", replace),
    ):
        convert(request)
    assert "b.nc" in str(refused.value.where)
    assert not (tmp_path / "s" / "zarr.json").exists()
    assert convert(request).shards_skipped > 0
    assert (tmp_path / "s" / "zarr.json").exists()
