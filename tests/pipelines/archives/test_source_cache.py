"""Kept copies of sources: fetched once per node, limited in size, removed at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.archives.contents import SourceFile
from pipelines.archives.sources.cache import SourceCache, kept_copies, local_copy
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the test that serves as the node's folder for temporary files."""
    folder = tmp_path / "node"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    tempfile.tempdir = None


class Source:
    """A remote source that counts how often it is fetched from."""

    def __init__(self, size: int = 100):
        self.fetched: list[str] = []
        self.size = size

    def read(self, name: str, version: str = "1") -> str:
        """Read a file, and return the path of its copy."""
        with self.reading(name, version) as path:
            return path

    def reading(self, name: str, version: str = "1"):
        def fetch(path: str) -> None:
            self.fetched.append(name)
            Path(path).write_bytes(name.encode() * self.size)

        return local_copy(SourceFile(f"s3://bucket/{name}", self.size, version), name, fetch)


def test_a_file_is_fetched_once_and_its_copy_is_removed_after_the_block(temporary_folder: Path):
    source = Source()
    with kept_copies():
        paths = {source.read("a") for _ in range(3)}
        assert source.fetched == ["a"]
        assert Path(paths.pop()).read_bytes() == b"a" * 100
        assert not paths
    assert list(temporary_folder.iterdir()) == []


def test_another_version_of_a_file_is_fetched_anew():
    source = Source()
    with kept_copies():
        assert source.read("a", version="1") != source.read("a", version="2")
    assert source.fetched == ["a", "a"]


def test_the_copy_that_was_unused_for_the_longest_time_is_removed_first():
    source = Source()
    with kept_copies(limit_bytes=250):
        for name in ("a", "b", "a", "c", "a", "b"):
            source.read(name)
    assert source.fetched == ["a", "b", "c", "b"]


def test_a_copy_that_is_being_read_is_not_removed():
    source = Source()
    with kept_copies(limit_bytes=150) as cache, source.reading("a") as a:
        b = source.read("b")
        assert Path(a).read_bytes() == b"a" * 100
        assert a.startswith(cache.folder)
        assert not b.startswith(cache.folder)
        assert not Path(b).exists()


def test_a_file_larger_than_the_cache_is_fetched_each_time():
    source = Source()
    with kept_copies(limit_bytes=99):
        source.read("a")
        source.read("a")
    assert source.fetched == ["a", "a"]


@pytest.mark.parametrize("limit", [None, 0])
def test_without_a_cache_a_copy_is_removed_after_reading(temporary_folder: Path, limit: int | None):
    source = Source()
    if limit is None:
        source.read("a")
    else:
        with kept_copies(limit):
            source.read("a")
    assert source.fetched == ["a"]
    assert list(temporary_folder.iterdir()) == []


def test_an_inner_block_uses_the_cache_of_the_outer_one():
    source = Source()
    with kept_copies() as outer:
        with kept_copies() as inner:
            source.read("a")
        assert inner is outer
        source.read("a")
    assert source.fetched == ["a"]


def test_a_failed_fetch_leaves_nothing_behind_and_the_next_one_succeeds():
    def failing(path: str) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("the connection was cut")

    source = Source()
    with kept_copies():
        with (
            pytest.raises(OSError, match="cut"),
            local_copy(SourceFile("s3://bucket/a", 100, "1"), "a", failing),
        ):
            pass
        assert Path(source.read("a")).read_bytes() == b"a" * 100


SCRIPT = """
import sys, time
from pathlib import Path
from pipelines.archives.contents import SourceFile
from pipelines.archives.sources.cache import SourceCache, local_copy

token, log, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])

def fetch(path):
    with open(log, "a") as file:
        file.write("fetched\\n")
    Path(path).write_bytes(b"half")
    print("fetching", flush=True)
    time.sleep(seconds)
    Path(path).write_bytes(b"whole")

with SourceCache(token=token).active():
    with local_copy(SourceFile("s3://bucket/a", 5, "1"), "a", fetch) as path:
        print(Path(path).read_text(), flush=True)
"""


def process(cache: SourceCache, log: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, cache.token, str(log), str(seconds)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ)


def test_processes_that_need_the_same_file_fetch_it_only_once(tmp_path: Path):
    cache, log = SourceCache(), tmp_path / "log"
    running = [process(cache, log, 0.3) for _ in range(4)]
    outputs = [one.communicate(timeout=300)[0].split() for one in running]
    assert sorted(len(output) for output in outputs) == [1, 1, 1, 2]
    assert all(output[-1] == "whole" for output in outputs)
    assert log.read_text().splitlines() == ["fetched"]
    cache.remove()


def test_a_killed_fetch_blocks_nobody_and_its_partial_copy_is_not_read(tmp_path: Path):
    cache, log = SourceCache(), tmp_path / "log"
    killed = process(cache, log, 600)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "fetching\n"
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    assert process(cache, log, 0).communicate(timeout=300)[0].split() == ["fetching", "whole"]


def test_the_folder_of_a_killed_conversion_is_removed_by_the_next_one(tmp_path: Path):
    left, source = SourceCache(), Source()
    assert process(left, tmp_path / "log", 0).communicate(timeout=300)[0]
    assert Path(left.folder).is_dir()
    with kept_copies():
        source.read("a")
        assert not Path(left.folder).exists()


def test_a_folder_that_a_process_uses_is_not_removed(tmp_path: Path):
    mine, source = SourceCache(), Source()
    with mine.active():
        source.read("a")
        other = SourceCache()
        assert process(other, tmp_path / "log", 0).communicate(timeout=300)[0]
        source.read("a")
    mine.remove()
    assert source.fetched == ["a"]
