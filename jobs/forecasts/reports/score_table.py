"""Every score as one row of a table: who, what, of which part, how much, how sure."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jobs.forecasts.scoring.scores import MODEL, Evaluation, GroupScores

COLUMNS = (
    "system",
    "variable",
    "channel",
    "units",
    "protocol",
    "metric",
    "group_kind",
    "group",
    "lead",
    "value",
    "low",
    "high",
)
"""``group_kind`` is ``all``, ``month``, ``hour``, ``channel``, ``difference`` (of the model less
the baseline ``group``) or ``skill`` (over it); ``lead`` is ``all``, seconds, or frames where the
archive has no time; ``units`` are those of the variable; empty: no value, or no interval."""

_Row = tuple[Any, ...]


def as_csv(evaluation: Evaluation) -> str:
    """The table with its header; a score that does not exist has an empty value."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    leads = evaluation.lead_seconds
    for item in evaluation.scores:
        for row in _rows(item, leads):
            system, channel, protocol, metric, kind, group, lead, *numbers = row
            writer.writerow(
                (
                    *(system, item.group.label, channel, item.group.units, protocol, metric),
                    *(kind, group, lead),
                    *map(_text, numbers),
                )
            )
    return text.getvalue()


def _rows(item: GroupScores, leads: Sequence[int]) -> Iterator[_Row]:
    for protocol, systems in item.protocols.items():
        for system, result in systems.items():
            ends = item.intervals.get(protocol, {}).get(system, {})
            head = system, "", protocol
            yield from _result(head, ("all", ""), result, ends, leads)
    for kind, groups in (("month", item.months), ("hour", item.hours)):
        for group, protocols in groups.items():
            for protocol, systems in protocols.items():
                for system, scores in systems.items():
                    for name, value in scores.items():
                        yield system, "", protocol, name, kind, group, "all", value, None, None
    for channel, systems in item.channels.items():
        for system, result in systems.items():
            head = system, channel, "strict"
            yield from _result(head, ("channel", channel), result, {}, leads)
    for protocol, baselines in item.differences.items():
        for baseline, found in baselines.items():
            for name, entry in found["overall"].items():
                yield _difference(protocol, baseline, name, "all", entry)
            for name, entries in found["per_lead"].items():
                for lead, entry in zip(leads, entries, strict=True):
                    yield _difference(protocol, baseline, name, lead, entry)
    for baseline in item.baselines:
        skill, ends = item.skill(baseline), item.skill_intervals.get(baseline, {})
        head = MODEL, "", "strict", "skill", "skill", baseline
        yield (*head, "all", skill["overall"], *ends.get("overall", (None, None)))
        by_lead = ends.get("per_lead", [(None, None)] * len(leads))
        for lead, value, two in zip(leads, skill["per_lead"], by_lead, strict=True):
            yield (*head, lead, value, *two)


def _result(
    head: tuple[str, str, str],
    group: tuple[str, str],
    result: Mapping[str, Any],
    ends: Mapping[str, Any],
    leads: Sequence[int],
) -> Iterator[_Row]:
    none = None, None
    for name, value in result["overall"].items():
        yield (*head, name, *group, "all", value, *ends.get("overall", {}).get(name, none))
    for name, values in result["per_lead"].items():
        by_lead = ends.get("per_lead", {}).get(name, [none] * len(leads))
        for lead, value, two in zip(leads, values, by_lead, strict=True):
            yield (*head, name, *group, lead, value, *two)


def _difference(
    protocol: str, baseline: str, name: str, lead: Any, entry: Mapping[str, Any]
) -> _Row:
    numbers = entry["difference"], entry["low"], entry["high"]
    return (MODEL, "", protocol, name, "difference", baseline, lead, *numbers)


def _text(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else repr(float(value))
