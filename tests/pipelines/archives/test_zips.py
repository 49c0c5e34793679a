"""Archives in zips, as WeatherBench and the Climate Data Store publish them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from pipelines.archives import load_archive
from pipelines.archives.contents import ArchiveIndex
from pipelines.archives.series.archive import SeriesArchive, index_archive
from pipelines.archives.sources.finding import find_files
from pipelines.archives.sources.reading import reading
from pipelines.archives.sources.zips import place_of
from pipelines.conversion.estimate import planned_store
from pipelines.conversion.options import ConversionOptions
from pipelines.conversion.plan import make_plan
from pipelines.errors import SourceError
from pipelines.stream.manifest import window_counts
from pipelines.stream.windows import WindowSpec
from tests.support.archives.small_archives import (
    fields,
    hourly,
    write_days,
    write_netcdf,
    year_name,
)


def zipped(folder: Path, target: Path, below: str = "") -> Path:
    """Zip all files of a folder; `below` is a prefix of the members' names."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(folder.iterdir()):
            packed.write(path, f"{below}{path.name}")
    return target


def weatherbench() -> SeriesArchive:
    archive = load_archive("weatherbench")
    assert isinstance(archive, SeriesArchive)
    return archive


def index(source: Path) -> ArchiveIndex:
    return index_archive(weatherbench(), str(source))


def decoded(found: ArchiveIndex) -> np.ndarray:
    variable, frames = found.variables[0], []
    for number, file in enumerate(found.files):
        with reading(file) as path, weatherbench().decoder(path, file) as decode:
            frames.append(decode("t2m", variable.positions[variable.files == number]))
    return np.concatenate(frames)


@pytest.mark.parametrize("place", ["a/t2m.zip", "a", "a/*.zip"])
def test_a_zip_is_read_as_a_file_in_a_folder_or_by_a_glob(tmp_path: Path, place: str):
    packed = zipped(write_days(tmp_path / "days", 1, 2), tmp_path / "a" / "t2m.zip", below="2m/")
    found = index(tmp_path / place)
    names = [f"2m/2m_temperature_day0{day}_5.625deg.nc" for day in (1, 2)]
    assert [file.uri for file in found.files] == [f"{packed}!{name}" for name in names]
    assert [file.name for file in found.files] == [f"t2m.zip!{name}" for name in names]
    assert [place_of(file.uri) for file in found.files] == [(str(packed), name) for name in names]
    np.testing.assert_array_equal(decoded(found), fields(hourly("2010-01-01", 48)))


def test_nothing_is_unpacked_beside_a_zip(tmp_path: Path):
    packed = zipped(write_days(tmp_path / "days", 1), tmp_path / "a" / "t2m.zip")
    decoded(index(packed))
    assert [path.name for path in packed.parent.iterdir()] == ["t2m.zip"]


def test_zips_and_plain_files_form_one_archive(tmp_path: Path):
    zipped(write_days(tmp_path / "days", 1), tmp_path / "a" / "t2m.zip")
    write_days(tmp_path / "a", 2)
    assert len(index(tmp_path / "a").variables[0].times) == 48


def test_a_member_that_also_lies_unpacked_beside_its_zip_is_read_once(tmp_path: Path):
    days = write_days(tmp_path / "a", 1, 2)
    zipped(days, days / "t2m.zip")
    found = index(days)
    assert [place_of(file.uri) for file in found.files] == [None, None]
    assert found.notes == ()


def test_members_of_other_kinds_are_ignored(tmp_path: Path):
    packed = zipped(write_days(tmp_path / "days", 1), tmp_path / "t2m.zip")
    with zipfile.ZipFile(packed, "a") as more:
        more.writestr("__MACOSX/._a.nc", b"resource fork")
        more.writestr("README.txt", b"about")
        more.mkdir("empty")
    assert len(index(packed).files) == 1


