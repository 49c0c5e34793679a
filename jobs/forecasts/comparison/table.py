"""A comparison as text: a table for the terminal, the published block, and a CSV of everything."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from typing import Any

from jobs.forecasts.comparison.evaluations import KeptEvaluation, System, systems_of
from jobs.forecasts.comparison.pairs import Pair, Sums, pairs_of, verdict
from jobs.forecasts.comparison.published import Published
from jobs.forecasts.reports.tables import column_of
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
"""``less``: what is subtracted, in rows of differences; ``lead`` is ``overall``, seconds, or frames
where the archive has no time; ``low`` and ``high`` are the ends of the interval."""
_LABELS = {
    "rmse": "RMSE",
    "mae": "MAE",
    "bias": "bias",
    "ssim": "SSIM",
    "psnr": "PSNR",
    "rmse_spatial_norm": "RMSE",
    "mae_spatial_norm": "MAE",
    "mse_pixel_sum": "MSE sum",
    "mae_pixel_sum": "MAE sum",
    "ssim_uniform7_range2_clipped": "SSIM",
    "psnr_frame_mean_clipped": "PSNR",
}
"""scores that the table shows where there are any, by their names; the CSV holds all"""


def headline(evaluations: Sequence[KeptEvaluation], protocol: str) -> str:
    """What was scored, in a line."""
    first = evaluations[0].record
    labels = lead_labels(evaluations[0].leads, first["lead_seconds"] is not None)
    period = " to ".join(map(str, first["period"]))
    return (
        f"{first['title']}: {first['split']}, {period}, {first['windows']['scored']:,} windows, "
        f"{labels[0]}, {labels[-1]}, protocol {protocol}"
    )


def table(evaluations: Sequence[KeptEvaluation], protocol: str, sums: Sums) -> list[str]:
    """Overall scores, a row for each model and then for each baseline, and how models differ."""
    lines = [headline(evaluations, protocol)]
    for variable, described in evaluations[0].record["variables"].items():
        overall = {
            system.label: system.entry.scores(variable, protocol, system.forecast)["overall"]
            for system in systems_of(evaluations, variable, protocol)
        }
        names = shown(overall)
        heads = [_LABELS.get(name, name) for name in names]
        columns = [column([_value(row.get(name)) for row in overall.values()]) for name in names]
        lines += ["", ", ".join(filter(None, (variable, shown_units(described["units"]))))]
        lines += _aligned(["", *heads], [[k, *v] for k, *v in zip(overall, *columns, strict=True)])
        pairs = pairs_of(evaluations, sums, variable, protocol)
        lines += ["", f"differences of {heads[0]}, first less second"]
        lines += _aligned(["", heads[0], "interval", ""], [_row(pair, names[0]) for pair in pairs])
    bootstrap = sums.bootstrap
    why = f"no intervals: {bootstrap.none}" if bootstrap.none else resampling(bootstrap)
    return [*lines, why]


def shown(overall: dict[str, dict[str, Any]]) -> list[str]:
    """The scores that tables show: those that people know, or the first ones."""
    first = next(iter(overall.values()))
    common = [name for name in first if all(name in scores for scores in overall.values())]
    events = [name for name in common if name.startswith(("csi_", "fss_"))]
    return [name for name in _LABELS if name in common] or events[:6] or common[:6]


def published_lines(published: Published | str, evaluations: Sequence[KeptEvaluation]) -> list[str]:
    """The published scores, and those of ours that have the same convention."""
    if isinstance(published, str):
        return ["", published] if published else []
    lines = ["", f"PUBLISHED, not measured here: {published.table}", f"  {published.setting}"]
    rows = [[f"  {name}", *values] for name, values in published.rows.items()]
    lines += _aligned(["", *published.columns], rows)
    if published.ours:
        windows = evaluations[0].record["windows"]["scored"]
        lines.append(f"ours in the same conventions ({published.protocol}), {windows:,} windows:")
        rows = [[f"  {name}", *values] for name, values in published.ours.items()]
        lines += _aligned(["", *published.columns], rows)
    if published.apart:
        some = "others of ours" if published.ours else "ours"
        lines.append(f"  {some} are not shown beside them: {published.apart}")
    return lines


def as_csv(evaluations: Sequence[KeptEvaluation], sums: Sums) -> str:
    """Every score and every difference of every protocol, overall and by lead time."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for entry in evaluations:
        writer.writerows(_score_rows(entry))
    for variable, described in evaluations[0].record["variables"].items():
        for protocol in described["protocols"]:
            systems = {s.label: s for s in systems_of(evaluations, variable, protocol)}
            for pair in pairs_of(evaluations, sums, variable, protocol):
                one = systems[pair.first]
                head = (one.label, one.forecast, pair.second, variable, described["units"])
                writer.writerows(_difference_rows(pair, (*head, protocol), one))
    return text.getvalue()


def _score_rows(entry: KeptEvaluation) -> Iterator[tuple[Any, ...]]:
    for variable, described in entry.record["variables"].items():
        for protocol, forecasts in described["protocols"].items():
            for forecast, result in forecasts.items():
                head = (entry.label, forecast, "", variable, described["units"], protocol)
                ends = described.get("intervals", {}).get(protocol, {}).get(forecast, {})
                for name, value in result["overall"].items():
                    two = ends.get("overall", {}).get(name, (None, None))
                    yield (*head, name, "overall", _value(value), *map(_end, two))
                for name, values in result["per_lead"].items():
                    by_lead = ends.get("per_lead", {}).get(name, [(None, None)] * len(values))
                    for lead, value, two in zip(entry.leads, values, by_lead, strict=True):
                        yield (*head, name, lead, _value(value), *map(_end, two))


def _difference_rows(
    pair: Pair, head: tuple[str, ...], system: System
) -> Iterator[tuple[Any, ...]]:
    def numbers(entry: dict[str, Any]) -> tuple[Any, ...]:
        return (entry["difference"], _end(entry["low"]), _end(entry["high"]))

    for name, entry in pair.overall.items():
        yield (*head, name, "overall", *numbers(entry))
    for name, entries in pair.per_lead.items():
        for lead, entry in zip(system.entry.leads, entries, strict=True):
            yield (*head, name, lead, *numbers(entry))


def _row(pair: Pair, name: str) -> list[str]:
    entry = pair.overall[name]
    return [
        f"{pair.first} less {pair.second}",
        number(entry["difference"]),
        interval(entry["low"], entry["high"]),
        verdict(entry, column_of(name)[2]),
    ]


def _value(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _end(value: float | None) -> float | str:
    return "" if value is None or math.isnan(value) else float(value)


def _aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of text: the first to the left, the others to the right."""
    widths = [max(map(len, cells)) for cells in zip(head, *rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    ]
