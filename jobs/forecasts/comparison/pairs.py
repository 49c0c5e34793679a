"""How models that were scored on the same windows differ, pair by pair, and whether they do.

The days of the test period are drawn anew with replacement, the same days for both models of a pair
(a paired bootstrap), and each score is computed anew from the sums of those days; see
``intervals``. Where the interval of the difference holds 0 the two are not distinguishable.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jobs.command_line import check_seed
from jobs.forecasts.comparison.evaluations import KeptEvaluation, System, systems_of
from jobs.forecasts.scoring.bootstrap import (
    Samples,
    check_resamples,
    differences_of,
    draw,
    plan_bootstrap,
    resampled,
)
from jobs.forecasts.scoring.scores import BASELINES, Bootstrap
from jobs.forecasts.scoring.sums import DailySums, read_daily_sums
from pipelines.errors import UsageError

_Both = tuple[Samples, Samples]


@dataclass(frozen=True)
class Pair:
    """One forecast less another: of each score the difference and its interval."""

    first: str
    second: str
    overall: dict[str, dict[str, Any]]
    """score -> entry, see ``intervals.differences_of``"""
    per_lead: dict[str, list[dict[str, Any]]]
    """score -> T entries"""


@dataclass(frozen=True)
class Sums:
    """The sums of all evaluations, and how they are drawn."""

    bootstrap: Bootstrap
    by_uri: dict[str, DailySums]
    """of the evaluations; nothing where one has none"""


def read_sums(evaluations: Sequence[KeptEvaluation], resamples: int, seed: int) -> Sums:
    """Read the sums beside the evaluations, of each only those that its scores were made of.

    Raises
    ------
    UsageError
        Two evaluations have windows of other days, ``resamples`` are too few, or there is no such
        seed.
    """
    check_resamples(resamples)
    check_seed(seed)
    found = {
        entry.uri: read_daily_sums(entry.sums_uri, entry.record.get("sums_sha256"))
        for entry in evaluations
    }
    lacking = [f"{why} beside {uri}" for uri, why in found.items() if isinstance(why, str)]
    if lacking:
        none = f"{'; '.join(lacking)}: run evaluate.py again there"
        return Sums(Bootstrap("day", 0, resamples, math.nan, seed, none), {})
    known = {uri: sums for uri, sums in found.items() if isinstance(sums, DailySums)}
    (first, ours), *others = known.items()
    for uri, theirs in others:
        if not np.array_equal(ours.units, theirs.units):
            raise UsageError(
                "these scores are not comparable, the days of the windows differ",
                where=f"{first} and {uri}",
                remedy="evaluate both on the same store, split and --max_windows",
            )
    return Sums(plan_bootstrap(ours.unit, len(ours.units), resamples, seed), known)


def pairs_of(
    evaluations: Sequence[KeptEvaluation], sums: Sums, variable: str, protocol: str
) -> tuple[Pair, ...]:
    """Every model less every other, and every model less every baseline, of one variable."""
    systems = systems_of(evaluations, variable, protocol)
    counts = None if sums.bootstrap.none else draw(sums.bootstrap)
    drawn = {system.label: _samples(system, sums, variable, protocol, counts) for system in systems}
    return tuple(
        _pair(one, other, variable, protocol, drawn[one.label], drawn[other.label])
        for one, other in itertools.combinations(systems, 2)
        if one.label not in BASELINES
    )


def verdict(entry: Mapping[str, Any], better: str) -> str:
    """What a difference says, in words; ``better`` as of ``page_tables.COLUMNS``.

    >>> entry = {"difference": -1.0, "low": -2.0, "high": -0.5, "significant": True}
    >>> verdict(entry, "lower"), verdict({**entry, "significant": False}, "lower")
    ('first is better', 'not distinguishable')
    """
    if not math.isfinite(entry["low"]):
        return "not tested"
    if not entry["significant"]:
        return "not distinguishable"
    if better not in ("lower", "higher"):
        return "they differ"
    first = (entry["difference"] < 0) == (better == "lower")
    return f"{'first' if first else 'second'} is better"


def _samples(
    system: System, sums: Sums, variable: str, protocol: str, counts_rd: np.ndarray | None
) -> _Both | None:
    if counts_rd is None:
        return None
    found = sums.by_uri[system.entry.uri].sums[variable][protocol][system.forecast]
    return resampled(found, counts_rd)


def _pair(
    one: System,
    other: System,
    variable: str,
    protocol: str,
    ours: _Both | None,
    theirs: _Both | None,
) -> Pair:
    left, right = (
        system.entry.scores(variable, protocol, system.forecast) for system in (one, other)
    )
    found = {}
    for place, kind in enumerate(("overall", "per_lead")):
        values = [{n: _numbers(v) for n, v in result[kind].items()} for result in (left, right)]
        known = values[0].keys() & values[1].keys()
        if ours is None or theirs is None:
            unknown = {name: np.full((*np.shape(values[0][name]), 1), np.nan) for name in known}
            own, beside = unknown, unknown
        else:
            own = {name: x for name, x in ours[place].items() if name in known}
            beside = {name: x for name, x in theirs[place].items() if name in known}
        found[kind] = differences_of(values[0], values[1], own, beside)
    return Pair(one.label, other.label, found["overall"], found["per_lead"])


def _numbers(value: Any) -> Any:
    """Numbers as JSON has them, null as NaN."""
    return np.asarray(value, float)