def test_a_member_keeps_its_version_when_the_zip_is_copied(tmp_path: Path):
    packed = zipped(write_days(tmp_path / "days", 1), tmp_path / "a" / "t2m.zip")
    again = zipped(tmp_path / "days", tmp_path / "b" / "t2m.zip")
    one, other = find_files(str(packed), (".nc",), "weatherbench")[0], index(again).files[0]
    assert (one.name, one.size, one.etag) == (other.name, other.size, other.etag)
    keys = [
        [task.key for task in make_plan(index(source), ConversionOptions(), None).tasks]
        for source in (packed, again)
    ]
    assert keys[0] == keys[1]


def test_a_member_that_changed_after_planning_raises_an_error(tmp_path: Path):
    packed = zipped(write_days(tmp_path / "days", 1), tmp_path / "t2m.zip")
    found = index(packed)
    write_netcdf(next((tmp_path / "days").iterdir()), hourly("2010-02-01", 24))
    zipped(tmp_path / "days", packed)
    with pytest.raises(SourceError, match="changed in its zip"):
        decoded(found)


def test_a_member_that_is_missing_after_planning_raises_an_error(tmp_path: Path):
    packed = zipped(write_days(tmp_path / "days", 1), tmp_path / "t2m.zip")
    found = index(packed)
    with zipfile.ZipFile(packed, "w") as empty:
        empty.writestr("other.nc", b"")
    with pytest.raises(SourceError, match="no longer holds '2m_temperature_day01"):
        decoded(found)


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_truncated_zip_raises_an_error_that_names_it(tmp_path: Path, kept: float):
    packed = zipped(write_days(tmp_path / "days", 1), tmp_path / "t2m.zip")
    packed.write_bytes(packed.read_bytes()[: int(packed.stat().st_size * kept)])
    with pytest.raises(SourceError, match="zip is damaged: it is truncated") as raised:
        index(packed)
    assert "t2m.zip" in str(raised.value.where)
    assert raised.value.exit_code == 3


def test_a_damaged_member_raises_an_error_that_names_it(tmp_path: Path):
    packed = zipped(write_days(tmp_path / "days", 1), tmp_path / "t2m.zip")
    content = bytearray(packed.read_bytes())
    content[len(content) // 2] ^= 0xFF
    packed.write_bytes(bytes(content))
    with pytest.raises(SourceError, match=r"day01_5\.625deg\.nc' cannot be unpacked"):
        index(packed)


def test_an_encrypted_member_raises_an_error_with_a_remedy(tmp_path: Path):
    packed = zipped(write_days(tmp_path / "days", 1), tmp_path / "t2m.zip")
    content = bytearray(packed.read_bytes())
    # Set the flag for encryption in the header of the member and in the directory of the zip.
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    packed.write_bytes(bytes(content))
    with pytest.raises(SourceError, match="is encrypted") as raised:
        index(packed)
    assert "unpack it with its password" in str(raised.value.remedy)


def test_a_zip_without_a_file_of_the_archive_raises_an_error(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "t2m.zip", "w") as packed:
        packed.writestr("README.txt", b"about")
    with pytest.raises(SourceError, match="no files found in the zip"):
        index(tmp_path / "t2m.zip")


@pytest.fixture(scope="module")
def nine_years(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zip of the published years, hourly, on a grid of two pixels."""
    folder = tmp_path_factory.mktemp("weatherbench")
    for year in range(2010, 2019):
        hours = 24 * (366 if year % 4 == 0 else 365)
        write_netcdf(
            folder / "years" / year_name(year),
            hourly(f"{year}-01-01", hours),
            values=np.full((hours, 1, 2), 280, np.float32),
            encoding={"zlib": True},
        )
    return zipped(folder / "years", folder / "2m_temperature_5.625deg.zip")


def test_the_published_years_give_the_window_counts_of_the_papers(nine_years: Path):
    found = index(nine_years)
    plan = make_plan(
        found, ConversionOptions(), weatherbench().protocol_splits(found.variables[0].times)
    )
    assert plan.splits.origin == "protocol"
    assert len(plan.times) == 78_888
    store, spec = planned_store(plan, "t2m.zarr"), WindowSpec(12, 12)
    assert window_counts(store, spec, counting="openstl") == {
        "train": 52_559,
        "validation": 8_759,
        "test": 17_495,
    }
    assert window_counts(store, spec) == {
        "train": 52_561,
        "validation": 8_761,
        "test": 17_497,
    }
