"""Finding source files: links, glob characters in names, and missing permissions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.archives.sources.finding import find_files, find_tree
from pipelines.archives.sources.reading import check_unchanged
from pipelines.conversion.convert import ConversionRequest, plan_conversion
from pipelines.errors import NoFilesError, SourceError, UsageError
from pipelines.storage import places
from tests.conftest import ROOT

ENDINGS = (".nc",)


def names(source: Path) -> list[str]:
    return [file.name for file in find_files(str(source), ENDINGS, "era5")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one file and a link to a file that lies elsewhere."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.nc").write_bytes(b"two")
    folder = tmp_path / "archive"
    folder.mkdir()
    (folder / "a.nc").write_bytes(b"one")
    (folder / "b.nc").symlink_to("../elsewhere/b.nc")
    return folder


def test_links_to_files_and_folders_are_followed(folder: Path, tmp_path: Path):
    assert names(folder) == ["a.nc", "b.nc"]
    assert names(folder / "*.nc") == ["a.nc", "b.nc"]
    above = tmp_path / "above"
    above.mkdir()
    (above / "linked").symlink_to(folder)
    assert names(above) == ["a.nc", "b.nc"]
    assert [f.name for f in find_tree(str(above), ENDINGS, "kth")] == ["linked/a.nc", "linked/b.nc"]


def test_a_changed_target_of_a_link_raises_an_error(folder: Path, tmp_path: Path):
    linked = find_files(str(folder), ENDINGS, "era5")[1]
    check_unchanged(linked)
    (tmp_path / "elsewhere" / "b.nc").write_bytes(b"second version")
    with pytest.raises(SourceError, match="changed"):
        check_unchanged(linked)


def test_a_circle_of_links_lists_every_file_once(folder: Path):
    (folder / "again").symlink_to(folder)
    (folder / "below").mkdir()
    (folder / "below" / "up").symlink_to("..")
    assert names(folder) == ["a.nc", "b.nc"]
    assert [f.name for f in find_tree(str(folder), ENDINGS, "kth")] == ["a.nc", "b.nc"]


@pytest.mark.parametrize("target", ["gone.nc", "c.nc"], ids=["to nothing", "to itself"])
@pytest.mark.parametrize("find", [find_files, find_tree])
def test_a_link_to_nothing_raises_an_error_with_its_path(folder: Path, target: str, find):
    (folder / "c.nc").symlink_to(target)
    with pytest.raises(SourceError, match="link to nothing") as raised:
        find(str(folder), ENDINGS, "era5")
    assert raised.value.where == str(folder / "c.nc")


def test_a_folder_with_glob_characters_in_its_name_is_that_folder(folder: Path, tmp_path: Path):
    signs = tmp_path / "run [1] ünï*"
    shutil.copytree(folder, signs)
    assert names(signs) == ["a.nc", "b.nc"]


def test_the_error_for_files_of_another_archive_names_that_archive(tmp_path: Path):
    (tmp_path / "X.GRIB").write_bytes(b"")
    request = ConversionRequest("weatherbench", str(tmp_path), str(tmp_path / "store"))
    with pytest.raises(NoFilesError, match="no files found") as raised:
        plan_conversion(request)
    assert raised.value.remedy == (
        "archive 'weatherbench' reads files ending in .nc: give their folder, or one file; "
        "what is in the folder may be for --archive era5"
    )


_WITHOUT_PERMISSION = """
import sys
from pipelines.storage import places
from pipelines.archives.sources.finding import find_tree
from pipelines.archives.sources.finding import find_files
from pipelines.errors import PlatformError
for action in (
    lambda: find_files(sys.argv[1], (".nc",), "era5"),
    lambda: find_tree(sys.argv[1], (".nc",), "kth"),
    lambda: find_files(sys.argv[1] + "/closed", (".nc",), "era5"),
    lambda: places.read_bytes(sys.argv[1] + "/a.nc"),
    lambda: places.write_bytes(sys.argv[1] + "/closed/new", b""),
):
    try:
        action()
        print("no error")
    except PlatformError as error:
        print(error.exit_code, str(error).replace("\\n", ";"))
"""


def test_missing_permissions_raise_an_error_with_the_path(folder: Path):
    (folder / "closed").mkdir()
    (folder / "closed").chmod(0)
    (folder / "a.nc").chmod(0)
    # Root may read everything, unless the process drops these capabilities.
    rights = "-dac_override,-dac_read_search"
    dropped = ["setpriv", "--bounding-set", rights, "--inh-caps", "-all"]
    command = [sys.executable, "-c", _WITHOUT_PERMISSION, str(folder)]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may read everything, and setpriv, which changes that, is missing")
        command = [*dropped, *command]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    (folder / "closed").chmod(0o755)
    file, tree, listing, reading, writing = done.stdout.splitlines()
    assert file.startswith("3 a source file cannot be read: permission denied")
    assert str(folder / "a.nc") in file
    for line in (tree, listing):
        assert line.startswith("3 the source cannot be listed")
        assert "chmod" in line
    assert reading.startswith("2 reading failed: Permission denied")
    assert writing.startswith("2 writing failed: Permission denied")


@pytest.mark.parametrize("place", ["s3://", "s3:///store", "s3:/bucket/store", "gs:store", " "])
def test_a_uri_without_a_bucket_raises_an_error(place: str):
    with pytest.raises(UsageError, match=r"bucket is missing|is empty"):
        places.filesystem(place)


def test_writing_below_a_file_raises_an_error(folder: Path):
    with pytest.raises(UsageError, match="nothing can be written here"):
        places.write_bytes(str(folder / "a.nc" / "new"), b"")
