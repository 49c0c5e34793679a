"""Evaluations side by side: only of the same windows, and published scores never among ours."""

from __future__ import annotations

import csv
import functools
import io
import json
import operator
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from jobs.command_line import finite
from jobs.forecasts.comparison.evaluations import KeptEvaluation, check_comparable, read_evaluations
from jobs.forecasts.comparison.pairs import pairs_of, read_sums
from jobs.forecasts.comparison.published import TABLES, Published, published_scores
from jobs.forecasts.comparison.table import as_csv, published_lines, table
from jobs.forecasts.forecasters.baselines import persistence
from jobs.forecasts.reports.comparison_page import comparison_page
from jobs.forecasts.reports.outputs import destinations
from jobs.forecasts.scoring.score_rows import Part
from pipelines.errors import StoreError, UsageError
from pipelines.inputs.normalisation import Normalisation
from pipelines.stores.store import Store
from pipelines.stream.windows import WindowSpec
from tests.jobs.forecasts.running import evaluate
from tests.jobs.forecasts.stores import weather, write_store
from tests.support.processes.training_runs import job


def damped(frames_btchw: np.ndarray, horizon: int) -> np.ndarray:
    return persistence(frames_btchw, horizon) * np.float32(0.95)


def write(
    folder: Path, store: Store, name: str, forecast: Any = persistence, **options: Any
) -> str:
    window, changes = options.pop("window", WindowSpec(4, 3)), options.pop("changes", {})
    kind = options.pop("kind", "standardise")
    constants = Normalisation.from_store(store, ("t2m",), kind)
    evaluation = evaluate(
        store,
        forecast,
        variables=("t2m",),
        window=window,
        normalisation=constants,
        max_windows=options.pop("max_windows", 5),
        resamples=options.pop("resamples", 0),
        **options,
    )
    provenance = {
        "title": store.title,
        "archive": "weatherbench",
        "checkpoint_uri": f"/runs/{name}/step_000000040",
        "model": "gmg-s",
        "step": 40,
        "fingerprint": store.fingerprint,
        "store_uri": store.uri,
        "synthetic": True,
    }
    (folder / name).mkdir()
    places = destinations(str(folder / name))
    record = {**provenance, **evaluation.as_dict(), **changes}
    Path(places.scores).write_text(json.dumps(finite(record)))
    assert evaluation.sums is not None
    evaluation.sums.write(places.sums)
    return places.scores


@pytest.fixture
def pair(make_store, tmp_path: Path) -> SimpleNamespace:
    store = make_store()
    files = [write(tmp_path, store, "one"), write(tmp_path, store, "two", damped)]
    scored = read_evaluations(files)
    return SimpleNamespace(store=store, files=files, scored=scored, sums=read_sums(scored, 0, 0))


def overall(scored: KeptEvaluation, forecast: str, name: str) -> float:
    return scored.evaluation.scores_of("t2m").strict(forecast, name)


def test_models_and_baselines_stand_in_one_table(pair):
    check_comparable(pair.scored, "strict")
    lines = table(pair.scored, "strict", pair.sums)
    rows = {
        line.split("  ")[0]: line.split()
        for line in lines
        if line.startswith(("gmg", "pers")) and " less " not in line
    }
    assert list(rows) == ["gmg-s one step 40", "gmg-s two step 40", "persistence"]
    shown = float(rows["gmg-s two step 40"][4])
    assert shown == pytest.approx(overall(pair.scored[1], "model", "rmse"), rel=1e-2)
    assert rows["gmg-s one step 40"][4:] == rows["persistence"][1:]
    assert sum(line.startswith("climatology") for line in lines) == 1


def test_a_run_that_is_named_by_its_model_has_the_name_once(pair, tmp_path):
    files = [write(tmp_path, pair.store, name) for name in ("gmg-s-0", "gmg-s-1")]
    assert [one.label for one in read_evaluations(files)] == ["gmg-s-0 step 40", "gmg-s-1 step 40"]


