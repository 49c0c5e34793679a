"""Conversions that are killed and run again end with the store of an undisturbed one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.convert import ConversionRequest, convert
from pipelines.plan import ConversionOptions
from tests.pipelines.clip_archives import write_digits
from tests.pipelines.small_archives import hourly, write_netcdf
from tests.pipelines.test_convert import content

ROOT = Path(__file__).resolve().parents[2]
SHARDS = 150
SMALL = ConversionOptions(chunk_frames=8, shard_frames=16)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of SHARDS shards in two files."""
    folder = tmp_path_factory.mktemp("archive")
    for first, name in (("2010-01-01", "a.nc"), ("2010-02-20", "b.nc")):
        write_netcdf(folder / name, hourly(first, 8 * SHARDS))
    return folder


@pytest.fixture(scope="module")
def undisturbed(archive: Path, ray_cluster: None) -> dict[str, str]:
    """The content of the store that nothing disturbed."""
    store = archive.parent / "undisturbed"
    convert(ConversionRequest("weatherbench", str(archive), str(store), SMALL))
    return content(store)


def records(store: Path) -> int:
    return len(list((store / ".ledger").glob("*/*.json")))


def wait_until_some_are_done(store: Path, process: subprocess.Popen[str]) -> None:
    while records(store) < SHARDS // 10:
        if process.poll() is not None:
            assert process.stderr is not None
            pytest.fail(f"the conversion ended before it could be killed: {process.stderr.read()}")
        time.sleep(0.005)


def test_a_killed_driver_is_continued(archive: Path, undisturbed: dict[str, str], tmp_path: Path):
    store = tmp_path / "s"
    command = [
        *(sys.executable, str(ROOT / "jobs" / "reprocess.py"), "convert"),
        *("--archive", "weatherbench", "--source", str(archive), "--store", str(store)),
        *("--chunk_frames", "8", "--shard_frames", "16", "--workers", "1"),
    ]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_until_some_are_done(store, process)
    process.kill()
    process.communicate()
    done = records(store)
    assert 0 < done < SHARDS
    assert not (store / "zarr.json").exists()
    (store / "t2m" / "c" / "0" / "0" / "0.0123.partial").write_bytes(b"half an object")
    report = convert(ConversionRequest("weatherbench", str(archive), str(store), SMALL))
    assert 0 < report.shards_skipped < SHARDS
    assert content(store) == undisturbed


def test_a_killed_conversion_of_clips_is_continued(ray_cluster: None, tmp_path: Path):
    digits = write_digits(tmp_path / "digits")
    clips = {"samples": SHARDS - 20, "validation_samples": 10, "test_samples": 10, "frames": 6}
    sizes = {"chunk_frames": 6, "shard_frames": 6}
    options = ConversionOptions(**sizes, archive_options=clips)
    convert(ConversionRequest("moving_mnist", str(digits), str(tmp_path / "whole"), options))
    store = tmp_path / "s"
    given = [word for name, n in {**clips, **sizes}.items() for word in (f"--{name}", str(n))]
    command = [
        *(sys.executable, str(ROOT / "jobs" / "reprocess.py"), "convert", *given),
        *("--archive", "moving_mnist", "--source", str(digits), "--store", str(store)),
        *("--workers", "1"),
    ]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_until_some_are_done(store, process)
    process.kill()
    process.communicate()
    assert not (store / "zarr.json").exists()
    report = convert(ConversionRequest("moving_mnist", str(digits), str(store)))
    assert 0 < report.shards_skipped < SHARDS
    assert content(store) == content(tmp_path / "whole")


def test_a_killed_task_is_done_again(archive: Path, undisturbed: dict[str, str], tmp_path: Path):
    killed: list[int] = []

    def kill_one(done: int, total: int) -> None:
        if done >= 5 and not killed:
            worker = next(iter(_workers_with_a_task()), None)
            if worker is not None:
                os.kill(worker, signal.SIGKILL)
                killed.append(worker)

    store = tmp_path / "s"
    convert(ConversionRequest("weatherbench", str(archive), str(store), SMALL), kill_one)
    assert len(killed) == 1
    assert content(store) == undisturbed


def _workers_with_a_task() -> list[int]:
    """Processes of this Ray's raylet that run a task of the conversion, or wait for the next."""
    from ray._private.worker import _global_node

    assert _global_node is not None
    raylet = _global_node.all_processes["raylet"][0].process.pid
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            name = (folder / "cmdline").read_bytes()
        except (OSError, IndexError):
            continue
        if parent == raylet and name.startswith((b"ray::Map", b"ray::IDLE")):
            found.append((not name.startswith(b"ray::Map"), int(folder.name)))
    return [pid for _, pid in sorted(found)]


def test_a_source_that_is_replaced_during_the_run_stops_it(archive: Path, tmp_path: Path):
    from pipelines.errors import SourceError

    copy = tmp_path / "archive"
    copy.mkdir()
    for path in archive.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())

    def replace(done: int, total: int) -> None:
        if done == 5:
            (copy / "b.nc").write_bytes((archive / "b.nc").read_bytes())

    request = ConversionRequest("weatherbench", str(copy), str(tmp_path / "s"), SMALL, workers=1)
    with pytest.raises(SourceError, match="changed while") as refused:
        convert(request, replace)
    assert "b.nc" in str(refused.value.where)
    assert not (tmp_path / "s" / "zarr.json").exists()
    assert convert(request).shards_skipped > 0
    assert (tmp_path / "s" / "zarr.json").exists()
