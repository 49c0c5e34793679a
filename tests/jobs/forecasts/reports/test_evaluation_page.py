"""The page and its JSON: complete, honest about its data, and without anything to load."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import json
import re
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import fsspec
import numpy as np
import pytest

from jobs.forecasts.forecasters.baselines import persistence
from jobs.forecasts.reports.cases import case, moment, quantities
from jobs.forecasts.reports.evaluation_page import contents, fill, render
from jobs.forecasts.reports.motion import Motion
from jobs.forecasts.reports.outputs import destinations, write_report
from jobs.forecasts.reports.tables import score_tables
from jobs.forecasts.scoring.provenance import Provenance
from jobs.forecasts.scoring.score_rows import ALL, Curve, Part, Score, Scores
from jobs.forecasts.scoring.scores import Evaluation, GroupScores
from jobs.forecasts.scoring.text import column, number, summary, verdict
from pipelines.inputs.normalisation import Normalisation
from pipelines.stores.store import Store
from pipelines.stream.windows import WindowSpec
from tests.jobs.forecasts.running import evaluate
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
        resamples=200,
    )
    provenance = provenance_of(store)
    seen = evaluation.examples[1].seen_tchw
    rows, columns = (np.arange(3) * 4 + 1.5 for _ in range(2))
    motion = Motion("median", *np.full((2, len(seen) - 1, 3, 3), 0.5), rows, columns)
    shown = contents(evaluation, provenance, store, "strict", motion)
    return SimpleNamespace(
        store=store, evaluation=evaluation, provenance=provenance, shown=shown, page=fill(shown)
    )


def provenance_of(store: Store) -> Provenance:
    """What is known of a model that was trained on `store`."""
    return Provenance(
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


def other_page(made: SimpleNamespace, **changes: Any) -> str:
    """The page with something else known of the model; no figures are drawn anew."""
    return fill({**made.shown, "p": dataclasses.replace(made.provenance, **changes)})


def without_pictures(made: SimpleNamespace, **changes: Any) -> Evaluation:
    """The scores of protocol strict alone, without windows and maps, which take long to draw."""
    few = tuple(
        dataclasses.replace(
            item, scores=item.scores.select("all", "skill", protocol="strict"), curves={}
        )
        for item in made.evaluation.scores
    )
    given = {"examples": (), "fields": None, "scores": few, **changes}
    return dataclasses.replace(made.evaluation, **given)


class Loads(HTMLParser):
    """Every address in the page that a browser would fetch or follow."""

    def __init__(self, page: str):
        super().__init__()
        self.addresses: list[str] = []
        self.text: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in {"src", "href", "xlink:href", "action", "srcset", "poster", "data"}:
                self.addresses.append(value or "")
        self.tags.append((tag, dict(attrs)))
        assert tag not in {"script", "link", "iframe"}

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_loads_nothing(made):
    addresses = Loads(made.page).addresses
    assert any(address.startswith("data:image/png;base64,") for address in addresses)
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"https?://|@import|url\((?!#)", made.page)


def test_every_picture_is_whole_and_says_what_it_shows(made):
    pictures = [attrs for tag, attrs in Loads(made.page).tags if tag == "img"]
    maps = [attrs for attrs in pictures if "image/png" in str(attrs["src"])]
    # windows x leads x (truth, forecast, error, persistence), RMSE of two and a bias, motion, and
    # what stands for the animation where nothing moves.
    assert len(maps) == 3 * 3 * 4 + 3 + 3 + 1
    for attrs in pictures:
        data = base64.b64decode(str(attrs["src"]).partition(",")[2])
        assert data.startswith((b"\x89PNG", b"GIF89a"))
        assert data.endswith((b"IEND\xaeB`\x82", b";"))
        assert len(str(attrs["alt"])) > 30
    texts = [str(attrs["alt"]) for attrs in pictures]
    assert len(set(texts)) == len(texts)
    assert sum(" K, mean " in text for text in texts) >= 3 * 3 * 4


def test_the_page_is_small_enough_to_send(made):
    assert len(made.page) < 6_000_000


def test_the_animation_has_a_still_picture_for_paper_and_those_who_want_nothing_to_move(made):
    shown = {attrs["class"]: attrs for tag, attrs in Loads(made.page).tags if "class" in attrs}
    assert str(shown["moving"]["src"]).startswith("data:image/gif;base64,")
    assert str(shown["still"]["src"]).startswith("data:image/png;base64,")
    (rules,) = re.findall(
        r"@media print, \(prefers-reduced-motion: reduce\) {(.*?)}\s*}", made.page, re.DOTALL
    )
    assert ".film .moving { display: none; }" in rules
    assert ".film .still { display: block;" in rules


def test_a_case_says_from_when_it_is_and_times_are_not_broken(made):
    example = made.evaluation.examples[0]
    given, first, last = (
        f'<span class="time">{moment(label)}</span>'
        for label in (example.seen_labels[-1], example.labels[0], example.labels[-1])
    )
    assert f"Forecast from {given}, valid {first} to {last}; RMSE" in made.page
    assert f"+1 h, valid {first}</h3>" in made.page
    assert not re.search(r'(alt|aria-label)="[^"]*<', made.page)


def test_a_score_that_no_forecast_has_takes_no_column_and_is_named(made):
    (item,) = made.evaluation.scores
    scores = Scores(
        dataclasses.replace(row, value=float("nan")) if row.name == "ssim" else row
        for row in item.scores.select("all", "skill", protocol="strict")
    )
    evaluation = without_pictures(
        made, scores=(dataclasses.replace(item, scores=scores, curves={}),)
    )
    (table,) = score_tables(evaluation, evaluation.scores[0], "strict")
    assert [one["heading"] for one in table["columns"]] == ["RMSE", "MAE", "Bias", "PSNR"]
    page = render(evaluation, made.provenance, made.store, "strict")
    assert "Without a value: SSIM." in page


def test_a_name_that_begins_as_its_variable_does_not_give_it_twice(made):
    (group,) = made.shown["groups"]
    named = {**group, "label": "t2m", "units": "K"}
    for name, heading in (
        ("2 metre temperature", "2 metre temperature (t2m), K"),
        ("t2m (2 metre temperature)", "t2m (2 metre temperature), K"),
    ):
        page = fill({**made.shown, "groups": [{**named, "name": name}]})
        assert f"<h2>{heading}</h2>" in page


def test_the_page_is_ordered_for_those_who_hear_it(made):
    tags = Loads(made.page).tags
    levels = [int(tag[1]) for tag, _ in tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    identities = [attrs["id"] for _, attrs in tags if "id" in attrs]
    # Parts of the figures are named by hashes of what they are.
    named = [i for i in identities if not re.fullmatch(r"[a-z]?[0-9a-f]{8,}", str(i))]
    assert len(set(named)) == len(named)
    for tag, attrs in tags:
        if tag == "a":
            assert str(attrs["href"])[1:] in identities
        if tag == "svg":
            assert attrs["role"] == "img"
            assert attrs["aria-label"]
        if "aria-labelledby" in attrs:
            assert attrs["aria-labelledby"] in identities
    assert ("html", {"lang": "en"}) in tags


def test_figures_follow_the_theme_of_the_page(made):
    used = set(re.findall(r"var\(--([a-z-]+)", made.page))
    light, _, dark = made.page.partition("prefers-color-scheme: dark")
    known = set(re.findall(r"--([a-z-]+):", light.partition("<style>")[2]))
    assert used - known == {"across"}
    # Every colour has another in the dark, letters of figures too, which have none of their own.
    assert set(re.findall(r"--([a-z-]+):", dark.partition("* {")[0])) == known
    assert re.search(r"figure svg {[^}]*fill: var\(--ink\)", made.page)


def test_motion_is_drawn_where_a_model_has_it(made):
    assert "The motion that the model sees" in made.page
    assert "The motion that the model sees" not in fill({**made.shown, "motion": None})
    assert "cells a frame in the mean" in made.page


def test_intervals_are_bands_and_ranges_and_their_making_is_told(made):
    text = " ".join(Loads(made.page).text)
    low, high = made.evaluation.scores[0].scores.overall("strict", "model", "rmse").interval
    assert f"{number(low)} to {number(high)}" in text
    assert "95 % intervals from 200 resamples of " in text
    assert "opacity: 0.2" in made.page
    none = dataclasses.replace(made.evaluation.bootstrap, none="one day alone")
    scores = tuple(
        dataclasses.replace(
            item,
            scores=Scores(dataclasses.replace(row, low=None, high=None) for row in item.scores),
        )
        for item in without_pictures(made).scores
    )
    evaluation = without_pictures(made, bootstrap=none, scores=scores)
    page = render(evaluation, made.provenance, made.store, "strict")
    assert "none: one day alone" in page
    assert "opacity: 0.2" not in page


def test_a_model_is_not_called_better_where_the_interval_holds_zero(made):
    (item,) = made.evaluation.scores

    def with_ends(low: float | None, high: float | None) -> GroupScores:
        rows = (
            dataclasses.replace(row, low=low, high=high)
            if row.part == Part("skill", "persistence")
            else row
            for row in item.scores
        )
        return dataclasses.replace(item, scores=Scores(rows))

    unsure = with_ends(-0.1, 0.9)
    assert "not distinguishable from persistence (skill" in verdict(unsure)
    assert "95 % interval -0.100 to 0.900" in verdict(unsure)
    assert "not distinguishable" not in verdict(with_ends(None, None)).partition(" and ")[0]


def test_scores_by_hour_have_a_table_and_a_chart(made):
    text = " ".join(Loads(made.page).text)
    assert "RMSE by hour (UTC) of the valid time" in text
    assert "Error (RMSE) by hour of the time that is forecast" in text
    hours = made.evaluation.scores[0].scores.select(
        "hour", protocol="strict", system="model", name="rmse"
    )
    assert column(hours.values)[0] in text


def test_spectra_of_truth_and_forecasts_stand_at_the_first_and_the_last_lead(made):
    for lead in ("+1 h", "+3 h"):
        assert f"Power spectrum, {lead}" in made.page
    assert "Power spectrum, +2 h" not in made.page
    assert "wavelength (pixels)" in made.page


def test_radar_has_its_colours_its_events_and_its_legend(tmp_path):
    pixels = np.random.default_rng(1).uniform(0, 55, (720, 12, 16)).astype(np.float32)
    pixels[:, :2] = np.nan
    pixels[2:, 5, 5] = np.nan
    store = write_store(tmp_path / "radar.zarr", pixels, units="dBZ")
    evaluation = evaluate(
        store,
        persistence,
        variables=("t2m",),
        window=WindowSpec(2, 2),
        normalisation=Normalisation.from_store(store, ("t2m",), "minmax"),
        max_windows=4,
        resamples=0,
    )
    evaluation = dataclasses.replace(evaluation, examples=evaluation.examples[:1], fields=None)
    (example,) = evaluation.examples
    beyond = np.zeros((12, 16), bool)
    beyond[:2] = beyond[5, 5] = True  # no radar ever, and none from the third frame on
    for drawn in (example.forecast_tchw, example.baselines["persistence"]):
        np.testing.assert_array_equal(np.isnan(drawn[:, 0]), np.broadcast_to(beyond, (2, 12, 16)))
    page = render(evaluation, provenance_of(store), store, "strict", colours="lightness")
    text = " ".join(Loads(page).text)
    for words in ("Events above thresholds", "CSI by threshold", "CSI, ≥ 30 dBZ", "FSS, ≥ 30 dBZ"):
        assert words in text
    assert "radar hues, darker step by step: dotted at 20" in re.sub(r"\s+", " ", text)
    assert "No power spectra: they need frames without missing pixels" in text


def test_an_ensemble_has_its_spread_its_ranks_and_its_reliability(made):
    (item,) = made.evaluation.scores
    places = [0.0, 0.5, 1.0]
    values = {
        "crps_fair": (0.4, 0.3, 0.4, 0.5),
        "rmse_ensemble_mean": (0.9, 0.8, 0.9, 1.0),
        "spread": (0.7, 0.5, 0.6, 0.7),
        "brier_290": (0.1,),
    }
    rows = [
        Score("t2m", ALL, "ensemble", "model", lead, name, value)
        for name, found in values.items()
        for lead, value in zip((None, *made.evaluation.lead_seconds), found, strict=False)
    ]
    drawn = {
        "rank_histogram": ((0, 1, 2), (0.5, 0.2, 0.3)),
        "reliability_290": (places, (0.1, float("nan"), 0.9)),
        "forecast_share_290": (places, (0.8, 0.0, 0.2)),
    }
    scores = dataclasses.replace(
        item,
        scores=Scores((*item.scores.select("all", "skill", protocol="strict"), *rows)),
        curves={
            "ensemble": {"model": {name: Curve("", "", x, y, ()) for name, (x, y) in drawn.items()}}
        },
    )
    evaluation = without_pictures(made, scores=(scores,), members=2)
    text = " ".join(Loads(render(evaluation, made.provenance, made.store, "strict")).text)
    assert "the mean of 2 members" in text
    for words in (
        "Rank histogram",
        "Reliability, ≥ 290 K",
        "Spread beside the error",
        "CRPS, fair",
    ):
        assert words in text
    assert "Brier 290" in text


def test_what_makes_scores_worth_less_stands_at_the_top(made):
    noted = dataclasses.replace(made.evaluation, notes=("the horizon is longer than trained for",))
    page = fill({**made.shown, "e": noted})
    assert page.index("the horizon is longer than trained for") < page.index("<nav")
    assert "Read with care" not in other_page(made)


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
    (item,) = made.evaluation.scores
    for first in ("strict", "openstl", "weather"):
        tables = [t["protocol"] for t in score_tables(made.evaluation, item, first)]
        assert tables[0] == first
        assert sorted(tables) == sorted(item.protocols)
    assert "Protocol openstl, all lead times" in made.page


def test_text_from_the_archive_cannot_become_markup(made):
    page = other_page(made, title="<script>alert(1)</script>")
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_a_run_without_history_has_no_training_curve(made):
    assert "Training loss" in made.page
    bare = dataclasses.replace(made.provenance, history=())
    page = render(without_pictures(made), bare, made.store, "strict")
    assert "Training loss" not in page


def test_without_a_climatology_the_page_has_persistence_alone_and_says_why(made):
    (item,) = made.evaluation.scores
    rows = (row for row in item.scores if "climatology" not in (row.system, row.part.name))
    scores = (dataclasses.replace(item, scores=Scores(rows)),)
    evaluation = without_pictures(made, scores=scores, climatology="none: no day repeats")
    text = " ".join(Loads(render(evaluation, made.provenance, made.store, "strict")).text)
    assert "none: no day repeats" in text
    assert "Skill over persistence" in text
    assert "Skill over climatology" not in text


def test_page_and_json_are_written_into_a_folder(made, tmp_path):
    folder = tmp_path / "new" / "folder"
    evaluation = dataclasses.replace(made.evaluation, examples=(), fields=None)
    written = write_report(str(folder), evaluation, made.provenance, made.store, "strict")
    assert written == destinations(str(folder))[:2]
    assert (folder / "report.html").read_text().startswith("<!DOCTYPE html>")
    text = (folder / "scores.json").read_text()
    assert "NaN" not in text
    result = json.loads(text)
    (scores,) = made.evaluation.scores
    stored = result["variables"]["t2m"]["protocols"]
    assert stored["strict"]["model"]["overall"]["rmse"] == scores.strict("model", "rmse")
    assert len(stored["openstl"]["climatology"]["per_lead"]["mse_pixel_sum"]) == 3
    # The climatology has no anomaly: its score is undefined, and null in the JSON.
    assert stored["weather"]["climatology"]["overall"]["acc"] is None
    assert stored["weather"]["persistence"]["overall"]["acc"] is not None
    assert result["windows"] == {"scored": 20, "available": 186}
    assert result["synthetic"] is True
    assert result["lead_seconds"] == [3600, 7200, 10800]


def test_a_report_goes_to_object_storage(made):
    address = "memory://bucket/day1.html"
    evaluation = without_pictures(made)
    places = write_report(address, evaluation, made.provenance, made.store, "strict")
    files = fsspec.filesystem("memory")
    assert places == ("memory://bucket/day1.html", "memory://bucket/day1.json")
    assert files.cat_file("/bucket/day1.html").startswith(b"<!DOCTYPE html>")
    assert json.loads(files.cat_file("/bucket/day1.json"))["model"] == "gmg-s"


def test_the_same_evaluation_gives_the_same_figures(made):
    again = contents(without_pictures(made), made.provenance, made.store, "strict")
    (first,) = again["groups"][0]["charts"]
    assert first.charts == made.shown["groups"][0]["charts"][0].charts[: len(first.charts)]
    assert len(first.charts) == 5
    drawn = quantities(made.evaluation, made.store, "usual")
    assert case(made.evaluation, made.evaluation.examples[0], drawn) == made.shown["cases"][0]


def test_the_summary_names_units_baselines_and_several_leads(made):
    lines = summary(made.evaluation)
    assert len(lines) <= 8
    text = "\n".join(lines)
    assert "RMSE in K" in text
    assert "20 of 186 windows" in text
    for word in ("model", "persistence", "climatology", "overall", "+1 h", "+3 h"):
        assert word in text