def test_the_csv_holds_every_score_at_every_lead(pair):
    rows = list(csv.DictReader(io.StringIO(as_csv(pair.scored, pair.sums))))
    chosen = [
        row
        for row in rows
        if (row["evaluation"], row["forecast"], row["less"], row["protocol"], row["score"])
        == ("gmg-s two step 40", "model", "", "strict", "rmse")
    ]
    assert [row["lead"] for row in chosen] == ["overall", "3600", "7200", "10800"]
    assert float(chosen[0]["value"]) == overall(pair.scored[1], "model", "rmse")
    assert {"strict", "openstl", "weather"} <= {row["protocol"] for row in rows}


@pytest.mark.parametrize(
    ("options", "differs"),
    [
        ({"max_windows": 4}, "they differ in the windows: 5 of [0-9]+ and 4 of"),
        ({"split": "validation"}, "they differ in the split: test and validation"),
        ({"window": WindowSpec(4, 2)}, "they differ in the (windows|lead times)"),
    ],
)
def test_scores_of_other_windows_are_refused_naming_the_difference(
    pair, tmp_path, options, differs
):
    other = write(tmp_path, pair.store, "other", **options)
    with pytest.raises(UsageError, match=differs) as refused:
        check_comparable(read_evaluations([pair.files[0], other]), "strict")
    assert other in str(refused.value)
    assert pair.files[0] in str(refused.value)


def test_other_frames_behind_equal_counts_are_found_by_their_persistence(pair):
    record = json.loads(Path(pair.files[1]).read_text())
    record["variables"]["t2m"]["protocols"]["strict"]["persistence"]["overall"]["rmse"] *= 1.01
    Path(pair.files[1]).write_text(json.dumps(record))
    with pytest.raises(UsageError, match="persistence of t2m has another RMSE"):
        check_comparable(read_evaluations(pair.files), "strict")


@pytest.mark.parametrize("form", ["{folder}", "{folder}/", "{folder}/scores.json"])
def test_the_same_evaluation_given_twice_is_refused(pair, form):
    folder = str(Path(pair.files[0]).parent)
    with pytest.raises(UsageError, match="the same evaluation is given twice") as refused:
        read_evaluations([folder, pair.files[1], form.format(folder=folder)])
    assert refused.value.where == pair.files[0]


def without(record: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    copied = json.loads(json.dumps(record))
    *above, key = path
    functools.reduce(operator.getitem, above, copied).pop(key)
    return copied


def test_scores_that_lack_something_are_refused_naming_it(pair):
    file = Path(pair.files[0])
    record = json.loads(file.read_text())
    needless = []
    for path in [
        *((key,) for key in record if key != "schema"),
        *(("windows", key) for key in record["windows"]),
        *(("variables", "t2m", key) for key in record["variables"]["t2m"]),
        *(("variables", "t2m", "protocols", "strict", name) for name in ("model", "persistence")),
    ]:
        file.write_text(json.dumps(without(record, path)))
        try:
            read_evaluations(pair.files)
        except StoreError as error:
            refused = error
        else:
            needless.append(path)
            continue
        assert ".".join(path) in str(refused)
        assert refused.where == str(file)
    # What it is not refused for, nothing needs.
    assert ("examples",) in needless
    assert ("lead_seconds",) not in needless
    file.write_text(json.dumps(functools.reduce(without, needless, record)))
    scored = read_evaluations(pair.files)
    check_comparable(scored, "strict")
    assert table(scored, "strict", pair.sums)
    assert as_csv(scored, pair.sums)
    assert comparison_page(scored, "strict", pair.sums, published_scores("", scored))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"variables": {}, "windows": {}}', "no JSON"])
def test_what_is_no_evaluation_is_refused(pair, text):
    Path(pair.files[0]).write_text(text)
    with pytest.raises(UsageError, match="no evaluation here"):
        read_evaluations(pair.files)


@pytest.mark.parametrize("schema", [1, 3, "2"])
def test_scores_of_another_schema_are_refused(pair, schema):
    record = json.loads(Path(pair.files[0]).read_text())
    Path(pair.files[0]).write_text(json.dumps({**record, "schema": schema}))
    with pytest.raises(StoreError, match=f"of schema {schema}, and this version reads 2"):
        read_evaluations(pair.files)


