"""One self-contained HTML page that compares evaluations: tables, curves and differences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from jobs.forecasts.comparison.evaluations import KeptEvaluation, System, systems_of
from jobs.forecasts.comparison.pairs import Pair, Sums, pairs_of, verdict
from jobs.forecasts.comparison.published import Published
from jobs.forecasts.reports import charts, tables
from jobs.forecasts.reports.cases import moment
from jobs.forecasts.reports.template import fill_page
from jobs.forecasts.scoring import text
from jobs.forecasts.scoring.score_names import BETTER, chosen, score_name
from jobs.forecasts.scoring.score_rows import MODEL, STRICT, Curve, Score, Scores, skill_rows
from jobs.forecasts.scoring.scores import PERSISTENCE, Evaluation, GroupScores


def comparison_page(
    evaluations: Sequence[KeptEvaluation], protocol: str, sums: Sums, published: Published | str
) -> str:
    """Return the comparison as one HTML page.

    Parameters
    ----------
    protocol:
        The protocol whose table comes first. Curves of differences show its first score.
    """
    evaluation, provenance = evaluations[0].evaluation, evaluations[0].provenance
    # What all evaluations share is read from the first. Intervals and members are not shared.
    evaluation = replace(evaluation, bootstrap=None, members=None)
    bootstrap = sums.bootstrap
    return fill_page(
        "comparison.html",
        {
            "entries": evaluations,
            "models": _listed(entry.label for entry in evaluations),
            "e": evaluation,
            "p": provenance,
            "windows": text.windows(evaluation),
            "leads": text.lead_labels(evaluation.lead_seconds, evaluation.timed),
            "groups": [
                {
                    "id": f"scores-{place}",
                    **_group(evaluations, evaluation, variable, protocol, sums),
                }
                for place, variable in enumerate(evaluation.labels, start=1)
            ],
            "notes": {kept.label: kept.evaluation.notes for kept in evaluations},
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
    overall = {system.label: item.scores.means(protocol, system.label) for system in systems}
    names = [name for name in chosen(overall) if score_name(name).heading]
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
        "name": item.long_name,
        "units": tables.units_of(item),
        "tables": tables.score_tables(evaluation, item, protocol),
        "by_lead": tables.by_lead(evaluation, item),
        "slices": tables.slices(item),
        "charts": [group for group in groups if group.charts or group.note],
        "pairs": _pair_table(item, pairs, names),
    }


def _pair_table(item: GroupScores, pairs: Sequence[Pair], names: Sequence[str]) -> dict[str, Any]:
    """Return a row per pair and a column per score: difference, interval and verdict."""
    heads = []
    for known in map(score_name, names):
        units = known.units_for(item.units)
        heads.append((known.heading, ", ".join(filter(None, (units, BETTER[known.better])))))
    rows = []
    for pair in pairs:
        cells = []
        for name in names:
            difference = pair.overall(name)
            cells.append(
                {
                    "value": text.number(difference.value),
                    "interval": text.interval(*difference.interval),
                    "verdict": verdict(difference, score_name(name).better),
                    "certain": difference.is_significant,
                }
            )
        rows.append((pair.first.label, pair.second.label, cells))
    return {"heads": heads, "rows": rows}


def _differences(
    drawn: charts.ScoreCharts,
    item: GroupScores,
    pairs: Sequence[Pair],
    systems: Sequence[System],
    name: str,
) -> charts.Charts:
    """Return a chart of one score: every other forecast minus the first model, by lead time."""
    first = systems[0].label
    beside = [pair for pair in pairs if pair.first.label == first]
    if not beside:
        return charts.Charts("", ())
    # A pair holds the first minus the other. The chart shows the other minus the first.
    rows = {pair.second.label: _turned(pair.per_lead(name)) for pair in beside}
    tested = any(map(_is_tested, rows.values()))
    known = score_name(name)
    units = known.units_for(item.units)
    label = f"difference of {known.heading}" + (f" ({units})" if units else "")
    title = f"{known.heading} less that of {first}"
    note = "Where a band holds 0, the two are not distinguishable at that lead time."
    if not tested:
        note = "Without intervals: see above."
    if known.better in ("lower", "higher"):
        note += f" {'Above' if known.better == 'lower' else 'Below'} 0 {first} is better."
    chart = drawn.differences(title, rows, label)
    return charts.Charts(f"Differences from {first}", (chart,), note)


def _turned(rows: Scores) -> Scores:
    """Return differences with the opposite sign; drop all intervals if one is missing."""
    if not _is_tested(rows):
        return Scores(replace(row, value=-row.value, low=None, high=None) for row in rows)
    ends = ((-row.interval[1], -row.interval[0]) for row in rows)
    return Scores(
        replace(row, value=-row.value, low=low, high=high)
        for row, (low, high) in zip(rows, ends, strict=True)
    )


def _is_tested(rows: Scores) -> bool:
    """Return whether the interval of every lead time is known."""
    return all(row.has_interval for row in rows)


def _merged(evaluations: Sequence[KeptEvaluation], variable: str) -> GroupScores:
    """Return the scores of all models and of the first evaluation's baselines, by their labels.

    Intervals by lead time are left out, because they mislead: the bands of two models that were
    scored on the same days can overlap although their difference is significant.
    """
    first = evaluations[0].evaluation.scores_of(variable)
    systems = systems_of(evaluations, variable, STRICT)
    same_scale = len({kept.evaluation.openstl_scale for kept in evaluations}) == 1
    rows: list[Score] = []
    curves: dict[str, dict[str, dict[str, Curve]]] = {}
    for system in systems:
        scored = system.kept.evaluation.scores_of(variable)
        for row in scored.scores.select("all", "month", "hour", system=system.forecast):
            if row.protocol == "openstl" and not same_scale:
                continue
            named = replace(row, system=system.label)
            rows.append(named if row.lead is None else replace(named, low=None, high=None))
        for protocol, found in scored.curves.items():
            if system.forecast in found:
                curves.setdefault(protocol, {})[system.label] = dict(found[system.forecast])
    known = Scores(rows)
    models = [system.label for system in systems if system.forecast == MODEL]
    skill = (row for model in models for row in skill_rows(known, PERSISTENCE, model))
    return replace(first, scores=Scores((*known, *skill)), curves=curves)


def _listed(names: Iterable[str]) -> str:
    """Join names for a sentence.

    >>> _listed(["a", "b", "c"])
    'a, b and c'
    """
    *head, last = names
    return f"{', '.join(head)} and {last}" if head else last
