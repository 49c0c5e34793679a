"""Intervals of scores, from a bootstrap over whole days.

Windows of one day share their weather. Days, not windows, are therefore drawn anew with
replacement: a block bootstrap whose block is the day of the init time. Every score is computed
anew from the sums of the days that were drawn. The model and its baselines get the same days, so
that the interval of their difference is that of pairs.

Legend: R resamples, D days (or other units), T lead times, P sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jobs.forecasts.scoring.scores import MODEL, Bootstrap
from jobs.forecasts.scoring.sums import GroupedSums, UnitSums
from pipelines.errors import UsageError

LEVEL = 0.95
"""share of the resamples inside an interval"""
FEWEST_UNITS = 5
"""with fewer days an interval would say nothing"""
FEWEST_RESAMPLES = 100
"""with fewer, the 2.5 % beyond either end of an interval are one or two resamples"""
DEFINED = 0.95
"""share of the resamples in which a score must exist to have an interval"""

Samples = dict[str, np.ndarray]
"""score -> (R,) over all lead times, or (T, R)"""


def check_resamples(resamples: int) -> None:
    """Raise UsageError unless `resamples` is 0 or enough for intervals."""
    if resamples < 0 or 0 < resamples < FEWEST_RESAMPLES:
        raise UsageError(
            f"resamples must be 0 or at least {FEWEST_RESAMPLES}, not {resamples}",
            remedy="leave --resamples out, or give 0 for no intervals",
        )


def plan_bootstrap(unit: str, units: int, resamples: int, seed: int) -> Bootstrap:
    """Return how the intervals will be made, or why there are none.

    Parameters
    ----------
    unit:
        What is drawn anew, for people.
    units:
        How many of them were scored.
    """
    none = None
    if resamples < 1:
        none = "none was asked for"
    elif units < FEWEST_UNITS:
        none = f"too few units, {units} where {FEWEST_UNITS} are needed, each a {unit}"
    return Bootstrap(unit, units, resamples, LEVEL, seed, none)


def draw(plan: Bootstrap) -> np.ndarray:
    """Return (R, D) float64: how often each day is in each resample."""
    chosen = np.random.default_rng(plan.seed).integers(0, plan.units, (plan.resamples, plan.units))
    flat = chosen + plan.units * np.arange(plan.resamples)[:, None]
    counts = np.bincount(flat.ravel(), minlength=plan.units * plan.resamples)
    return counts.reshape(plan.resamples, plan.units).astype(np.float64)


def with_intervals(
    results: Mapping[str, Mapping[str, Any]],
    sums: Mapping[str, Mapping[str, GroupedSums]],
    counts_rd: np.ndarray,
) -> dict[str, Any]:
    """Return the intervals of one group of channels, in the nesting of `score_nesting`.

    Parameters
    ----------
    results:
        [protocol][system] -> result of the metrics
    sums:
        [protocol][system], the model before its baselines.
    counts_rd:
        How often each day is in each resample, see `draw`.
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
            found = results[protocol]
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
    """Return every score in every resample: over all lead times (R,), and by lead time (T, R)."""
    days_dtp = units.packed_dtp
    flat = days_dtp.reshape(len(days_dtp), -1)
    broken = ~np.isfinite(flat)
    drawn = counts_rd @ np.where(broken, 0.0, flat)
    if broken.any():
        # 0 * NaN is NaN: without this, a day without a value would spoil every resample, and not
        # only those that it is in.
        drawn[counts_rd @ broken > 0] = np.nan
    drawn_trp = drawn.reshape(len(drawn), *days_dtp.shape[1:]).swapaxes(0, 1)
    sums = units.unpack(drawn_trp)
    with np.errstate(divide="ignore", invalid="ignore"):
        return units.metrics.overall(sums), units.metrics.scores(sums)


def interval(samples: np.ndarray) -> list[Any]:
    """Return low and high of (R,) resamples, or of each row of (T, R).

    Resamples in which a score does not exist (NaN or infinite) are left out; both ends are NaN if
    it exists in too few of them (`DEFINED`).

    >>> [round(end, 6) for end in interval(np.arange(101.0))]
    [2.5, 97.5]
    """
    exist = np.isfinite(samples)
    enough = exist.sum(axis=-1) >= DEFINED * samples.shape[-1]
    # Rows with too few are filled with 0: NumPy warns of rows that consist of NaN.
    known = np.where(exist, samples, np.where(enough, np.nan, 0.0)[..., None])
    ends = np.nanquantile(known, ((1 - LEVEL) / 2, (1 + LEVEL) / 2), axis=-1)
    return np.moveaxis(np.where(enough, ends, np.nan), 0, -1).tolist()


def differences_of(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], model: Samples, beside: Samples
) -> dict[str, Any]:
    """Return how two forecasts differ in each score that both have.

    Parameters
    ----------
    ours, theirs:
        score -> value, or T values.
    model, beside:
        The same scores of the two forecasts in the same resamples.

    Returns
    -------
    dict
        score -> entry, or T entries. An entry has `difference` (ours minus theirs), `low`, `high`
        and `significant`: whether the interval leaves out 0.
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