def test_openstl_scores_on_two_scales_are_refused(pair, tmp_path):
    other = write(tmp_path, pair.store, "minmax", kind="minmax")
    both = read_evaluations([pair.files[0], other])
    check_comparable(both, "strict")
    with pytest.raises(UsageError, match="the scale of protocol openstl"):
        check_comparable(both, "openstl")


def changed(kept: KeptEvaluation, **changes: Any) -> KeptEvaluation:
    """Return the same with other values of the evaluation, or of its provenance."""
    provenance = {key: changes.pop(key) for key in ("synthetic", "archive") if key in changes}
    return replace(
        kept,
        evaluation=replace(kept.evaluation, **changes),
        provenance=replace(kept.provenance, **provenance),
    )


def published_as(folder: Path, store: Store, name: str, **changes: Any) -> list[KeptEvaluation]:
    """An evaluation that says of itself what `changes` say, 12 frames of 12 x 16."""
    window = WindowSpec(12, 12)
    changes = {"archive": "weatherbench", "grid": None, "synthetic": False} | changes
    return read_evaluations(
        [write(folder, store, name, window=window, max_windows=2, changes=changes)]
    )


TABLE_GRID = {"shape": [32, 64], "channels": 1, "cell_km": None}


def test_published_scores_stand_apart_and_ours_only_in_the_same_setting(pair, tmp_path):
    scored = published_as(tmp_path, pair.store, "long", grid=TABLE_GRID)
    found = published_scores("", scored)
    assert isinstance(found, Published)
    scores = scored[0].evaluation.scores_of("t2m").scores
    own = scores.overall("openstl", "model", "rmse_spatial_norm").value
    assert found.ours["gmg-s long step 40"][-1] == f"{own:.4f}"
    assert "1.1109" in found.rows["GMG"]
    lines = published_lines(found, scored)
    assert "PUBLISHED, not measured here: GMG, Table IV" in lines[1]
    assert not any("1.1109" in line for line in table(scored, "strict", read_sums(scored, 0, 0)))
    for place, (change, reason) in enumerate(
        [
            ({"synthetic": True}, "synthetic data"),
            ({"lead_seconds": (3600,)}, "they are of 1 frames, the table's of 12"),
            ({"lead_seconds": tuple(range(7200, 93600, 7200))}, "their frames are 7200 s apart"),
            ({"openstl_scale": "another"}, "not trained with normalise standardise"),
        ]
    ):
        apart = published_scores("weatherbench", [changed(kept, **change) for kept in scored])
        assert isinstance(apart, Published), place
        assert apart.ours == {}
        assert reason in str(apart.apart)


def test_published_scores_of_another_data_set_are_not_shown(pair, tmp_path):
    scored = published_as(
        tmp_path, pair.store, "bikes", archive="taxibj", grid={**TABLE_GRID, "channels": 2}
    )
    told = published_scores("", scored)
    assert told == (
        "the published scores of 'taxibj' are not shown: it has frames of 2 x 32 x 32, and these "
        "are of 2 x 32 x 64"
    )
    with pytest.raises(UsageError, match="another data set: these scores are of archive taxibj"):
        published_scores("weatherbench", scored)
    with pytest.raises(UsageError, match="no published scores of 'kth'"):
        published_scores("kth", scored)
    assert published_scores("none", scored) == ""
    assert published_scores("", [changed(scored[0], archive="era5")]) == ""


def test_a_table_of_unknown_conventions_is_shown_alone(pair, tmp_path):
    grid = {"shape": [64, 64], "channels": 1, "cell_km": None}
    scored = published_as(tmp_path, pair.store, "rain", archive="cikm2017", grid=grid)
    found = published_scores("", scored)
    assert published_lines(found, scored)[-1].endswith("the paper does not give its conventions")


