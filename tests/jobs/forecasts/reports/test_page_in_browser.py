"""The page in headless Chromium, where one is installed: its width on a phone, its pictures."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.forecasts.forecasters.baselines import persistence
from jobs.forecasts.reports.evaluation_page import render
from jobs.forecasts.scoring.provenance import Provenance
from jobs.forecasts.scoring.score_rows import Scores
from pipelines.inputs.normalisation import Normalisation
from pipelines.stream.windows import WindowSpec
from tests.jobs.forecasts.running import evaluate
from tests.jobs.forecasts.stores import write_store

PROTOCOLS = ("strict", "radar")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE = 180.0
"""seconds; a browser starts in one, and in many on a machine that is busy"""
LOOK = """<script>addEventListener("load", () => {
  const page = document.documentElement, images = [...document.images];
  const found = {
    inner: innerWidth,
    wide: page.scrollWidth,
    pictures: images.length,
    broken: images.filter((image) => !image.naturalWidth).length,
    charts: Math.min(...[...document.querySelectorAll("figure svg")].map((s) => s.clientWidth)),
  };
  page.setAttribute("data-found", JSON.stringify(found));
});</script>"""
MARGIN = 8
"""pixels at the right of a phone's screen that the page leaves bare"""


@pytest.fixture(scope="module")
def browser() -> str:
    """The path of a Chromium."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    pytest.skip(f"no Chromium is installed ({', '.join(NAMES)}): apt-get install chromium")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with wide tables, charts, maps and an animation."""
    folder = tmp_path_factory.mktemp("pages")
    pixels = np.random.default_rng(1).uniform(0, 55, (720, 12, 16)).astype(np.float32)
    store = write_store(folder / "radar.zarr", pixels, units="dBZ")
    evaluation = evaluate(
        store,
        persistence,
        variables=("t2m",),
        window=WindowSpec(2, 6),
        normalisation=Normalisation.from_store(store, ("t2m",), "minmax"),
        max_windows=3,
        resamples=0,
    )
    (item,) = evaluation.scores
    rows = (row for row in item.scores.select("all", "skill") if row.protocol in PROTOCOLS)
    few = dataclasses.replace(item, scores=Scores(rows), curves={})
    evaluation = dataclasses.replace(
        evaluation, scores=(few,), examples=evaluation.examples[1:2], fields=None
    )
    provenance = Provenance(
        store_uri="s3://a-bucket/with/a/rather/long/path/to/the/store/"
        + 12 * "0123456789"
        + ".zarr",
        title=store.title,
        archive="radar",
        synthetic=True,
        checkpoint_uri="/runs/one/step_000000040",
        model="gmg-s",
        step=40,
        epoch=2,
        options={"training": {"learning_rates": list(range(80))}},
        train_period=tuple(store.statistics["period"]),
        fingerprint=store.fingerprint,
    )
    return render(evaluation, provenance, store, "strict")


def chromium(browser: str, folder: Path, html: str, width: int, *options: str) -> str:
    """Open a page and return what Chromium prints."""
    place = folder / "page.html"
    place.write_text(html, encoding="utf-8")
    done = subprocess.run(
        [
            browser,
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *("--disable-dev-shm-usage", f"--user-data-dir={folder / 'profile'}"),
            *(f"--window-size={width},1600", *options),
            place.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def screenshot(browser: str, folder: Path, html: str, width: int, height: int) -> np.ndarray:
    """(height, width, 3) integers of the top of the page."""
    shot = folder / "shot.png"
    chromium(
        browser, folder, html, width, f"--screenshot={shot}", f"--window-size={width},{height}"
    )
    with Image.open(shot) as image:
        assert image.size == (width, height)
        return np.asarray(image.convert("RGB")).astype(int)


def test_every_picture_is_drawn_and_nothing_is_wider_than_the_screen(
    browser: str, page: str, tmp_path: Path
):
    # The page itself allows no script: the look at it goes into a copy that does.
    free = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    printed = chromium(
        browser, tmp_path, free.replace("</body>", LOOK + "</body>"), 1200, "--dump-dom"
    )
    match = re.search(r'data-found="([^"]*)"', printed)
    assert match
    found = json.loads(match[1].replace("&quot;", '"'))
    assert found["inner"] == 1200
    assert found["wide"] <= 1200
    assert found["pictures"] == 3 * 4 + 2
    assert found["broken"] == 0
    assert found["charts"] >= 300


def test_on_a_phone_nothing_runs_over_the_edge(browser: str, page: str, tmp_path: Path):
    pixels = screenshot(browser, tmp_path, page, 360, 9000)
    paper = pixels[2, 2]
    assert (pixels[:, -MARGIN:] == paper).all()
    # What stands beside it is no empty page: tables and pictures reach to the margin.
    beside = (pixels[:, -80:-MARGIN] != paper).any(axis=(1, 2))
    assert beside.mean() > 0.3


def test_the_page_as_it_is_becomes_a_picture(browser: str, page: str, tmp_path: Path):
    pixels = screenshot(browser, tmp_path, page, 1200, 1600)
    ink = pixels.max(axis=-1) < 100
    assert 0.005 < ink.mean() < 0.4
    # Charts and tables: there is something on every part of the screen's height.
    assert all(part.any() for part in np.array_split(ink, 8))
