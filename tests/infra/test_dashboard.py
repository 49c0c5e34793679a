"""The Grafana dashboard queries the gauges that a training sets, under the same names."""

from __future__ import annotations

import json
import re
from typing import Any

from jobs.training.worker.journal import METRICS
from tests.conftest import ROOT

DASHBOARD: dict[str, Any] = json.loads((ROOT / "infra" / "grafana-training.json").read_text())


def test_its_queries_use_every_gauge_and_no_other_name() -> None:
    queries = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    names = set(re.findall(r"\b(?:ray_)?gmg_\w+", " ".join(queries)))
    assert names == {f"ray_{name}" for name in METRICS}
    assert all('{run=~"$run"}' in query for query in queries)


def test_the_choice_of_runs_comes_from_a_gauge_and_panels_do_not_overlap() -> None:
    (run,) = [item for item in DASHBOARD["templating"]["list"] if item["name"] == "run"]
    (name,) = re.findall(r"label_values\((\w+), run\)", run["query"]["query"])
    assert name.removeprefix("ray_") in METRICS
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
