"""The page and its JSON: complete, honest about its data, and without anything to load."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest

from jobs.forecasts.baselines import persistence
from jobs.forecasts.destination import destinations, refuse_unwritable
from jobs.forecasts.evaluation import evaluate
from jobs.forecasts.report import Provenance, render, write_report
from jobs.forecasts.wording import number, summary
from pipelines.errors import UsageError
from pipelines.normalisation import Normalisation
from pipelines.windows import WindowSpec
from tests.jobs.forecasts.stores import weather, write_store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A synthetic store, its evaluation, what is known of the model, and the page."""
    store = write_store(tmp_path_factory.mktemp("stores") / "store.zarr", weather())
    variables = tuple(store.variables)
    evaluation = evaluate(
        store,
        lambda seen, horizon: 0.9 * persistence(seen, horizon),
        variables=variables,
        window=WindowSpec(4, 3),
        normalisation=Normalisation.from_store(store, variables, "standardise"),
        max_windows=20,
    )
    provenance = Provenance(
        store_uri=store.uri,
        title=store.title,
        archive="weatherbench",
        synthetic=store.synthetic,
        checkpoint_uri="/runs/one/step_000000040",
        model="gmg-s",
        step=40,
        epoch=2,
        options={"training": {"epochs": 2}},
        train_period=tuple(store.statistics["period"]),
        fingerprint=store.fingerprint,
        history=tuple((step, 1 / step) for step in range(1, 50)),
    )
    page = render(evaluation, provenance, store, "strict")
    return SimpleNamespace(store=store, evaluation=evaluation, provenance=provenance, page=page)


def other_page(made: SimpleNamespace, protocol: str = "strict", **changes: Any) -> str:
    """The page with something else known of the model, or another protocol first; no maps."""
    evaluation = dataclasses.replace(made.evaluation, examples=())
    provenance = dataclasses.replace(made.provenance, **changes)
    return render(evaluation, provenance, made.store, protocol)


def written(made: SimpleNamespace, report: str) -> tuple[str, str]:
    evaluation = dataclasses.replace(made.evaluation, examples=made.evaluation.examples[:1])
    return write_report(report, evaluation, made.provenance, made.store, "strict")


class Loads(HTMLParser):
    """Every address in the page that a browser would fetch or follow."""

    def __init__(self, page: str):
        super().__init__()
        self.addresses: list[str] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in {"src", "href", "xlink:href", "action", "srcset"}:
                self.addresses.append(value or "")
        assert tag not in {"script", "link", "iframe"}

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_loads_nothing(made):
    addresses = Loads(made.page).addresses
    assert any(address.startswith("data:image/png;base64,") for address in addresses)
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"https?://|@import|url\((?!#)", made.page)


def test_every_map_is_a_whole_picture(made):
    pictures = [a for a in Loads(made.page).addresses if a.startswith("data:")]
    assert len(pictures) == 3 * 3 * 3  # windows x leads x (truth, forecast, error)
    for picture in pictures:
        data = base64.b64decode(picture.partition(",")[2])
        assert data.startswith(b"\x89PNG")
        assert data.endswith(b"IEND\xaeB`\x82")


def test_synthetic_data_are_called_synthetic_and_observations_are_not(made):
    assert "Synthetic data: " in made.page
    observed = " ".join(Loads(other_page(made, synthetic=False)).text)
    assert "Persistence" in observed
    assert not re.search("synthetic data|, synthetic", observed, re.IGNORECASE)


def test_the_page_prints_the_scores_of_all_three_forecasts_and_the_climatology(made):
    text = " ".join(Loads(made.page).text)
    (scores,) = made.evaluation.scores
    for forecast in ("model", "persistence", "climatology"):
        assert number(scores.strict_per_lead(forecast, "rmse")[0]) in text
    assert made.evaluation.climatology in text
    assert "20 of 186 windows" in text
    assert "+1 h" in text
    for example in made.evaluation.examples:
        assert str(example.valid_times[0].astype("datetime64[m]")).replace("T", " ") in text


