"""How sure scores are: a bootstrap over whole days.

Windows of one day share their weather, so that days, not windows, are drawn anew with replacement
(a block bootstrap, its block the day of the init time). Every score that is a function of sums over
windows is computed anew from the sums of the days that were drawn; the model and its baselines from
the same days, so that their difference is one between pairs. Legend: R resamples, D days, T lead
times, P sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jobs.forecasts.scoring.scores import MODEL, Bootstrap, GroupScores
from jobs.forecasts.scoring.sums import GroupedSums, UnitSums
from pipelines.errors import UsageError

LEVEL = 0.95
FEWEST_UNITS = 5
"""With fewer days an interval would say nothing."""
FEWEST_RESAMPLES = 100
"""With fewer the 2.5 % beyond either end are a draw or two, and of one draw both ends are one."""
DEFINED = 0.95
"""Share of the resamples in which a score must exist to have an interval."""

Samples = dict[str, np.ndarray]
"""score -> (R,) over all lead times, or (T, R)"""


def check_resamples(resamples: int) -> None:
    """UsageError where intervals are asked for, of fewer resamples than they need."""
    if resamples < 0 or 0 < resamples < FEWEST_RESAMPLES:
        raise UsageError(
            f"resamples must be 0 or at least {FEWEST_RESAMPLES}, not {resamples}",
            remedy="leave --resamples out, or give 0 for no intervals",
        )


def plan_bootstrap(unit: str, units: int, resamples: int, seed: int) -> Bootstrap:
    """What the intervals will be made of, or why there are none."""
    none = None
    if resamples < 1:
        none = "none was asked for"
    elif units < FEWEST_UNITS:
        none = f"too few units, {units} where {FEWEST_UNITS} are needed, each a {unit}"
    return Bootstrap(unit, units, resamples, LEVEL, seed, none)


def draw(plan: Bootstrap) -> np.ndarray:
    """(R, D) float64: how often each day is in each resample."""
    chosen = np.random.default_rng(plan.seed).integers(0, plan.units, (plan.resamples, plan.units))
    flat = chosen + plan.units * np.arange(plan.resamples)[:, None]
    counts = np.bincount(flat.ravel(), minlength=plan.units * plan.resamples)
    return counts.reshape(plan.resamples, plan.units).astype(np.float64)


def with_intervals(
    scores: GroupScores, sums: Mapping[str, Mapping[str, GroupedSums]], counts_rd: np.ndarray
) -> dict[str, Any]:
    """The intervals of one group, as fields of ``GroupScores``.

    Parameters
    ----------
    sums:
        [protocol][system]
    counts_rd:
        See `draw`.
    """
    intervals: dict[str, Any] = {}
    differences: dict[str, Any] = {}
    skills: dict[str, Any] = {}
    for protocol, systems in sums.items():
        intervals[protocol], differences[protocol] = {}, {}
        model: tuple[Samples, Samples] | None = None
        for system, grouped in systems.items():
            overall, per_lead = resampled(grouped.by_unit(), counts_rd)
            intervals[protocol][system] = {
                "overall": {name: interval(x) for name, x in overall.items()},
                "per_lead": {name: interval(x) for name, x in per_lead.items()},
            }
            if system == MODEL or model is None:
                model = overall, per_lead
                continue
            found = scores.protocols[protocol]
            differences[protocol][system] = {
                kind: differences_of(found[MODEL][kind], found[system][kind], own, beside)
                for kind, own, beside in (
                    ("overall", model[0], overall),
                    ("per_lead", model[1], per_lead),
                )
            }
            if protocol == "strict":
                skills[system] = {
                    kind: interval(_skill(own["mse"], beside["mse"]))
                    for kind, own, beside in (
                        ("overall", model[0], overall),
                        ("per_lead", model[1], per_lead),
                    )
                }
    return {"intervals": intervals, "differences": differences, "skill_intervals": skills}


def resampled(units: UnitSums, counts_rd: np.ndarray) -> tuple[Samples, Samples]:
    """Every score in every resample: over all lead times (R,), and by lead time (T, R)."""
    days_dtp = units.packed_dtp
    flat = days_dtp.reshape(len(days_dtp), -1)
    broken = ~np.isfinite(flat)
    drawn = counts_rd @ np.where(broken, 0.0, flat)
    if broken.any():
        # A day without a sum spoils the resamples that it is in, and no other.
        drawn[counts_rd @ broken > 0] = np.nan
    drawn_trp = drawn.reshape(len(drawn), *days_dtp.shape[1:]).swapaxes(0, 1)
    sums = units.unpack(drawn_trp)
    with np.errstate(divide="ignore", invalid="ignore"):
        return units.metrics.overall(sums), units.metrics.scores(sums)


def interval(samples: np.ndarray) -> list[Any]:
    """Low and high of (R,) resamples, or of each row of (T, R); NaN where too few exist.

    >>> [round(end, 6) for end in interval(np.arange(101.0))]
    [2.5, 97.5]
    """
    ordered = np.sort(np.where(np.isfinite(samples), samples, np.nan), axis=-1)
    exist = np.isfinite(ordered).sum(axis=-1)
    ends = []
    for share in ((1 - LEVEL) / 2, (1 + LEVEL) / 2):
        place = share * np.maximum(exist - 1, 0)
        below = np.floor(place).astype(np.int64)
        above = np.minimum(below + 1, np.maximum(exist - 1, 0))
        lower, upper = (
            np.take_along_axis(ordered, index[..., None], axis=-1)[..., 0]
            for index in (below, above)
        )
        value = lower + (place - below) * (upper - lower)
        ends.append(np.where(exist >= DEFINED * samples.shape[-1], value, np.nan))
    return np.stack(ends, axis=-1).tolist()


def differences_of(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], model: Samples, beside: Samples
) -> dict[str, Any]:
    """How one forecast differs from another: score -> entry, or T entries, of those that both have.

    Parameters
    ----------
    ours, theirs:
        score -> value, or T values.
    model, beside:
        The same scores in the same resamples.

    Returns
    -------
    dict
        An entry has ``difference`` (ours less theirs), ``low``, ``high`` and ``significant``.
    """
    found: dict[str, Any] = {}
    for name in model.keys() & beside.keys():
        with np.errstate(invalid="ignore"):
            ends = np.asarray(interval(model[name] - beside[name]))
            difference = np.asarray(ours[name], float) - np.asarray(theirs[name], float)
        rows = [
            {
                "difference": float(value),
                "low": float(low),
                "high": float(high),
                "significant": bool(low > 0 or high < 0),
            }
            for value, (low, high) in zip(
                np.atleast_1d(difference), np.atleast_2d(ends), strict=True
            )
        ]
        found[name] = rows if difference.ndim else rows[0]
    return {name: found[name] for name in model if name in found}


def _skill(model: np.ndarray, beside: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return 1 - model / beside
