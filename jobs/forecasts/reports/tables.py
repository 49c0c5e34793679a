"""Tables of scores for the pages: by protocol, by lead time, by month, by hour, by channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jobs.forecasts.scoring import text
from jobs.forecasts.scoring.score_names import BETTER, score_name
from jobs.forecasts.scoring.score_rows import MODEL, STRICT, Kind, Part, Score
from jobs.forecasts.scoring.scores import BASELINES, Evaluation, GroupScores

TABLE_LEADS = 6
"""Most lead times in a table."""

OPEN = ("weather", "radar", "ensemble")
"""Protocols whose tables are unfolded when the page opens, besides the first table."""


def score_tables(evaluation: Evaluation, item: GroupScores, first: str) -> list[dict[str, Any]]:
    """Return one table per protocol, with the table of the protocol `first` at the beginning."""
    ordered = sorted(item.protocols, key=lambda protocol: protocol != first)
    tables = [_table(evaluation, protocol, item) for protocol in ordered]
    return [table for table in tables if table["columns"]]


def _table(evaluation: Evaluation, protocol: str, item: GroupScores) -> dict[str, Any]:
    """Return the scores of one protocol over all lead times: one row per system."""
    systems = item.systems(protocol)
    scores = {system: item.scores.means(protocol, system) for system in systems}
    first = scores[systems[0]]
    names = [name for name in first if all(name in found for found in scores.values())]
    names = [name for name in names if score_name(name).heading]
    # A score that no system has gets no column, unless the table would then have no column.
    empty = [name for name in names if all(np.isnan(found[name]) for found in scores.values())]
    absent = empty if len(empty) < len(names) else []
    columns = [
        _column(item, [item.scores.overall(protocol, system, name) for system in systems], first)
        for name in names
        if name not in absent
    ]
    notes = {
        "openstl": f"Scale: {evaluation.openstl_scale}.",
        "ensemble": f"{evaluation.members} members." if evaluation.members else "",
        "radar": f"Thresholds in {item.units} unless they say otherwise.",
    }
    return {
        "protocol": protocol,
        "note": notes.get(protocol, ""),
        "absent": [score_name(name).heading for name in absent],
        "columns": columns,
        "rows": list(systems),
        "models": [system for system in systems if system not in BASELINES],
        "open": protocol in OPEN,
        "uncertain": any(any(column["intervals"]) for column in columns),
    }


def _column(item: GroupScores, rows: Sequence[Score], first: Mapping[str, float]) -> dict[str, Any]:
    """Return one column of a table: the same score of every system.

    Parameters
    ----------
    first:
        All scores of the first system. A bias is shown with as many decimals as its RMSE.
    """
    known = score_name(rows[0].name)
    values = [row.value for row in rows]
    return {
        "heading": known.heading,
        "units": known.units_for(item.units),
        "better": BETTER[known.better],
        "values": text.column(values, first.get("rmse") if rows[0].name == "bias" else None),
        "intervals": [text.interval(*row.interval) for row in rows],
        "best": _best(values, known.better),
    }


def _best(values: Sequence[float], better: str) -> int | None:
    """Return the index of the best value, or None if all values are missing or equal."""
    badness = {
        "lower": values,
        "higher": [-v for v in values],
        "zero": [abs(v) for v in values],
        "one": [abs(v - 1) for v in values],
    }
    if better not in badness:
        return None
    ranked = np.asarray(badness[better], float)
    if np.isnan(ranked).all() or np.nanmax(ranked) == np.nanmin(ranked):
        return None
    return int(np.nanargmin(ranked))


def by_lead(evaluation: Evaluation, item: GroupScores) -> dict[str, Any]:
    """Return a table of the RMSE of every system at some lead times.

    If one model is scored beside baselines, the table also has its skill over each baseline.
    """
    chosen = text.several(len(evaluation.lead_seconds), TABLE_LEADS)
    labels = text.lead_labels(evaluation.lead_seconds, evaluation.timed)
    rows = []
    for system in item.forecasts:
        values = item.strict_per_lead(system, "rmse")
        rows.append((f"{system}, RMSE", [text.number(values[lead]) for lead in chosen]))
    alone = MODEL in item.forecasts
    for baseline in item.baselines if alone else ():
        skill = item.skill_per_lead(baseline).values
        rows.append((f"skill over {baseline}", [text.skill_number(skill[lead]) for lead in chosen]))
    unit = f" in {units_of(item)}" if units_of(item) else ""
    return {
        "caption": f"RMSE{unit}{', and skill over the baselines' if alone else ''} "
        "(protocol strict)",
        "heads": [labels[lead] for lead in chosen],
        "rows": rows,
    }


def slices(item: GroupScores) -> list[dict[str, Any]]:
    """Return tables of the RMSE of every system by calendar month, by hour and by channel."""
    kinds: tuple[tuple[Kind, str, str, int], ...] = (
        ("month", "By month", "calendar month of the valid time", 2),
        ("hour", "By hour", "hour (UTC) of the valid time", 2),
        ("channel", "By channel", "channel", 1),
    )
    found = []
    for kind, title, what, fewest in kinds:
        parts = item.scores.select(kind, protocol=STRICT).parts
        if len(parts) >= fewest:
            found.append(_slice(title, f"RMSE by {what}, all lead times together", item, parts))
    return found


def _slice(title: str, caption: str, item: GroupScores, parts: Sequence[Part]) -> dict[str, Any]:
    rows = [
        (
            system,
            text.column(
                [item.scores.overall(STRICT, system, "rmse", part).value for part in parts]
            ),
        )
        for system in item.forecasts
    ]
    heads = [part.name for part in parts]
    return {"title": title, "caption": caption, "heads": heads, "rows": rows}


def units_of(item: GroupScores) -> str:
    """Return the units of a variable in readable form."""
    return text.shown_units(item.units)
