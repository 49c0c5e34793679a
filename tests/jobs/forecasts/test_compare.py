"""Evaluations side by side: only of the same windows, and published scores never among ours."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from jobs.command_line import finite
from jobs.forecasts.baselines import persistence
from jobs.forecasts.comparison import (
    PUBLISHED,
    Scored,
    as_csv,
    published_block,
    read_evaluations,
    refuse_incomparable,
    table,
)
from jobs.forecasts.evaluation import evaluate
from pipelines.errors import UsageError
from pipelines.normalisation import Normalisation
from pipelines.store import Store
from pipelines.windows import WindowSpec
from tests.training_runs import job


def damped(frames_btchw: np.ndarray, horizon: int) -> np.ndarray:
    return persistence(frames_btchw, horizon) * np.float32(0.95)


def write(
    folder: Path, store: Store, name: str, forecast: Any = persistence, **options: Any
) -> str:
    window = options.pop("window", WindowSpec(4, 3))
    kind = options.pop("kind", "standardise")
    constants = Normalisation.from_store(store, ("t2m",), kind)
    evaluation = evaluate(
        store,
        forecast,
        variables=("t2m",),
        window=window,
        normalisation=constants,
        max_windows=options.pop("max_windows", 5),
        **options,
    )
    provenance = {
        "title": store.title,
        "archive": "weatherbench",
        "checkpoint_uri": f"/runs/{name}/step_000000040",
        "model": "gmg-s",
        "step": 40,
        "fingerprint": store.fingerprint,
    }
    (folder / name).mkdir()
    file = folder / name / "scores.json"
    file.write_text(json.dumps(finite({**provenance, **evaluation.to_json()})))
    return str(file)


@pytest.fixture
def pair(make_store, tmp_path: Path) -> SimpleNamespace:
    store = make_store()
    files = [write(tmp_path, store, "one"), write(tmp_path, store, "two", damped)]
    return SimpleNamespace(store=store, files=files, scored=read_evaluations(files))


def overall(scored: Scored, forecast: str, name: str) -> float:
    return scored.scores("t2m", "strict", forecast)["overall"][name]


def test_models_and_baselines_stand_in_one_table(pair):
    refuse_incomparable(pair.scored, "strict")
    lines = table(pair.scored, "strict")
    rows = {line.split("  ")[0]: line.split() for line in lines if line.startswith(("gmg", "pers"))}
    assert list(rows) == ["gmg-s one step 40", "gmg-s two step 40", "persistence"]
    shown = float(rows["gmg-s two step 40"][4])
    assert shown == pytest.approx(overall(pair.scored[1], "model", "rmse"), rel=1e-2)
    assert rows["gmg-s one step 40"][4:] == rows["persistence"][1:]
    assert sum("climatology" in line for line in lines) == 1


def test_the_csv_holds_every_score_at_every_lead(pair):
    rows = list(csv.DictReader(io.StringIO(as_csv(pair.scored))))
    chosen = [
        row
        for row in rows
        if (row["evaluation"], row["forecast"], row["protocol"], row["score"])
        == ("gmg-s two step 40", "model", "strict", "rmse")
    ]
    assert [row["lead"] for row in chosen] == ["overall", "3600", "7200", "10800"]
    assert float(chosen[0]["value"]) == overall(pair.scored[1], "model", "rmse")
    assert {"strict", "openstl", "weather"} <= {row["protocol"] for row in rows}


@pytest.mark.parametrize(
    ("options", "differs"),
    [
        ({"max_windows": 4}, "the windows differ"),
        ({"split": "validation"}, "the split differ"),
        ({"window": WindowSpec(4, 2)}, "(the windows|the lead times) differ"),
    ],
)
def test_scores_of_other_windows_are_refused_naming_the_difference(
    pair, tmp_path, options, differs
):
    other = write(tmp_path, pair.store, "other", **options)
    with pytest.raises(UsageError, match=differs) as refused:
        refuse_incomparable(read_evaluations([pair.files[0], other]), "strict")
    assert other in str(refused.value)
    assert pair.files[0] in str(refused.value)


def test_other_frames_behind_equal_counts_are_found_by_their_persistence(pair):
    record = json.loads(Path(pair.files[1]).read_text())
    record["variables"]["t2m"]["protocols"]["strict"]["persistence"]["overall"]["rmse"] *= 1.01
    Path(pair.files[1]).write_text(json.dumps(record))
    with pytest.raises(UsageError, match="persistence of t2m has another RMSE"):
        refuse_incomparable(read_evaluations(pair.files), "strict")


def test_openstl_scores_on_two_scales_are_refused(pair, tmp_path):
    other = write(tmp_path, pair.store, "minmax", kind="minmax")
    both = read_evaluations([pair.files[0], other])
    refuse_incomparable(both, "strict")
    with pytest.raises(UsageError, match="the scale of protocol openstl"):
        refuse_incomparable(both, "openstl")


def test_published_scores_stand_apart_and_ours_only_at_the_same_horizon(pair, tmp_path):
    apart = published_block("weatherbench", pair.scored)
    assert any("PUBLISHED, not measured here: GMG, Table IV" in line for line in apart)
    assert apart[-1].endswith("they are of 3 frames, the table's of 12")
    assert not any("gmg-s" in line for line in apart)
    file = write(tmp_path, pair.store, "long", window=WindowSpec(12, 12), max_windows=2)
    scored = read_evaluations([file])
    beside = published_block("weatherbench", scored)
    own = scored[0].scores("t2m", "openstl", "model")["overall"]["rmse_spatial_norm"]
    assert beside[-1].split()[-1] == f"{own:.4f}"
    assert not any("GMG, Table" in line or "1.1109" in line for line in table(scored, "strict"))


def test_a_table_of_unknown_conventions_is_shown_alone(pair):
    lines = published_block("cikm2017", pair.scored)
    assert lines[-1].endswith("the paper does not give its conventions")


def test_every_published_row_has_all_its_columns():
    for entry in yaml.safe_load(PUBLISHED.read_text()).values():
        assert entry["rows"]["GMG"]
        assert {len(row) for row in entry["rows"].values()} == {len(entry["columns"])}
        assert set(entry["same"]) in (set(), set(entry["columns"]))


def test_the_command_prints_and_writes(pair, tmp_path):
    folder = str(Path(pair.files[0]).parent)
    out = tmp_path / "scores.csv"
    done = job("compare.py", "--evaluations", folder, pair.files[1], "--csv", str(out))
    assert done.returncode == 0, done.stderr
    assert "gmg-s two step 40" in done.stdout
    assert out.read_text() == as_csv(pair.scored)
    missing = job("compare.py", "--evaluations", str(tmp_path / "nothing"))
    assert missing.returncode == 2
    assert "no evaluation here" in missing.stderr
