"""The archive that docs/adding-an-archive.md shows works as written there."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from pipelines import archives
from pipelines.archives.sources.reading import reading
from pipelines.conversion.convert import plan_conversion
from pipelines.conversion.options import ConversionRequest
from pipelines.errors import SourceError
from tests.conftest import ROOT
from tests.support.pages.pages import DOCS, page_python

PAGE = DOCS / "adding-an-archive.md"


@pytest.fixture
def charts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of daily charts with a missing day; the module of the page is registered."""
    [code] = page_python(PAGE)
    assert len(code.splitlines()) < 100
    module = ModuleType("pipelines.archives.series.ice_charts")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(code, str(PAGE), "exec"), module.__dict__)
    entry = archives.ArchiveEntry("series.ice_charts")
    monkeypatch.setitem(archives.ARCHIVES, "ice_charts", entry)
    for day in (1, 2, 4):
        percent = np.random.default_rng(day).integers(0, 101, (24, 4, 6)).astype(np.uint8)
        percent[:, 0, 0] = 255
        np.savez(tmp_path / f"ice_2024030{day}.npz", concentration=percent)
    return tmp_path


def test_the_archive_of_the_page_finds_frames_gaps_and_values(charts: Path, tmp_path: Path):
    plan = plan_conversion(ConversionRequest("ice_charts", str(charts), str(tmp_path / "s")))
    assert plan.label(0) == "2024-03-01T00:00:00"
    assert (len(plan.times), plan.cadence_seconds) == (96, 3600)
    assert [frames for _, _, frames in plan.gaps()] == [24]
    archive = archives.load_archive("ice_charts")
    [_, file, _] = archive.find(str(charts))
    with reading(file) as path, archive.opener({})(path, file) as decode:
        values = decode("ice", np.array([3, 4]))
    truth = np.load(charts / file.name)["concentration"][3:5]
    assert values.dtype == np.float32
    assert np.isnan(values[:, 0, 0]).all()
    np.testing.assert_array_equal(values[:, 1:], truth[:, 1:])


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04cut off", b"a page that says 404"])
def test_a_damaged_file_raises_an_error_that_names_it(charts: Path, tmp_path: Path, content: bytes):
    (charts / "ice_20240305.npz").write_bytes(content)
    with pytest.raises(SourceError) as raised:
        plan_conversion(ConversionRequest("ice_charts", str(charts), str(tmp_path / "s")))
    assert "ice_20240305.npz" in str(raised.value.where)


def test_the_page_states_the_length_of_the_kth_module():
    lines = len((ROOT / "pipelines" / "archives" / "clips" / "kth.py").read_text().splitlines())
    assert lines < 100
    assert f"is {lines} lines" in PAGE.read_text()
