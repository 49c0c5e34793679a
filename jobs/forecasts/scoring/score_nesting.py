"""The nesting in which `scores.json` holds scores. Only this module knows it.

    protocols        [protocol][system] -> result of the metrics: overall, per_lead, curves
    intervals        [protocol][system] -> overall, per_lead
    differences      [protocol][baseline] -> overall, per_lead, of the model less the baseline
    skill            [baseline] -> overall, per_lead
    skill_intervals  [baseline] -> overall, per_lead
    months, hours    [month or hour, two digits][protocol][system] -> {score: value}
    channels         [channel][system] -> result of the metrics under protocol strict

`overall` is {score: value or interval}, `per_lead` {score: one value or interval per lead time}. An
entry of a difference has `difference`, `low`, `high` and `significant`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from jobs.forecasts.scoring.score_rows import (
    ALL,
    MODEL,
    STRICT,
    Curve,
    Curves,
    Part,
    Score,
    Scores,
    skill_rows,
)


def read_nested(variable: str, found: Mapping[str, Any], leads: Sequence[int]) -> Scores:
    """Return the rows of one variable from the nesting of `scores.json`, in the order of the CSV.

    Parameters
    ----------
    found:
        `protocols`, and the others if they exist. The skill is computed, not read.
    leads:
        The lead times of `per_lead`.
    """
    read = NestedReader(variable, leads)
    rows = [
        row
        for protocol, systems in found["protocols"].items()
        for system, result in systems.items()
        for row in read.results(
            ALL, protocol, system, result, _at(found, "intervals", protocol, system)
        )
    ]
    strict = Scores(rows)
    rows += read.calendar("month", found.get("months", {}))
    rows += read.calendar("hour", found.get("hours", {}))
    for channel, systems in found.get("channels", {}).items():
        for system, result in systems.items():
            rows += read.results(Part("channel", channel), STRICT, system, result, {})
    for protocol, baselines in found.get("differences", {}).items():
        for baseline, entries in baselines.items():
            rows += read.differences(protocol, MODEL, baseline, entries)
    model, *baselines = strict.select(protocol=STRICT).systems
    for baseline in baselines if model == MODEL else ():
        skill = skill_rows(strict, baseline)
        rows += read.with_ends(skill, _at(found, "skill_intervals", baseline))
    return Scores(rows)


@dataclass(frozen=True)
class NestedReader:
    """Reads parts of the nesting of `scores.json` for one variable."""

    variable: str
    leads: Sequence[int]

    def results(
        self,
        part: Part,
        protocol: str,
        system: str,
        result: Mapping[str, Any],
        intervals: Mapping[str, Any],
    ) -> list[Score]:
        """Return the rows of one result of the metrics, with its intervals if there are any."""
        rows = []
        for lead, name, value, ends in self._flat(result, intervals):
            rows.append(
                Score(self.variable, part, protocol, system, lead, name, nan_for_null(value), *ends)
            )
        return rows

    def differences(
        self, protocol: str, system: str, other: str, entries: Mapping[str, Any]
    ) -> list[Score]:
        """Return the rows of the differences of a system from another, each with its interval."""
        part = Part("difference", other)
        rows = []
        for lead, name, entry, _ in self._flat(entries, {}):
            value, low, high = (nan_for_null(entry[key]) for key in ("difference", "low", "high"))
            rows.append(Score(self.variable, part, protocol, system, lead, name, value, low, high))
        return rows

    def calendar(self, kind: Literal["month", "hour"], found: Mapping[str, Any]) -> list[Score]:
        """Return the rows of every month, or of every hour."""
        return [
            Score(self.variable, Part(kind, key), protocol, system, None, name, nan_for_null(value))
            for key, protocols in found.items()
            for protocol, systems in protocols.items()
            for system, scores in systems.items()
            for name, value in scores.items()
        ]

    def with_ends(self, rows: Iterable[Score], intervals: Mapping[str, Any]) -> list[Score]:
        """Return rows of one score, first of all lead times, with their intervals."""
        if not intervals:
            return list(rows)
        ends = [intervals["overall"], *intervals["per_lead"]]
        return [
            replace(row, low=nan_for_null(low), high=nan_for_null(high))
            for row, (low, high) in zip(rows, ends, strict=True)
        ]

    def _flat(
        self, found: Mapping[str, Any], intervals: Mapping[str, Any]
    ) -> Iterator[tuple[int | None, str, Any, Sequence[float | None]]]:
        """Yield (lead, score, what is there, both ends) of `overall`, then of `per_lead`."""
        unknown = (None, None)
        for name, value in found["overall"].items():
            ends = nan_for_null(_at(intervals, "overall").get(name, []))
            yield None, name, value, ends or unknown
        for name, values in found["per_lead"].items():
            ends = nan_for_null(_at(intervals, "per_lead").get(name, [])) or [unknown] * len(values)
            for lead, value, two in zip(self.leads, values, ends, strict=True):
                yield lead, name, value, two


def read_curves(protocols: Mapping[str, Any]) -> Curves:
    """Return the curves of the results of the metrics."""
    return {
        protocol: {
            system: {name: Curve(**nan_for_null(curve)) for name, curve in result["curves"].items()}
            for system, result in systems.items()
            if "curves" in result
        }
        for protocol, systems in protocols.items()
    }


def nested(scores: Scores, curves: Curves) -> dict[str, Any]:
    """Return the nesting of `scores.json`, the inverse of `read_nested` and `read_curves`."""
    everything = scores.select("all")
    protocols = {
        protocol: {
            system: _result(everything.select(protocol=protocol, system=system))
            | _curves(curves.get(protocol, {}).get(system, {}))
            for system in everything.select(protocol=protocol).systems
        }
        for protocol in everything.protocols
    }
    resampled = Scores(row for row in everything if row.low is not None)
    skill = scores.select("skill")
    return {
        "protocols": protocols,
        "skill": {part.name: _only(_result(skill.select(part=part))) for part in skill.parts},
        "intervals": {
            protocol: {
                system: _result(resampled.select(protocol=protocol, system=system), _ends)
                for system in resampled.select(protocol=protocol).systems
            }
            for protocol in resampled.protocols
        },
        "differences": {
            protocol: {
                part.name: _result(found.select(part=part), _difference) for part in found.parts
            }
            for protocol in resampled.protocols
            for found in [scores.select("difference", protocol=protocol)]
        },
        "skill_intervals": {
            part.name: _only(_result(skill.select(part=part), _ends))
            for part in skill.parts
            if skill.select(part=part)[0].low is not None
        },
        "months": _calendar(scores.select("month")),
        "hours": _calendar(scores.select("hour")),
        "channels": {
            part.name: {
                system: _result(scores.select(part=part, system=system))
                for system in scores.select(part=part).systems
            }
            for part in scores.select("channel").parts
        },
    }


def _result(rows: Scores, held: Callable[[Score], Any] = lambda row: row.value) -> dict[str, Any]:
    """Return `overall` and `per_lead` of one system."""
    overall: dict[str, Any] = {}
    per_lead: dict[str, list[Any]] = {}
    for row in rows:
        if row.lead is None:
            overall[row.name] = held(row)
        else:
            per_lead.setdefault(row.name, []).append(held(row))
    return {"overall": overall, "per_lead": per_lead}


def _only(result: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the same without the name, where there is one score."""
    return {kind: next(iter(found.values())) for kind, found in result.items()}


def _ends(row: Score) -> list[float | None]:
    return [row.low, row.high]


def _difference(row: Score) -> dict[str, Any]:
    low, high = row.interval
    significant = row.is_significant
    return {"difference": row.value, "low": low, "high": high, "significant": significant}


def _curves(curves: Mapping[str, Curve]) -> dict[str, Any]:
    return {"curves": {name: dict(vars(curve)) for name, curve in curves.items()}} if curves else {}


def _calendar(rows: Scores) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for row in rows:
        own = found.setdefault(row.part.name, {}).setdefault(row.protocol, {})
        own.setdefault(row.system, {})[row.name] = row.value
    return found


def _at(found: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """Return what lies under several keys, an empty mapping if one is missing."""
    for key in keys:
        found = found.get(key, {})
    return found


def nan_for_null(value: Any) -> Any:
    """Return what JSON holds, with NaN in place of null.

    >>> nan_for_null({"overall": [1.0, None]})
    {'overall': [1.0, nan]}
    """
    if isinstance(value, Mapping):
        return {key: nan_for_null(held) for key, held in value.items()}
    if isinstance(value, (list, tuple)):
        return [nan_for_null(held) for held in value]
    return math.nan if value is None else value
