"""Right and wrong keys never appear in the objects of a store, in output or in logs."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipelines.conversion.test_convert_object_storage import objects
from tests.support.archives.small_archives import write_days
from tests.support.processes.training_runs import job
from tests.support.servers.object_storage import S3Server, s3_server, upload

__all__ = ["s3_server"]

SIZES = ("--chunk_frames", "8", "--shard_frames", "16")


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Yield a folder for Ray's logs and sockets; it is short because paths of sockets must be."""
    folder = Path(tempfile.mkdtemp(prefix="r"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def source(s3_server: S3Server, tmp_path: Path) -> str:
    bucket = s3_server.bucket()
    write_days(tmp_path / "a", 1)
    upload(tmp_path / "a", f"{bucket}/archive")
    return f"{bucket}/archive"


def logs(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def without_keys(texts: dict[str, bytes], *keys: str) -> bool:
    assert sum(map(len, texts.values())) > 100
    return not [name for name, text in texts.items() if any(k.encode() in text for k in keys)]


def test_right_keys_appear_nowhere(s3_server: S3Server, source: str, ray_folder: Path):
    store = f"{source.rsplit('/', 1)[0]}/t2m.zarr"
    keys = [s3_server.environment[f"AWS_{name}"] for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")]
    arguments = ("--archive", "weatherbench", "--source", source, "--store", store, *SIZES)
    done = job("reprocess.py", "convert", *arguments, "--workers", "1", RAY_TMPDIR=str(ray_folder))
    assert done.returncode == 0, done.stderr
    checked = job("reprocess.py", "verify", "--store", store, "--source", source)
    assert checked.returncode == 0, checked.stderr
    said = {"convert": done.stdout + done.stderr, "verify": checked.stdout + checked.stderr}
    assert without_keys({name: text.encode() for name, text in said.items()}, *keys)
    assert without_keys(objects(store), *keys)
    found = logs(ray_folder)
    assert any("raylet" in name for name in found)
    assert without_keys(found, *keys)


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_keys_are_refused_and_not_repeated(
    s3_server: S3Server, source: str, tmp_path: Path, name: str
):
    wrong = uuid.uuid4().hex
    right = s3_server.environment["AWS_SECRET_ACCESS_KEY"]
    store = f"{source.rsplit('/', 1)[0]}/t2m.zarr"
    arguments = ("convert", "--archive", "weatherbench", *SIZES)
    to = job("reprocess.py", *arguments, "--source", source, "--store", store, **{name: wrong})
    local = ("--store", str(tmp_path / "s"))
    of = job("reprocess.py", *arguments, "--source", source, *local, **{name: wrong})
    assert (to.returncode, of.returncode) == (2, 3)
    for refused, place in ((to, store), (of, source)):
        assert place in refused.stderr
        assert "AWS_SECRET_ACCESS_KEY" in refused.stderr
        assert "Traceback" not in refused.stderr
        said = {"said": (refused.stdout + refused.stderr).encode()}
        assert without_keys(said, wrong, right)