def test_every_published_row_has_all_its_columns():
    for entry in yaml.safe_load(TABLES.read_text()).values():
        assert entry["rows"]["GMG"]
        assert {len(row) for row in entry["rows"].values()} == {len(entry["columns"])}
        assert set(entry["same"]) in (set(), set(entry["columns"]))
        assert len(entry["grid"]) == 3


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Two models and one of them again, scored on eight days with intervals of their own."""
    folder = tmp_path_factory.mktemp("days")
    store = write_store(folder / "store.zarr", weather())
    own = {"grid": TABLE_GRID}
    given = {"one": persistence, "two": damped, "again": damped}
    files = [
        write(folder, store, name, forecast, max_windows=40, resamples=200, changes=own)
        for name, forecast in given.items()
    ]
    scored = read_evaluations(files)
    sums = read_sums(scored, 200, 0)
    return SimpleNamespace(scored=scored, sums=sums, files=files, store=store)


def test_a_pair_differs_by_what_the_evaluation_of_one_of_them_finds(days):
    pairs = pairs_of(days.scored, days.sums, "t2m", "strict")
    by_name = {(pair.first.label, pair.second.label): pair for pair in pairs}
    names = [f"gmg-s {name} step 40" for name in ("one", "two", "again")]
    assert len(by_name) == 3 + 3 * 2
    # Model against baseline, as the evaluation itself has drawn it.
    own = days.scored[1].evaluation.scores_of("t2m").scores
    for baseline in ("persistence", "climatology"):
        found = by_name[names[1], baseline].scores
        known = own.select("difference", protocol="strict", part=Part("difference", baseline))
        assert {(row.name, row.lead) for row in found} == {(row.name, row.lead) for row in known}
        for row in known:
            (other,) = (one for one in found if (one.name, one.lead) == (row.name, row.lead))
            if row.has_interval:
                ends = (other.value, *other.interval)
                assert ends == pytest.approx((row.value, *row.interval)), row.name
    # The first model is persistence itself, so that against the second the sign turns.
    turned = by_name[names[0], names[1]].overall("rmse")
    known = own.overall("strict", "model", "rmse", Part("difference", "persistence"))
    assert turned.value == pytest.approx(-known.value)
    assert turned.interval == pytest.approx((-known.interval[1], -known.interval[0]))


def test_sums_of_every_protocol_come_back_from_their_file(days):
    read = days.sums.by_uri[days.files[0]]
    for protocol in days.scored[0].evaluation.scores_of("t2m").protocols:
        for pair in pairs_of(days.scored, days.sums, "t2m", protocol):
            overall, by_lead = (
                {row.name for row in pair.scores if (row.lead is None) == whole}
                for whole in (True, False)
            )
            assert overall == by_lead
    assert read.unit == "day of the init time"
    assert len(read.units) == 8


def test_a_model_and_itself_are_not_distinguishable(days):
    lines = table(days.scored, "strict", days.sums)
    (told,) = (line for line in lines if "gmg-s two step 40 less gmg-s again step 40" in line)
    assert told.endswith("not distinguishable")
    (told,) = (line for line in lines if "gmg-s two step 40 less persistence" in line)
    assert told.endswith("second is better")
    assert lines[-1].startswith("95 % intervals from 200 resamples of 8 units")
    rows = csv.DictReader(io.StringIO(as_csv(days.scored, days.sums)))
    kept = [row for row in rows if row["less"] == "gmg-s again step 40" and row["score"] == "rmse"]
    assert {row["evaluation"] for row in kept} == {"gmg-s one step 40", "gmg-s two step 40"}
    assert all(float(row["low"]) <= float(row["value"]) <= float(row["high"]) for row in kept)


@pytest.mark.parametrize("resamples", [-1, 1, 99])
def test_too_few_resamples_for_intervals_are_refused(days, resamples):
    with pytest.raises(UsageError, match=f"0 or at least 100, not {resamples}"):
        read_sums(days.scored, resamples, 0)
    assert read_sums(days.scored, 100, 0).bootstrap.none is None


def write_bare(days: SimpleNamespace, folder: Path) -> tuple[str, Path]:
    """A third evaluation of the same days without intervals of its own, and its sums."""
    file = write(folder, days.store, "bare", damped, max_windows=40)
    return file, Path(destinations(str(Path(file).parent)).sums)


def refuse_to_test(days: SimpleNamespace, file: str, why: str) -> None:
    scored = read_evaluations([days.files[0], file])
    lines = table(scored, "strict", read_sums(scored, 200, 0))
    assert sum(line.endswith("not tested") for line in lines) == 1 + 2 * 2
    assert lines[-1].startswith("no intervals: ")
    assert f"{why} beside {file}: run evaluate.py again there" in lines[-1]


def test_without_sums_by_day_differences_stand_untested(days, tmp_path):
    file, sums = write_bare(days, tmp_path)
    scored = read_evaluations([days.files[0], file])
    assert read_sums(scored, 200, 0).bootstrap.none is None
    sums.unlink()
    refuse_to_test(days, file, "no sums by day")


def with_an_unknown_compression(file: bytes) -> bytes:
    method = file.index(b"PK\x01\x02") + 10
    return file[:method] + b"\xee" + file[method + 1 :]


def test_damaged_sums_by_day_test_nothing(days, tmp_path):
    file, sums = write_bare(days, tmp_path)
    whole = sums.read_bytes()
    half = len(whole) // 2
    rotten = whole[:half] + b"\x00" * 99 + whole[half + 99 :]
    for damaged in (b"", b"no npz", whole[:half], rotten, with_an_unknown_compression(whole)):
        sums.write_bytes(damaged)
        refuse_to_test(days, file, "sums by day that are damaged or another evaluation's")


def test_sums_by_day_of_another_evaluation_test_nothing(days, tmp_path):
    """An evaluation that is killed while it writes leaves its sums beside the scores of before."""
    file, sums = write_bare(days, tmp_path)
    sums.write_bytes(Path(destinations(str(Path(days.files[0]).parent)).sums).read_bytes())
    refuse_to_test(days, file, "sums by day that are damaged or another evaluation's")


def test_sums_by_day_that_the_scores_do_not_know_test_nothing(days, tmp_path):
    file, _ = write_bare(days, tmp_path)
    record = json.loads(Path(file).read_text())
    del record["sums_sha256"]
    Path(file).write_text(json.dumps(record))
    why = "sums by day that an earlier version left, which may be another evaluation's,"
    refuse_to_test(days, file, why)


def test_the_page_shows_all_systems_in_tables_and_curves_and_loads_nothing(days, tmp_path):
    file = tmp_path / "comparison.html"
    done = job("compare.py", "--evaluations", *days.files, "--report", str(file))
    assert done.returncode == 0, done.stderr
    page = file.read_text()
    names = [entry.label for entry in days.scored]
    legends = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    (error,) = (chart for chart in legends if 'aria-label="Error (RMSE)"' in chart)
    for name in (*names, "persistence", "climatology"):
        assert f">{name}</text>" in error
        assert f'<th scope="row">{name}</th>' in page
    (differences,) = (chart for chart in legends if f"RMSE less that of {names[0]}" in chart)
    assert f">{names[1]}</text>" in differences
    assert f">{names[0]}</text>" not in differences
    assert "not distinguishable" in page
    ours, _, published = page.partition('id="published"')
    assert "1.1109" in published
    assert "1.1109" not in ours
    assert "Ours are not shown beside them: they are of synthetic data." in published
    assert not re.search(r"https?://|<script|<link|@import|url\((?!#)|\bsrc=(?!.data:)", page)


def test_the_command_prints_and_writes(pair, tmp_path):
    folder = str(Path(pair.files[0]).parent)
    out = tmp_path / "scores.csv"
    done = job("compare.py", "--evaluations", folder, pair.files[1], "--csv", str(out))
    assert done.returncode == 0, done.stderr
    assert "gmg-s two step 40" in done.stdout
    # Five windows, a day each: enough for intervals.
    sums = read_sums(pair.scored, 1000, 0)
    assert out.read_text() == as_csv(pair.scored, sums)
    missing = job("compare.py", "--evaluations", str(tmp_path / "nothing"))
    assert missing.returncode == 2
    assert "no evaluation here" in missing.stderr
    for given, told in (("--report", "--report must be a file"), ("--csv", "--csv must be a file")):
        for place in (f"{tmp_path}/", str(tmp_path)):
            refused = job("compare.py", "--evaluations", folder, given, place)
            assert refused.returncode == 2
            assert told in refused.stderr
            assert f"where: {tmp_path}\n" in refused.stderr
        assert job("compare.py", "--evaluations", folder, given, "").returncode == 2