def test_the_protocol_asked_for_comes_first(made):
    for first, second in (("strict", "openstl"), ("openstl", "strict")):
        page = other_page(made, first)
        assert 0 < page.index(f"Protocol {first}, all lead") < page.index(f"Protocol {second}, all")


def test_text_from_the_archive_cannot_become_markup(made):
    page = other_page(made, title="<script>alert(1)</script>")
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_a_run_without_history_has_no_training_curve(made):
    assert "Training loss" in made.page
    assert "Training loss" not in other_page(made, history=())


def test_without_a_climatology_the_page_has_persistence_alone_and_says_why(made):
    protocols = {
        protocol: {name: by[name] for name in ("model", "persistence")}
        for protocol, by in made.evaluation.scores[0].protocols.items()
    }
    scores = (dataclasses.replace(made.evaluation.scores[0], protocols=protocols),)
    evaluation = dataclasses.replace(
        made.evaluation, scores=scores, climatology="none: no day repeats", examples=()
    )
    text = " ".join(Loads(render(evaluation, made.provenance, made.store, "strict")).text)
    assert "none: no day repeats" in text
    assert "Skill over persistence" in text
    assert "Skill over climatology" not in text


def test_page_and_json_are_written_into_a_folder(made, tmp_path):
    folder = tmp_path / "new" / "folder"
    page, record = written(made, str(folder))
    assert (folder / "report.html").read_text().startswith("<!DOCTYPE html>")
    result = json.loads((folder / "scores.json").read_text())
    assert (page, record) == destinations(str(folder))[:2]
    (scores,) = made.evaluation.scores
    stored = result["variables"]["t2m"]["protocols"]
    assert stored["strict"]["model"]["overall"]["rmse"] == scores.strict("model", "rmse")
    assert len(stored["openstl"]["climatology"]["per_lead"]["mse_pixel_sum"]) == 3
    assert result["windows"] == {"scored": 20, "available": 186}
    assert result["synthetic"] is True
    assert result["lead_seconds"] == [3600, 7200, 10800]


def test_undefined_scores_are_null_in_the_json(made, tmp_path):
    written(made, str(tmp_path))
    text = (tmp_path / "scores.json").read_text()
    scores = json.loads(text)["variables"]["t2m"]["protocols"]["weather"]
    assert scores["climatology"]["overall"]["acc"] is None
    assert scores["persistence"]["overall"]["acc"] is not None
    assert "NaN" not in text


def test_a_report_goes_to_object_storage(made):
    places = written(made, "memory://bucket/day1.html")
    files = fsspec.filesystem("memory")
    assert places == ("memory://bucket/day1.html", "memory://bucket/day1.json")
    assert files.cat_file("/bucket/day1.html").startswith(b"<!DOCTYPE html>")
    assert json.loads(files.cat_file("/bucket/day1.json"))["model"] == "gmg-s"


def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    for report in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "file" / "day.html"):
        with pytest.raises(UsageError, match="file is no folder"):
            refuse_unwritable(str(report))
    with pytest.raises(UsageError, match="no driver"):
        refuse_unwritable("nowhere://bucket/report")


def test_asking_whether_a_place_can_be_written_leaves_nothing_there(tmp_path):
    refuse_unwritable(str(tmp_path / "new" / "day.html"))
    assert not list(tmp_path.iterdir())
    refuse_unwritable("memory://empty/report")
    assert fsspec.filesystem("memory").find("/empty") == []


def test_the_same_evaluation_gives_the_same_page(made):
    assert render(made.evaluation, made.provenance, made.store, "strict") == made.page


def test_the_summary_names_units_baselines_and_several_leads(made):
    lines = summary(made.evaluation)
    assert len(lines) <= 8
    text = "\n".join(lines)
    assert "RMSE in K" in text
    assert "20 of 186 windows" in text
    for word in ("model", "persistence", "climatology", "overall", "+1 h", "+3 h"):
        assert word in text
