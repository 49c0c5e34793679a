"""Conversions with faults: a dead node, a full disk, a truncated source, a flipped bit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.conversion.convert import convert
from pipelines.conversion.options import ConversionOptions, ConversionRequest
from pipelines.errors import SourceError
from tests.pipelines.conversion.test_convert import content
from tests.support.archives.small_archives import hourly, write_days, write_netcdf
from tests.support.processes.barrier import Barrier, barrier
from tests.support.processes.training_runs import ROOT, job

__all__ = ["barrier"]

SMALL = ConversionOptions(chunk_frames=8, shard_frames=16)
SHARDS = 60


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    write_netcdf(folder / "a.nc", hourly("2010-01-01", 16 * SHARDS))
    return folder


@pytest.fixture(scope="module")
def cluster(barrier: Barrier) -> Iterator[Any]:
    """Start a cluster with a node of one CPU whose processes stop at the barrier."""
    import ray
    from ray.cluster_utils import Cluster

    node: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 * 1024**2}
    cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    try:
        ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(scope="module")
def undisturbed(cluster: Any, archive: Path) -> dict[str, str]:
    store = archive.parent / "undisturbed"
    convert(ConversionRequest("weatherbench", str(archive), str(store), SMALL))
    return content(store)


def test_a_conversion_goes_on_without_a_node_that_died(
    barrier: Barrier, cluster: Any, undisturbed: dict[str, str], archive: Path, tmp_path: Path
):
    node = cluster.add_node(num_cpus=1, object_store_memory=100 * 1024**2)
    cluster.wait_for_nodes()
    request = ConversionRequest(
        "weatherbench", str(archive), str(tmp_path / "s"), SMALL, shared_paths=True
    )

    def kill_the_node(worker: int) -> None:
        cluster.remove_node(node, allow_graceful=False)

    # A worker, on this node or on the other one, waits at the barrier while the node is killed.
    with barrier.at(r"/\.ledger/t2m/000010\.json$", kill_the_node):
        report = convert(request)
    assert report.shards_written == SHARDS
    assert content(tmp_path / "s") == undisturbed


def test_a_source_that_is_cut_off_during_the_run_stops_it_and_nothing_wrong_is_kept(
    barrier: Barrier, cluster: Any, undisturbed: dict[str, str], archive: Path, tmp_path: Path
):
    source = tmp_path / "a"
    source.mkdir()
    whole = (archive / "a.nc").read_bytes()
    (source / "a.nc").write_bytes(whole)

    def cut_off(worker: int) -> None:
        (source / "a.nc").write_bytes(whole[: len(whole) // 2])

    # The worker that waits at the barrier has not yet converted shards 6 and 7.
    request = ConversionRequest("weatherbench", str(source), str(tmp_path / "s"), SMALL)
    with (
        pytest.raises(SourceError, match=r"changed while|cannot be") as stopped,
        barrier.at(r"/\.ledger/t2m/000005\.json$", cut_off),
    ):
        convert(request)
    assert "a.nc" in str(stopped.value.where)
    assert not (tmp_path / "s" / "zarr.json").exists()
    with pytest.raises(SourceError) as refused:
        convert(request)
    assert "a.nc" in str(refused.value.where)
    (source / "a.nc").write_bytes(whole)
    convert(request)
    # Ledger records differ: they name the version of the source file, which has changed.
    assert data(tmp_path / "s") == {n: c for n, c in undisturbed.items() if ".ledger" not in n}


def data(store: Path) -> dict[str, str]:
    return {name: digest for name, digest in content(store).items() if ".ledger" not in name}


def test_one_turned_bit_is_found_and_repair_mends_that_shard_alone(archive: Path, tmp_path: Path):
    store = str(tmp_path / "s")
    arguments = ("--archive", "weatherbench", "--source", str(write_days(tmp_path / "a", 1, 2)))
    sizes = ("--chunk_frames", "8", "--shard_frames", "16")
    assert job("reprocess.py", "convert", *arguments, "--store", store, *sizes).returncode == 0
    whole = content(Path(store))
    rotten = Path(store) / "t2m" / "c" / "1" / "0" / "0"
    data = bytearray(rotten.read_bytes())
    data[len(data) // 3] ^= 0b100
    rotten.write_bytes(data)
    times = {path: path.stat().st_mtime_ns for path in Path(store).glob("t2m/c/*/0/0")}
    found = job("reprocess.py", "verify", "--store", store, "--json")
    assert found.returncode == 4
    [problem] = json.loads(found.stdout.splitlines()[-1])["problems"]
    assert (problem["kind"], problem["place"]) == ("altered", "t2m/c/1/0/0")
    repaired = job("reprocess.py", "convert", *arguments, "--store", store, "--repair")
    assert repaired.returncode == 0, repaired.stderr
    touched = [path for path, time in times.items() if path.stat().st_mtime_ns != time]
    assert touched == [rotten]
    assert content(Path(store)) == whole


# Converts onto a small disk, enlarges the disk, and converts again. The script runs in a mount
# namespace of its own, so that the mounts end with its process.
_ON_A_SMALL_DISK = """
mount -t tmpfs -o size=192k tmpfs "$1" || exit 90
"$2" jobs/reprocess.py convert --archive weatherbench --source "$3" --store "$1/s" $4 >&2
first=$?
ls "$1/s/zarr.json" 2>/dev/null
mount -o remount,size=64m "$1" || exit 91
"$2" jobs/reprocess.py convert --archive weatherbench --source "$3" --store "$1/s" >&2 || exit 92
cp -r "$1/s" "$5"
exit $first
"""


def test_a_full_disk_ends_the_run_and_with_room_the_same_command_finishes_it(
    archive: Path, undisturbed: dict[str, str], tmp_path: Path
):
    disk, copy = tmp_path / "disk", tmp_path / "copy"
    disk.mkdir()
    sizes = "--chunk_frames 8 --shard_frames 16 --workers 1"
    done = subprocess.run(
        [
            *(
                "unshare",
                "--user",
                "--map-root-user",
                "--mount",
                "sh",
                "-c",
                _ON_A_SMALL_DISK,
                "sh",
            ),
            *(str(disk), sys.executable, str(archive), sizes, str(copy)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    if "unshare" in done.stderr or done.returncode == 90:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    assert done.returncode == 1, done.stderr
    assert "No space left on device" in done.stderr
    assert f"where: {disk}" in done.stderr
    assert "Traceback" not in done.stderr
    assert "zarr.json" not in done.stdout
    assert content(copy) == undisturbed
