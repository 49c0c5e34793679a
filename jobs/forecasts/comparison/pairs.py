"""How models that were scored on the same windows differ, pair by pair, and whether they do.

The bootstrap is paired: days of the test period are drawn with replacement, the same days for both
models of a pair, and each score is computed again from the sums of these days, see `bootstrap`. The
two models are not distinguishable if the interval of their difference holds 0.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
from jobs.forecasts.scoring.score_names import Better
from jobs.forecasts.scoring.score_nesting import NestedReader
from jobs.forecasts.scoring.score_rows import Score, Scores
from jobs.forecasts.scoring.scores import BASELINES, Bootstrap
from jobs.forecasts.scoring.sums import DailySums, read_daily_sums
from pipelines.errors import UsageError

_Both = tuple[Samples, Samples]
_Values = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Pair:
    """The differences of one system from another."""

    first: System
    second: System
    scores: Scores
    """the differences, first less second, with their intervals; of each score all lead times
    together, then each lead time"""

    def overall(self, name: str) -> Score:
        """Return the difference of a score over all lead times."""
        return next(row for row in self.scores if row.name == name and row.lead is None)

    def per_lead(self, name: str) -> Scores:
        """Return the differences of a score by lead time."""
        return Scores(row for row in self.scores if row.name == name and row.lead is not None)


@dataclass(frozen=True)
class Sums:
    """The sums by day of all evaluations, and how the days are drawn."""

    bootstrap: Bootstrap
    by_uri: dict[str, DailySums]
    """URI of an evaluation -> its sums; empty if those of one evaluation are missing"""


def read_sums(evaluations: Sequence[KeptEvaluation], resamples: int, seed: int) -> Sums:
    """Read the sums beside the evaluations; sums that belong to other scores are not used.

    Raises
    ------
    UsageError
        Two evaluations have windows of different days, or `resamples` or `seed` is not allowed.
    """
    check_resamples(resamples)
    check_seed(seed)
    found = {
        kept.uri: read_daily_sums(kept.sums_uri, kept.evaluation.sums_sha256)
        for kept in evaluations
    }
    missing = [f"{why} beside {uri}" for uri, why in found.items() if isinstance(why, str)]
    if missing:
        none = f"{'; '.join(missing)}: run evaluate.py again there"
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
    """Return every model less every later model, and every model less every baseline."""
    systems = systems_of(evaluations, variable, protocol)
    counts = None if sums.bootstrap.none else draw(sums.bootstrap)
    drawn = {system.label: _samples(system, sums, variable, protocol, counts) for system in systems}
    return tuple(
        Pair(
            one,
            other,
            _differences(one, other, variable, protocol, (drawn[one.label], drawn[other.label])),
        )
        for one, other in itertools.combinations(systems, 2)
        if one.label not in BASELINES
    )


def verdict(difference: Score, better: Better) -> str:
    """Return in words what a difference says.

    Parameters
    ----------
    better:
        Which values of the score are better, see `score_names`.

    >>> from jobs.forecasts.scoring.score_rows import Part
    >>> part = Part("difference", "two")
    >>> row = Score("t2m", part, "strict", "one", None, "rmse", -1.0, -2.0, -0.5)
    >>> verdict(row, "lower")
    'first is better'
    """
    if not difference.has_interval:
        return "not tested"
    if not difference.is_significant:
        return "not distinguishable"
    if better not in ("lower", "higher"):
        return "they differ"
    first = (difference.value < 0) == (better == "lower")
    return f"{'first' if first else 'second'} is better"


def _samples(
    system: System, sums: Sums, variable: str, protocol: str, counts_rd: np.ndarray | None
) -> _Both | None:
    if counts_rd is None:
        return None
    found = sums.by_uri[system.kept.uri].sums[variable][protocol][system.forecast]
    return resampled(found, counts_rd)


def _differences(
    one: System,
    other: System,
    variable: str,
    protocol: str,
    drawn: tuple[_Both | None, _Both | None],
) -> Scores:
    """Return the rows of one system less another, of the scores that both have."""
    ours, theirs = drawn
    left, right = (_values(system, variable, protocol) for system in (one, other))
    found = {}
    for place, kind in enumerate(("overall", "per_lead")):
        known = [name for name in left[place] if name in right[place]]
        if ours is None or theirs is None:
            unknown = {n: np.full((*np.shape(left[place][n]), 1), np.nan) for n in known}
            own, beside = unknown, unknown
        else:
            own = {name: x for name, x in ours[place].items() if name in known}
            beside = {name: x for name, x in theirs[place].items() if name in known}
        found[kind] = differences_of(left[place], right[place], own, beside)
    read = NestedReader(variable, one.kept.evaluation.lead_seconds)
    return Scores(read.differences(protocol, one.label, other.label, found))


def _values(system: System, variable: str, protocol: str) -> tuple[_Values, _Values]:
    """Return {score: value} over all lead times, and {score: (T,) values}."""
    rows = system.kept.evaluation.scores_of(variable).scores
    own = rows.select("all", protocol=protocol, system=system.forecast)
    per_lead: dict[str, list[float]] = {}
    for row in own:
        if row.lead is not None:
            per_lead.setdefault(row.name, []).append(row.value)
    overall = {row.name: np.asarray(row.value) for row in own if row.lead is None}
    return overall, {name: np.asarray(values) for name, values in per_lead.items()}
