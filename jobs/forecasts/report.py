"""The report of an evaluation: one HTML page that loads nothing, and the same scores as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.command_line import finite
from jobs.forecasts import figures, wording
from jobs.forecasts.destination import destinations
from jobs.forecasts.scores import MODEL, Evaluation, Example, GroupScores
from pipelines import uri as places
from pipelines.clips import split_text

if TYPE_CHECKING:
    from jobs.training.checkpoints import Checkpoint
    from pipelines.store import Store

TEMPLATE = Path(__file__).with_name("report.html")
MAP_LEADS = 3
MAP_CHANNELS = 2
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
}
"""Heading, unit and the better direction of the scores that tables show; CSI and its kin follow."""
EVENT_SCORES = {"csi": "higher", "pod": "higher", "far": "lower", "hss": "higher", "fss": "higher"}


@dataclass(frozen=True)
class Provenance:
    """What the page says beside the scores: which model, trained where, and how."""

    store_uri: str
    title: str
    archive: str
    synthetic: bool
    checkpoint_uri: str
    model: str
    step: int
    epoch: int
    options: dict[str, Any]
    train_period: tuple[str, str]
    fingerprint: str
    history: tuple[tuple[int, float], ...] = ()
    """(step, training loss) of the run that the checkpoint belongs to"""

    @classmethod
    def of(
        cls, checkpoint: Checkpoint, store: Store, history: Sequence[dict[str, Any]]
    ) -> Provenance:
        """From a checkpoint, the store that it is scored on and its run's history."""
        return cls(
            store_uri=store.uri,
            title=store.title,
            archive=str(store.attributes.get("archive", "")),
            synthetic=store.synthetic,
            checkpoint_uri=checkpoint.uri,
            model=checkpoint.record["model"]["name"],
            step=checkpoint.step,
            epoch=checkpoint.epoch,
            options=checkpoint.configuration,
            train_period=split_text(store.statistics["period"]),
            fingerprint=store.fingerprint,
            history=tuple((record["step"], record["loss"]) for record in history),
        )

    def to_json(self) -> dict[str, Any]:
        """Everything but the history."""
        return {key: value for key, value in vars(self).items() if key != "history"}


def write_report(
    report: str, evaluation: Evaluation, provenance: Provenance, store: Store, protocol: str
) -> tuple[str, str]:
    """Write the page and the JSON; returns their URIs."""
    page, record = destinations(report)
    result = finite({**provenance.to_json(), **evaluation.to_json()})
    places.write_bytes(record, json.dumps(result, indent=1, ensure_ascii=False).encode())
    places.write_bytes(page, render(evaluation, provenance, store, protocol).encode())
    return page, record


def render(evaluation: Evaluation, provenance: Provenance, store: Store, protocol: str) -> str:
    """The page as HTML."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        p=provenance,
        e=evaluation,
        windows=wording.windows(evaluation),
        leads=wording.lead_labels(evaluation.lead_seconds, evaluation.timed),
        groups=[_group(evaluation, item, protocol) for item in evaluation.scores],
        training=_training(provenance),
        examples=[_example(evaluation, item, store) for item in evaluation.examples],
        options=json.dumps(provenance.options, indent=1),
        time=_time,
    )


def _group(evaluation: Evaluation, item: GroupScores, protocol: str) -> dict[str, Any]:
    skills = {reference: item.skill(reference) for reference in item.baselines}
    ordered = [protocol, *(name for name in item.protocols if name != protocol)]
    return {
        "label": item.group.label,
        "name": item.group.long_name,
        "units": _units(item),
        "verdict": wording.verdict(item),
        "better": all(skill["overall"] > 0 for skill in skills.values()),
        "model_rmse": wording.number(item.strict(MODEL, "rmse")),
        "skills": {name: wording.skill_number(skill["overall"]) for name, skill in skills.items()},
        "tables": [
            table
            for name in ordered
            if (table := _table(name, item, evaluation.openstl_scale))["columns"]
        ],
        "by_lead": _by_lead(evaluation, item, skills),
        "charts": _charts(evaluation, item, skills),
    }


def _table(protocol: str, item: GroupScores, openstl_scale: str) -> dict[str, Any]:
    """One protocol's scores over all lead times: a row a forecast, the best in bold."""
    scores = {name: item.protocols[protocol][name]["overall"] for name in item.forecasts}
    columns = []
    for name in scores[MODEL]:
        heading, units, better = _column(name)
        if not heading:
            continue
        values = [scores[forecast][name] for forecast in item.forecasts]
        units = _units(item) if units == "units" else units
        columns.append(
            {
                "heading": heading,
                "units": units,
                "better": better,
                "values": wording.column(values, scores[MODEL]["rmse"] if name == "bias" else None),
                "best": _best(values, better),
            }
        )
    notes = {"openstl": f"Scale: {openstl_scale}."}
    return {
        "protocol": protocol,
        "note": notes.get(protocol, ""),
        "columns": columns,
        "rows": item.forecasts,
    }


def _column(name: str) -> tuple[str, str, str]:
    """Heading, unit and better direction; no heading for what only the JSON holds."""
    if name in COLUMNS:
        return COLUMNS[name]
    kind, _, rest = name.partition("_")
    if kind in EVENT_SCORES:
        return (
            f"{kind.upper()} {rest.replace('ge_', '≥ ').replace('_', ', ')}",
            "",
            EVENT_SCORES[kind],
        )
    return "", "", ""


