"""Tables of scores on the page: by protocol, by lead time, by month, hour and channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jobs.forecasts.scoring import text
from jobs.forecasts.scoring.scores import BASELINES, MODEL, Evaluation, GroupScores

TABLE_LEADS = 6

COLUMNS: dict[str, tuple[str, str, str]] = {
    "rmse": ("RMSE", "units", "lower"),
    "mae": ("MAE", "units", "lower"),
    "bias": ("Bias", "units", "zero"),
    "ssim": ("SSIM", "", "higher"),
    "psnr": ("PSNR", "dB", "higher"),
    "rmse_latitude": ("RMSE, latitude-weighted", "units", "lower"),
    "acc": ("Anomaly correlation", "", "higher"),
    "mse_pixel_sum": ("MSE, pixel sum", "", "lower"),
    "mae_pixel_sum": ("MAE, pixel sum", "", "lower"),
    "mse_spatial_norm": ("MSE, pixel mean", "", "lower"),
    "mae_spatial_norm": ("MAE, pixel mean", "", "lower"),
    "rmse_spatial_norm": ("RMSE, pixel mean", "", "lower"),
    "ssim_uniform7_range2_clipped": ("SSIM, range 2", "", "higher"),
    "psnr_frame_mean_clipped": ("PSNR", "dB", "higher"),
    "mse_uint8_rounded": ("MSE", "squared grey levels", "lower"),
    "psnr_uint8_rounded_pooled_range_forecast": ("PSNR, span of the forecasts", "dB", "higher"),
    "ssim_uint8_rounded_uniform7_range255": ("SSIM", "", "higher"),
    "mse_pixel_sum_clipped": ("MSE, pixel sum", "", "lower"),
    "mae_pixel_sum_clipped": ("MAE, pixel sum", "", "lower"),
    "psnr_uint8_truncated_frame_mean": ("PSNR", "dB", "higher"),
    "ssim_uint8_truncated_uniform7_range255": ("SSIM", "", "higher"),
    "gdl1_pixel_sum_clipped": ("GDL, exponent 1", "", "lower"),
    "gdl2_pixel_sum_clipped": ("GDL, exponent 2", "", "lower"),
    "gdl": ("Gradient difference", "units", "lower"),
    "power_ratio_finer_8px": ("Power finer than 8 pixels", "of the truth's", "one"),
    "crps_fair": ("CRPS, fair", "units", "lower"),
    "rmse_ensemble_mean": ("RMSE of the mean", "units", "lower"),
    "spread": ("Spread", "units", ""),
    "spread_skill": ("Spread / error", "", "one"),
}
"""Heading, unit and the better direction of the scores that tables show; CSI and its kin follow."""
EVENT_SCORES = {
    "csi": "higher",
    "pod": "higher",
    "far": "lower",
    "hss": "higher",
    "fss": "higher",
    "brier": "lower",
}
BETTER = {
    "lower": "lower is better",
    "higher": "higher is better",
    "zero": "best at 0",
    "one": "best at 1",
    "": "",
}
OPEN = ("weather", "radar", "ensemble")
"""Protocols whose tables are shown at once, beside the first."""


def score_tables(evaluation: Evaluation, item: GroupScores, first: str) -> list[dict[str, Any]]:
    """A table a protocol, the one asked for first."""
    ordered = [name for name in (first, *item.protocols) if name in item.protocols]
    tables = [_table(evaluation, name, item) for name in dict.fromkeys(ordered)]
    return [table for table in tables if table["columns"]]


def _table(evaluation: Evaluation, protocol: str, item: GroupScores) -> dict[str, Any]:
    """One protocol's scores over all lead times: a row a forecast, the best in bold."""
    by_forecast = item.protocols[protocol]
    scores = {name: result["overall"] for name, result in by_forecast.items()}
    ranges = item.intervals.get(protocol, {})
    columns = []
    first = next(iter(scores))
    names = [name for name in scores[first] if all(name in found for found in scores.values())]
    names = [name for name in names if column_of(name)[0]]
    # A score that nothing has takes no column, unless no score has more.
    empty = [name for name in names if all(np.isnan(found[name]) for found in scores.values())]
    absent = empty if len(empty) < len(names) else []
    for name in (name for name in names if name not in absent):
        heading, units, better = column_of(name)
        values = [scores[forecast][name] for forecast in scores]
        units = units_of(item) if units == "units" else units
        beside = scores[first].get("rmse") if name == "bias" else None
        columns.append(
            {
                "heading": heading,
                "units": units,
                "better": BETTER[better],
                "values": text.column(values, beside),
                "intervals": [
                    text.interval(*ranges[forecast]["overall"].get(name, (np.nan, np.nan)))
                    if forecast in ranges
                    else ""
                    for forecast in scores
                ],
                "best": _best(values, better),
            }
        )
    notes = {
        "openstl": f"Scale: {evaluation.openstl_scale}.",
        "ensemble": f"{evaluation.members} members." if evaluation.members else "",
        "radar": f"Thresholds in {item.group.units} unless they say otherwise.",
    }
    return {
        "protocol": protocol,
        "note": notes.get(protocol, ""),
        "absent": [column_of(name)[0] for name in absent],
        "columns": columns,
        "rows": list(scores),
        "models": [name for name in scores if name not in BASELINES],
        "open": protocol in OPEN,
        "uncertain": any(any(column["intervals"]) for column in columns),
    }


