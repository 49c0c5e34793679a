"""A comparison as text: a table for the terminal, the published scores, and a CSV of everything."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from jobs.forecasts.comparison.evaluations import KeptEvaluation, systems_of
from jobs.forecasts.comparison.pairs import Pair, Sums, pairs_of, verdict
from jobs.forecasts.comparison.published import Published
from jobs.forecasts.scoring.score_names import chosen, score_name, short_name
from jobs.forecasts.scoring.score_rows import Score
from jobs.forecasts.scoring.text import (
    column,
    interval,
    lead_labels,
    number,
    resampling,
    shown_units,
)

CSV_HEADER = (
    "evaluation",
    "forecast",
    "less",
    "variable",
    "units",
    "protocol",
    "score",
    "lead",
    "value",
    "low",
    "high",
)
"""`less` is what is subtracted, in rows of differences. `lead` is `overall`, seconds, or frames if
the archive has no times. `low` and `high` are the ends of the interval."""


def headline(evaluations: Sequence[KeptEvaluation], protocol: str) -> str:
    """Return one line on what was scored."""
    first = evaluations[0].evaluation
    labels = lead_labels(first.lead_seconds, first.timed)
    period = " to ".join(map(str, first.period))
    return (
        f"{evaluations[0].provenance.title}: {first.split}, {period}, "
        f"{first.windows_scored:,} windows, {labels[0]}, {labels[-1]}, protocol {protocol}"
    )


def table(evaluations: Sequence[KeptEvaluation], protocol: str, sums: Sums) -> list[str]:
    """Return the scores over all lead times, a row per model and baseline, and the differences."""
    lines = [headline(evaluations, protocol)]
    for scored in evaluations[0].evaluation.scores:
        variable = scored.label
        overall = {
            system.label: system.kept.evaluation.scores_of(variable).scores.means(
                protocol, system.forecast
            )
            for system in systems_of(evaluations, variable, protocol)
        }
        names = chosen(overall)
        heads = [short_name(name) for name in names]
        columns = [column([row.get(name, math.nan) for row in overall.values()]) for name in names]
        lines += ["", ", ".join(filter(None, (variable, shown_units(scored.units))))]
        lines += _aligned(["", *heads], [[k, *v] for k, *v in zip(overall, *columns, strict=True)])
        pairs = pairs_of(evaluations, sums, variable, protocol)
        lines += ["", f"differences of {heads[0]}, first less second"]
        lines += _aligned(["", heads[0], "interval", ""], [_row(pair, names[0]) for pair in pairs])
    bootstrap = sums.bootstrap
    why = f"no intervals: {bootstrap.none}" if bootstrap.none else resampling(bootstrap)
    return [*lines, why]


def published_lines(published: Published | str, evaluations: Sequence[KeptEvaluation]) -> list[str]:
    """Return the published scores, and those of ours that have the same conventions."""
    if isinstance(published, str):
        return ["", published] if published else []
    lines = ["", f"PUBLISHED, not measured here: {published.table}", f"  {published.setting}"]
    rows = [[f"  {name}", *values] for name, values in published.rows.items()]
    lines += _aligned(["", *published.columns], rows)
    if published.ours:
        windows = evaluations[0].evaluation.windows_scored
        lines.append(f"ours in the same conventions ({published.protocol}), {windows:,} windows:")
        rows = [[f"  {name}", *values] for name, values in published.ours.items()]
        lines += _aligned(["", *published.columns], rows)
    if published.apart:
        some = "others of ours" if published.ours else "ours"
        lines.append(f"  {some} are not shown beside them: {published.apart}")
    return lines


def as_csv(evaluations: Sequence[KeptEvaluation], sums: Sums) -> str:
    """Return every score and every difference of every protocol, overall and by lead time."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for kept in evaluations:
        for scored in kept.evaluation.scores:
            for row in scored.scores.select("all"):
                head = (kept.label, row.system, "", row.variable, scored.units)
                writer.writerow((*head, *_cells(row)))
    for scored in evaluations[0].evaluation.scores:
        for protocol in scored.protocols:
            for pair in pairs_of(evaluations, sums, scored.label, protocol):
                one, other = pair.first, pair.second
                head = (one.label, one.forecast, other.label, scored.label, scored.units)
                writer.writerows((*head, *_cells(row)) for row in pair.scores)
    return text.getvalue()


def _cells(row: Score) -> tuple[str | int | float, ...]:
    lead = "overall" if row.lead is None else row.lead
    ends = ("" if end is None or math.isnan(end) else end for end in (row.low, row.high))
    return (row.protocol, row.name, lead, row.value, *ends)


def _row(pair: Pair, name: str) -> list[str]:
    difference = pair.overall(name)
    return [
        f"{pair.first.label} less {pair.second.label}",
        number(difference.value),
        interval(*difference.interval),
        verdict(difference, score_name(name).better),
    ]


def _aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table as lines of text: its first column to the left, the others to the right."""
    widths = [max(map(len, cells)) for cells in zip(head, *rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    ]
