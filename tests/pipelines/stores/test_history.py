"""The history of a store: one commit per conversion, and all of them can be read."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipelines.conversion.convert import convert
from pipelines.conversion.options import ConversionOptions, ConversionRequest
from pipelines.errors import StoreError, UsageError
from pipelines.stores import history
from pipelines.stores.history import commits, publish
from pipelines.stores.store import open_store
from tests.conftest import ROOT
from tests.support.archives.small_archives import fields, hourly, write_days
from tests.support.servers.moto_server import moto
from tests.support.servers.object_storage import S3Server

__all__ = ["moto"]

icechunk = pytest.importorskip("icechunk")


def converted(folder: Path, *days: int, repair: bool = False) -> str:
    """Convert these days, in shards of 16 hours; continue the store if there is one."""
    write_days(folder / "a", *days)
    options = ConversionOptions(chunk_frames=8, shard_frames=16)
    store = str(folder / "s")
    convert(ConversionRequest("weatherbench", str(folder / "a"), store, options, repair))
    return store


def read(repository: str, snapshot: str) -> xr.DataArray:
    """Return the variable as it was in a commit."""
    repo = icechunk.Repository.open(icechunk.local_filesystem_storage(repository))
    session = repo.readonly_session(snapshot_id=snapshot)
    return xr.open_zarr(session.store, consolidated=False).t2m.load()


@pytest.fixture(scope="module")
def two_days(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an archive of two days, 1 and 3 January, and its store."""
    folder = tmp_path_factory.mktemp("history")
    converted(folder, 1, 3)
    return folder


def test_each_conversion_is_one_commit_and_older_commits_stay_readable(
    two_days: Path, tmp_path: Path
):
    folder, history = tmp_path / "copy", str(tmp_path / "history")
    shutil.copytree(two_days, folder)
    store = str(folder / "s")
    first, new = publish(store, history)
    assert new
    assert first.changed == first.objects
    assert publish(store, history) == (first, False)
    converted(folder, 2)
    filled, _ = publish(store, history)
    assert 0 < filled.changed < filled.objects
    converted(folder, 4)

    # A shard that rots before it is published, and a publication that dies before its commit.
    rotten = Path(store) / "t2m" / "c" / "5" / "0" / "0"
    whole = rotten.read_bytes()
    rotten.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(StoreError, match="not as recorded") as refused:
        publish(store, history)
    assert refused.value.where == str(rotten)
    converted(folder, repair=True)
    assert rotten.read_bytes() == whole
    script = (
        "import os, signal, sys\nfrom pipelines.stores.history import publish\n"
        "publish(*sys.argv[1:], lambda done, total: os.kill(os.getpid(), signal.SIGKILL))"
    )
    command = [sys.executable, "-c", script, store, history]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    assert commits(history) == [filled, first]

    grown, _ = publish(store, history)
    assert commits(history) == [grown, filled, first]
    assert 0 < grown.changed < grown.objects
    values = fields(hourly("2010-01-01", 96))
    np.testing.assert_array_equal(read(history, grown.snapshot), values)
    np.testing.assert_array_equal(read(history, filled.snapshot), values[:72])
    before = read(history, first.snapshot).values
    assert np.isnan(before[24:48]).all()
    np.testing.assert_array_equal(before[:24], values[:24])
    assert grown.statistics_fingerprint == open_store(store).fingerprint
    assert grown.statistics_fingerprint != first.statistics_fingerprint


def test_a_history_may_lie_on_object_storage(two_days: Path, moto: S3Server):
    history = f"{moto.bucket()}/history"
    run, _ = publish(str(two_days / "s"), history)
    assert commits(history) == [run]


def test_a_missing_history_is_an_error_with_the_command_that_makes_one(tmp_path: Path):
    with pytest.raises(StoreError, match="no Icechunk repository") as refused:
        commits(str(tmp_path / "nowhere"))
    assert "publish" in str(refused.value.remedy)
    assert not (tmp_path / "nowhere").exists()


def test_a_place_with_other_files_or_without_permission_is_an_error(two_days: Path, tmp_path: Path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    store = str(two_days / "s")
    for place, message in (
        (tmp_path / "thesis", "something else than an Icechunk repository"),
        (tmp_path / "thesis" / "chapter1.tex", "is not a folder"),
        ("/proc/history", "cannot be written"),
    ):
        with pytest.raises(UsageError, match=message):
            publish(store, str(place))
    assert [path.name for path in tmp_path.rglob("*")] == ["thesis", "chapter1.tex"]


def test_an_unfinished_store_is_not_published(tmp_path: Path):
    with pytest.raises(StoreError):
        publish(str(tmp_path / "s"), str(tmp_path / "history"))
    assert not (tmp_path / "s").exists()


def test_a_missing_library_is_an_error_that_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "icechunk", None)
    with pytest.raises(UsageError, match="need icechunk") as refused:
        history.commits(str(tmp_path))
    assert "[icechunk]" in str(refused.value.remedy)
