"""A test runs every Python block of the pages unchanged.

If the commands of a page are run in tests/test_walkthrough.py, its Python is run there after them.
"""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gmg_model.metrics import create_metrics
from tests.conftest import ROOT
from tests.support.pages.page_walk import Walk
from tests.support.pages.pages import BLOCK, DOCS, page_python

ALL_PAGES = sorted((*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("infra/**/*.md")))
RUN_BY = {
    "adding-an-archive.md": "pipelines/archives/test_adding_an_archive.py",
    "metrics.md": "test_page_python.py",
    "store-format.md": "test_store_format.py",
}
"""page -> the test module that runs its Python, if it is not tests/test_walkthrough.py"""


def test_the_scores_of_their_page_are_in_the_units_of_the_data(tmp_path: Path):
    truth_dbz = np.random.default_rng(0).uniform(10, 60, (4, 3, 1, 16, 16))
    forecast_dbz = truth_dbz + 2
    whole = create_metrics("radar", thresholds=(30, 40, 50), scales=(5,))
    another = create_metrics("radar", thresholds=(30, 40, 50), scales=(5,))
    whole.update(forecast_dbz, truth_dbz)
    another.update(forecast_dbz[2:], truth_dbz[2:])
    own: dict[str, Any] = {
        "forecast": forecast_dbz,
        "truth": truth_dbz,
        "batches": [(forecast_dbz[:2], truth_dbz[:2])],
        "another_workers": another,
        "clips_to_rows": lambda clips: clips.mean((1, 2, 3, 4))[:, None],
        "frames_to_layers": lambda frames: [frames, frames.square()],
    }
    names = Walk(tmp_path).python(DOCS / "metrics.md", **own)
    assert names["rmse"] == pytest.approx(2)
    assert set(names["scores"]) == {"overall", "per_lead"}
    assert names["scores"]["overall"] == pytest.approx(whole.result()["overall"])
    assert 0.5 < names["scores"]["overall"]["csi_40"] < 1
    assert len(names["scores"]["per_lead"]["csi_40"]) == 3
    features = names["perceptual"].result()["overall"]
    assert set(features) == {"lpips_i3d", "fvd_i3d"}
    # There is one feature. Its mean differs by 2 and its variance is the same.
    assert features["fvd_i3d"] == pytest.approx(4, rel=1e-3)


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.name)
def test_all_python_of_a_page_is_run(page: Path):
    if not page_python(page):
        assert page.name not in RUN_BY
        return
    # The test must take all blocks at once. Then a new block is run too, or the unpacking fails.
    if page.name in RUN_BY and RUN_BY[page.name] != Path(__file__).name:
        taken = r"^ +\[?[\w, ]+\]? = page_python\(PAGE\)$"
        named = f'^PAGE = DOCS / "{page.name}"$'
    else:
        taken = rf'(\.|\[\w+\] = page_)python\((ROOT|DOCS) / "{page.name}"'
        named = page.name
    source = (ROOT / "tests" / RUN_BY.get(page.name, "test_walkthrough.py")).read_text()
    assert re.search(named, source, re.M), page.name
    assert re.search(taken, source, re.M), f"{page.name}: Python that no test runs"


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.name)
def test_no_code_of_a_page_is_out_of_sight(page: Path):
    """The tests find commands and Python only by fences of one form; pages use no other form."""
    text = page.read_text()
    blocks = BLOCK.findall(text)
    fences = re.findall(r"```|~~~|<pre|<code|^ *>>> ", text, re.M)
    assert len(fences) == 2 * len(blocks)
    assert {language for language, _ in blocks} <= {"", "python"}
    shown = [code for language, code in blocks if not language]
    indented = re.findall(r"(?<=\n\n)(?:(?: {4}|\t).*\n)+", BLOCK.sub("", text))
    for lines in (*shown, *indented):
        with pytest.raises(SyntaxError):
            ast.parse(textwrap.dedent(lines))