def column_of(name: str) -> tuple[str, str, str]:
    """Heading, unit and better direction; no heading for what only the JSON holds."""
    if name in COLUMNS:
        return COLUMNS[name]
    kind, _, rest = name.partition("_")
    if kind not in EVENT_SCORES or rest.startswith(("reliability", "resolution", "uncertainty")):
        return "", "", ""
    label = kind.capitalize() if kind == "brier" else kind.upper()
    return f"{label} {rest.replace('ge_', '≥ ').replace('_', ', ')}", "", EVENT_SCORES[kind]


def _best(values: Sequence[float], better: str) -> int | None:
    """The row of the best value; none where no value exists or all are the same."""
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
    """RMSE of every forecast, and of a model beside baselines its skill, at some lead times."""
    chosen = text.several(len(evaluation.lead_seconds), TABLE_LEADS)
    labels = text.lead_labels(evaluation.lead_seconds, evaluation.timed)
    rows = []
    for name in item.forecasts:
        values = item.strict_per_lead(name, "rmse")
        rows.append((f"{name}, RMSE", [text.number(values[lead]) for lead in chosen]))
    alone = MODEL in item.forecasts
    for name in item.baselines if alone else ():
        skill = item.skill(name)["per_lead"]
        rows.append((f"skill over {name}", [text.skill_number(skill[lead]) for lead in chosen]))
    unit = f" in {units_of(item)}" if units_of(item) else ""
    return {
        "caption": f"RMSE{unit}{', and skill over the baselines' if alone else ''} "
        "(protocol strict)",
        "heads": [labels[lead] for lead in chosen],
        "rows": rows,
    }


def slices(item: GroupScores) -> list[dict[str, Any]]:
    """RMSE of every forecast by calendar month, by hour of the day and by channel."""
    found = []
    titles = (
        ("By month", "calendar month of the time that is forecast", item.months),
        ("By hour", "hour (UTC) of the time that is forecast", item.hours),
    )
    for title, what, parts in titles:
        if len(parts) > 1:
            by = {label: part["strict"] for label, part in parts.items()}
            found.append(_slice(title, f"RMSE by {what}, all lead times together", item, by))
    if item.channels:
        by = {
            label: {name: result["overall"] for name, result in part.items()}
            for label, part in item.channels.items()
        }
        found.append(_slice("By channel", "RMSE by channel, all lead times together", item, by))
    return found


def _slice(
    title: str, caption: str, item: GroupScores, parts: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    rows = [
        (name, text.column([part[name]["rmse"] for part in parts.values()]))
        for name in item.forecasts
    ]
    return {"title": title, "caption": caption, "heads": list(parts), "rows": rows}


def units_of(item: GroupScores) -> str:
    """Those of a group of channels, as people write them."""
    return text.shown_units(item.group.units)
