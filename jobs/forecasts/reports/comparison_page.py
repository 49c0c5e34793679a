"""Several evaluations on one page that loads nothing: tables, curves of all, and differences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jobs.forecasts.comparison.evaluations import KeptEvaluation, System, systems_of
from jobs.forecasts.comparison.pairs import Pair, Sums, pairs_of, verdict
from jobs.forecasts.comparison.published import Published
from jobs.forecasts.comparison.table import shown
from jobs.forecasts.reports import charts, tables
from jobs.forecasts.reports.cases import moment
from jobs.forecasts.reports.template import fill_page
from jobs.forecasts.scoring import text
from jobs.forecasts.scoring.scores import ChannelGroup, Evaluation, Grid, GroupScores


def comparison_page(
    evaluations: Sequence[KeptEvaluation], protocol: str, sums: Sums, published: Published | str
) -> str:
    """The page as HTML.

    Parameters
    ----------
    protocol:
        Its table comes first, and its first score is the one that curves of differences show.
    """
    record = evaluations[0].record
    evaluation = _evaluation(evaluations)
    bootstrap = sums.bootstrap
    return fill_page(
        "comparison.html",
        {
            "entries": evaluations,
            "models": _listed(entry.label for entry in evaluations),
            "record": record,
            "windows": text.windows(evaluation),
            "leads": text.lead_labels(evaluation.lead_seconds, evaluation.timed),
            "groups": [
                {
                    "id": f"scores-{place}",
                    **_group(evaluations, evaluation, variable, protocol, sums),
                }
                for place, variable in enumerate(record["variables"], start=1)
            ],
            "notes": {entry.label: entry.record["notes"] for entry in evaluations},
            "resampling": "" if bootstrap.none else text.resampling(bootstrap),
            "untested": bootstrap.none,
            "published": published,
            "time": moment,
        },
    )


def _group(
    evaluations: Sequence[KeptEvaluation],
    evaluation: Evaluation,
    variable: str,
    protocol: str,
    sums: Sums,
) -> dict[str, Any]:
    item = _merged(evaluations, variable)
    pairs = pairs_of(evaluations, sums, variable, protocol)
    systems = systems_of(evaluations, variable, protocol)
    overall = {name: item.protocols[protocol][name]["overall"] for name in _labels(systems)}
    names = [name for name in shown(overall) if tables.column_of(name)[0]]
    drawn = charts.ScoreCharts(evaluation, item)
    groups = [
        drawn.errors(),
        _differences(drawn, item, pairs, systems, names[0]),
        drawn.events(),
        drawn.spectra(),
        drawn.hours(),
    ]
    if "ensemble" in item.protocols:
        chart = drawn.probabilistic_error()
        groups.insert(2, charts.Charts("Probabilities", (chart,)))
    return {
        "label": variable,
        "name": item.group.long_name,
        "units": tables.units_of(item),
        "tables": tables.score_tables(evaluation, item, protocol),
        "by_lead": tables.by_lead(evaluation, item),
        "slices": tables.slices(item),
        "charts": [group for group in groups if group.charts or group.note],
        "pairs": _pair_table(item, pairs, names),
    }


def _pair_table(item: GroupScores, pairs: Sequence[Pair], names: Sequence[str]) -> dict[str, Any]:
    """A row a pair, a column a score: difference, interval, what it says."""
    heads = []
    for name in names:
        heading, units, better = tables.column_of(name)
        units = tables.units_of(item) if units == "units" else units
        heads.append((heading, ", ".join(filter(None, (units, tables.BETTER[better])))))
    rows = []
    for pair in pairs:
        cells = []
        for name in names:
            entry, better = pair.overall[name], tables.column_of(name)[2]
            cells.append(
                {
                    "value": text.number(entry["difference"]),
                    "interval": text.interval(entry["low"], entry["high"]),
                    "verdict": verdict(entry, better),
                    "told": entry["significant"],
                }
            )
        rows.append((pair.first, pair.second, cells))
    return {"heads": heads, "rows": rows}


def _differences(
    drawn: charts.ScoreCharts,
    item: GroupScores,
    pairs: Sequence[Pair],
    systems: Sequence[System],
    name: str,
) -> charts.Charts:
    """One score of every other forecast less that of the first model, by lead time."""
    first = systems[0].label
    beside = [pair for pair in pairs if pair.first == first]
    if not beside:
        return charts.Charts("", ())
    # The page tells how others differ from the first, the pairs how the first differs from them.
    series: dict[str, list[float]] = {}
    bands: dict[str, np.ndarray] = {}
    for pair in beside:
        entries = pair.per_lead[name]
        series[pair.second] = [-entry["difference"] for entry in entries]
        if all(math.isfinite(entry["low"]) for entry in entries):
            ends = [[-entry["high"], -entry["low"]] for entry in entries]
            bands[pair.second] = np.asarray(ends).T
    heading, units, better = tables.column_of(name)
    units = tables.units_of(item) if units == "units" else units
    label = f"difference of {heading}" + (f" ({units})" if units else "")
    title = f"{heading} less that of {first}"
    note = "Where a band holds 0, the two are not distinguishable at that lead time."
    if not bands:
        note = "Without intervals: see above."
    if better in ("lower", "higher"):
        note += f" {'Above' if better == 'lower' else 'Below'} 0 {first} is better."
    return charts.Charts(
        f"Differences from {first}", (drawn.differences(title, series, bands, label),), note
    )


def _evaluation(evaluations: Sequence[KeptEvaluation]) -> Evaluation:
    """What the evaluations share, as one of them."""
    record = evaluations[0].record
    timed = record["lead_seconds"] is not None
    grid = record.get("grid")
    return Evaluation(
        split=record["split"],
        period=tuple(record["period"]),
        windows_scored=record["windows"]["scored"],
        windows_available=record["windows"]["available"],
        lead_seconds=tuple(evaluations[0].leads),
        climatology=record["climatology"],
        extrapolation=record["extrapolation"],
        openstl_scale=record["openstl_scale"],
        scores=(),
        examples=(),
        timed=timed,
        grid=Grid(tuple(grid["shape"]), grid["channels"], grid["cell_km"]) if grid else None,
    )


def _merged(evaluations: Sequence[KeptEvaluation], variable: str) -> GroupScores:
    """The scores of all models, and of the first one's baselines, by their labels.

    Intervals by lead time stay out: bands of models that were scored on the same days overlap where
    their difference is certain.
    """
    described = evaluations[0].record["variables"][variable]
    low, high = (_numbers(end) for end in described["train_range"])
    group = ChannelGroup(
        variable, variable, described["long_name"], described["units"], slice(0, 1), low, high
    )
    systems = systems_of(evaluations, variable, "strict")
    same_scale = len({entry.record["openstl_scale"] for entry in evaluations}) == 1
    protocols: dict[str, dict[str, Any]] = {}
    intervals: dict[str, dict[str, Any]] = {}
    for system in systems:
        own = system.entry.record["variables"][variable]
        for protocol, by_forecast in own["protocols"].items():
            if system.forecast not in by_forecast or (protocol == "openstl" and not same_scale):
                continue
            result = _numbers(by_forecast[system.forecast])
            protocols.setdefault(protocol, {})[system.label] = result
            ends = own["intervals"].get(protocol, {}).get(system.forecast)
            if ends:
                found = {"overall": _numbers(ends["overall"])}
                intervals.setdefault(protocol, {})[system.label] = found
    return GroupScores(
        group,
        protocols,
        intervals,
        months=_parts(systems, variable, "months"),
        hours=_parts(systems, variable, "hours"),
    )


def _parts(systems: Sequence[System], variable: str, kind: str) -> dict[str, Any]:
    """[month or hour]["strict"][label] -> scores."""
    parts: dict[str, Any] = {}
    for system in systems:
        for key, protocols in system.entry.record["variables"][variable][kind].items():
            scores = _numbers(protocols["strict"][system.forecast])
            parts.setdefault(key, {}).setdefault("strict", {})[system.label] = scores
    return parts


def _numbers(value: Any) -> Any:
    """What JSON holds, with NaN for null."""
    if isinstance(value, Mapping):
        return {key: _numbers(held) for key, held in value.items()}
    if isinstance(value, list):
        return [_numbers(held) for held in value]
    return math.nan if value is None else value


def _labels(systems: Iterable[System]) -> list[str]:
    return [system.label for system in systems]


def _listed(names: Iterable[str]) -> str:
    """Names in a sentence.

    >>> _listed(["a", "b", "c"])
    'a, b and c'
    """
    *head, last = names
    return f"{', '.join(head)} and {last}" if head else last
