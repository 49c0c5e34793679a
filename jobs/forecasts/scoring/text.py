"""Numbers and times as text for people: lead times, scores, and the summary of an evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jobs.forecasts.scoring.scores import MODEL, Bootstrap, Evaluation, GroupScores

HEADLINES = {"strict": "rmse", "openstl": "rmse_spatial_norm"}
"""protocol -> the score in its summary; any other protocol has the summary of `strict`"""

MINUTE, HOUR, DAY = 60, 3600, 86400


def shown_units(units: str) -> str:
    """Return units as people write them: an empty text for "1", CF's name for no unit."""
    return "" if units == "1" else units


def lead_unit(lead_seconds: Sequence[int], timed: bool = True) -> tuple[str, int]:
    """Return the unit of lead times and its length in seconds; frames if times are unknown.

    >>> lead_unit([3600, 7200]), lead_unit([360, 720]), lead_unit([86400, 4 * 86400])
    (('h', 3600), ('min', 60), ('days', 86400))
    """
    if not timed:
        return "frames", 1
    if all(lead % DAY == 0 for lead in lead_seconds) and max(lead_seconds) > 2 * DAY:
        return "days", DAY
    if all(lead % HOUR == 0 for lead in lead_seconds) or max(lead_seconds) > 6 * HOUR:
        return "h", HOUR
    return "min", MINUTE


def lead_labels(lead_seconds: Sequence[int], timed: bool = True) -> list[str]:
    """Return one label per lead time.

    >>> lead_labels([1800, 3600]), lead_labels([1, 2], timed=False)
    (['+30 min', '+60 min'], ['+1 frame', '+2 frames'])
    """
    unit, seconds = lead_unit(lead_seconds, timed)
    if not timed:
        return [f"+{lead} frame{'s' if lead > 1 else ''}" for lead in lead_seconds]
    return [f"+{lead / seconds:g} {unit}" for lead in lead_seconds]


def several(count: int, most: int) -> list[int]:
    """Return at most `most` of `range(count)`, evenly spaced from the first to the last.

    >>> several(12, 4), several(2, 4), several(1, 3)
    ([0, 4, 7, 11], [0, 1], [0])
    """
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def number(value: float, digits: int = 3) -> str:
    """Return a score with `digits` significant digits.

    >>> number(0.012345), number(-1234.5), number(float("nan")), number(0.0)
    ('0.0123', '-1234', 'none', '0')
    """
    if math.isnan(value):
        return "none"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{value:.{max(0, places)}f}" if -4 < places < 12 else f"{value:.{digits - 1}e}"


def skill_number(value: float) -> str:
    """Return a skill score with three decimals.

    >>> skill_number(0.45678), skill_number(-4e-8), skill_number(float("nan"))
    ('0.457', '0.000', 'none')
    """
    return "none" if math.isnan(value) else f"{round(value, 3) + 0.0:.3f}"


def interval(low: float, high: float) -> str:
    """Return the ends of an interval as text; empty if it is unknown.

    >>> interval(0.1234, 0.5678), interval(float("nan"), 1.0)
    ('0.123 to 0.568', '')
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"{number(low)} to {number(high)}"


def resampling(bootstrap: Bootstrap) -> str:
    """Return a sentence about how the intervals were computed."""
    return (
        f"{round(100 * bootstrap.level)} % intervals from {bootstrap.resamples:,} resamples of "
        f"{bootstrap.units:,} units, each a {bootstrap.unit}"
    )


def column(values: Sequence[float], beside: float | None = None) -> list[str]:
    """Return scores of one kind with equal numbers of decimals: the largest has four digits.

    If `beside`, a score that is shown next to them, is larger, it sets the number of decimals.

    >>> column([12.3456, 0.5, float("nan")]), column([-0.00012], beside=3.1)
    (['12.35', '0.50', 'none'], ['0.000'])
    """
    sizes = [abs(value) for value in (*values, beside or 0.0) if math.isfinite(value) and value]
    decimals = max(0, 3 - math.floor(math.log10(max(sizes)))) if sizes else 0
    if decimals > 6:
        return [number(value, 4) for value in values]
    # Adding 0.0 removes the sign of a zero.
    return [
        f"{round(value, decimals) + 0.0:.{decimals}f}" if math.isfinite(value) else number(value)
        for value in values
    ]


def summary(evaluation: Evaluation, protocol: str = "strict") -> list[str]:
    """Return lines with the error of the model and of each baseline, overall and at some leads.

    Groups of channels that are scored separately follow one another.
    """
    protocol = protocol if protocol in HEADLINES else "strict"
    labels = lead_labels(evaluation.lead_seconds, evaluation.timed)
    chosen = several(len(labels), 4)
    lines = [f"{evaluation.split}: {windows(evaluation)}, {' to '.join(evaluation.period)}"]
    for item in evaluation.scores:
        units = headline_units(evaluation, item, protocol)
        header = "".join(f"{labels[lead]:>11}" for lead in chosen)
        score = "RMSE" if units in ("", "1") else f"RMSE in {units}"
        lines.append(f"{item.label}, {score}{'':<4}{'overall':>11}{header}")
        width = len(lines[-1]) - 11 * (1 + len(chosen))
        for forecast in item.forecasts:
            overall, *by_lead = item.scores.series(protocol, forecast, HEADLINES[protocol]).values
            values = [overall, *(by_lead[i] for i in chosen)]
            lines.append(
                f"{'  ' + forecast:<{width}}" + "".join(f"{number(v):>11}" for v in values)
            )
        lines.append(f"  {verdict(item)}")
    if evaluation.extrapolation:
        lines.append(f"extrapolation: {evaluation.extrapolation}")
    lines.append(f"climatology: {evaluation.climatology}")
    return lines


def headline_units(evaluation: Evaluation, item: GroupScores, protocol: str) -> str:
    """Return the units of the score that the summary prints."""
    if protocol != "openstl":
        return item.units
    image = "psnr_frame_mean_clipped" in item.scores.means(protocol, MODEL)
    return "train ranges" if image else item.units


def windows(evaluation: Evaluation) -> str:
    """Return how many windows were scored, of how many, as text."""
    scored, available = evaluation.windows_scored, evaluation.windows_available
    if scored == available:
        return f"all {available:,} windows"
    return f"{scored:,} of {available:,} windows, evenly spaced"


def skill_interval(item: GroupScores, reference: str) -> str:
    """Return the interval of the model's skill over all lead times; empty if it is not known."""
    skill = item.skill(reference)
    if not skill.has_interval:
        return ""
    low, high = map(skill_number, skill.interval)
    return f"{low} to {high}"


def verdict(item: GroupScores) -> str:
    """Return whether the model beats its baselines, in words and in skill.

    Skill is 1 - MSE / MSE(reference) over all lead times. If its interval contains 0, the model is
    not distinguishable from the reference.
    """
    parts = []
    for reference in item.baselines:
        found = item.skill(reference)
        skill = found.value
        words = "as good as" if math.isnan(skill) or round(skill, 3) == 0 else "WORSE than"
        words = "better than" if round(skill, 3) > 0 else words
        interval = skill_interval(item, reference)
        if interval:
            words = words if found.is_significant else "not distinguishable from"
            interval = f", 95 % interval {interval}"
        parts.append(f"{words} {reference} (skill {skill_number(skill)}{interval})")
    return " and ".join(parts)