def _best(values: Sequence[float], better: str) -> int | None:
    """The row of the best value; none where no value exists or all are the same."""
    badness = {
        "lower": values,
        "higher": [-v for v in values],
        "zero": [abs(v) for v in values],
        "one": [abs(v - 1) for v in values],
    }
    ranked = np.asarray(badness[better], float)
    if np.isnan(ranked).all() or np.nanmax(ranked) == np.nanmin(ranked):
        return None
    return int(np.nanargmin(ranked))


def _by_lead(
    evaluation: Evaluation, item: GroupScores, skills: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    chosen = wording.several(len(evaluation.lead_seconds), TABLE_LEADS)
    labels = wording.lead_labels(evaluation.lead_seconds, evaluation.timed)
    rmse = {name: item.strict_per_lead(name, "rmse") for name in item.forecasts}
    rows = [
        (f"{name}, RMSE", [wording.number(values[lead]) for lead in chosen])
        for name, values in rmse.items()
    ]
    rows += [
        (f"skill over {name}", [wording.skill_number(skill["per_lead"][lead]) for lead in chosen])
        for name, skill in skills.items()
    ]
    return {"leads": [labels[lead] for lead in chosen], "rows": rows}


def _charts(
    evaluation: Evaluation, item: GroupScores, skills: dict[str, dict[str, Any]]
) -> list[str]:
    unit, seconds = wording.lead_unit(evaluation.lead_seconds, evaluation.timed)
    x = [lead / seconds for lead in evaluation.lead_seconds]
    lead, units = f"lead time ({unit})", f" ({_units(item)})" if _units(item) else ""
    rmse = {name: item.strict_per_lead(name, "rmse") for name in item.forecasts}
    bias = {name: item.strict_per_lead(name, "bias") for name in item.forecasts}
    skill = {f"vs {name}": values["per_lead"] for name, values in skills.items()}
    charts = [
        figures.curves("Error (RMSE)", x, rmse, lead, f"RMSE{units}", "floor"),
        figures.curves("Skill: above zero beats the baseline", x, skill, lead, "skill", "line"),
        figures.curves("Bias (forecast - truth)", x, bias, lead, f"bias{units}", "line"),
    ]
    ssim = {name: item.strict_per_lead(name, "ssim") for name in item.forecasts}
    if not np.isnan(list(ssim.values())).all():
        charts.append(figures.curves("Structural similarity (SSIM)", x, ssim, lead, "SSIM", "none"))
    return charts


def _training(provenance: Provenance) -> str | None:
    if len(provenance.history) < 2:
        return None
    steps, losses = zip(*provenance.history, strict=True)
    return figures.training_curve(steps, losses, provenance.step)


def _example(evaluation: Evaluation, example: Example, store: Store) -> dict[str, Any]:
    """Maps of one window: truth and forecast on one scale, the error around zero."""
    leads = wording.several(len(evaluation.lead_seconds), MAP_LEADS)
    labels = wording.lead_labels(evaluation.lead_seconds, evaluation.timed)
    axes = _axes(store, example.truth_tchw.shape[-2:])
    rows = []
    for channel, name, units in _channels(evaluation)[:MAP_CHANNELS]:
        truth, forecast = (x[:, channel] for x in (example.truth_tchw, example.forecast_tchw))
        # The truth's extremes: a forecast that runs away is drawn saturated, not the truth flat.
        low, high = _limits(truth[leads])
        error = forecast - truth
        largest = float(np.nanmax(np.abs(error[leads]), initial=0.0)) or 1.0
        for lead in leads:
            at = f"{name}, {labels[lead]}, valid {_time(example.labels[lead])}"
            rows.append(
                {
                    "caption": at,
                    "maps": [
                        ("Truth", figures.field(truth[lead], axes, low, high, units)),
                        ("Forecast", figures.field(forecast[lead], axes, low, high, units)),
                        (
                            "Error: forecast - truth",
                            figures.error_field(error[lead], axes, largest, units),
                        ),
                    ],
                }
            )
    return {
        "rank": example.rank,
        "first": _time(example.labels[0]),
        "last": _time(example.labels[-1]),
        "rmse": wording.number(example.rmse),
        "rows": rows,
    }


def _channels(evaluation: Evaluation) -> list[tuple[int, str, str]]:
    """(index, name, label of the colour bar) of every channel."""
    channels = []
    for item in evaluation.scores:
        indices = range(item.group.channels.start, item.group.channels.stop)
        for number, index in enumerate(indices):
            suffix = f", channel {number}" if len(indices) > 1 else ""
            name = item.group.long_name + suffix
            channels.append((index, name, _units(item) or item.group.long_name))
    return channels


def _units(item: GroupScores) -> str:
    """CF writes "1" for what has no unit; people write nothing."""
    return "" if item.group.units == "1" else item.group.units


def _limits(values: np.ndarray) -> tuple[float, float]:
    if np.isnan(values).all():
        return 0.0, 1.0
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _axes(store: Store, shape: tuple[int, ...]) -> figures.Axes:
    rows, columns = (
        store.coordinates.get(names[0], store.coordinates.get(names[1], np.arange(size)))
        for names, size in zip((("latitude", "y"), ("longitude", "x")), shape, strict=True)
    )
    if "latitude" in store.coordinates and "longitude" in store.coordinates:
        return figures.Axes(rows, columns, "latitude (°N)", "longitude (°E)", True, False)
    downwards = bool(rows[0] < rows[-1]) if "y" not in store.coordinates else False
    return figures.Axes(rows, columns, "y", "x", False, downwards)


def _time(label: str) -> str:
    """A time for people; what is none, as the name of a clip, as it stands."""
    try:
        return str(np.datetime64(label, "m")).replace("T", " ") + " UTC"
    except ValueError:
        return label
