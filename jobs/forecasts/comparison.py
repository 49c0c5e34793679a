"""Evaluations of the same windows side by side, and the published scores apart from them."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from jobs.forecasts.wording import column, lead_labels
from pipelines import uri as places
from pipelines.errors import UsageError

PUBLISHED = Path(__file__).with_name("published.yaml")
MODEL = "model"
CSV_HEADER = ("evaluation", "forecast", "variable", "units", "protocol", "score", "lead", "value")
_TOLERANCE = 1e-4
"""relative; what persistence may differ by between runs of the same windows"""
_LABELS = {
    "rmse": "RMSE",
    "mae": "MAE",
    "bias": "bias",
    "ssim": "SSIM",
    "psnr": "PSNR",
    "rmse_spatial_norm": "RMSE",
    "mae_spatial_norm": "MAE",
    "mse_pixel_sum": "MSE sum",
    "mae_pixel_sum": "MAE sum",
    "ssim_uniform7_range2_clipped": "SSIM",
    "psnr_frame_mean_clipped": "PSNR",
}
"""scores that the table shows where there are any, by their names; the CSV holds all"""


@dataclass(frozen=True)
class Scored:
    """One file that ``jobs/evaluate.py`` wrote."""

    uri: str
    label: str
    """model, run and step"""
    record: dict[str, Any]

    def scores(self, variable: str, protocol: str, forecast: str) -> dict[str, Any]:
        """``overall`` and ``per_lead`` of one forecast of one variable."""
        return self.record["variables"][variable]["protocols"][protocol][forecast]

    def forecasts(self, variable: str) -> list[str]:
        """The model and the baselines that were scored beside it."""
        return list(self.record["variables"][variable]["protocols"]["strict"])

    @property
    def leads(self) -> list[int]:
        """Seconds, or frames where the archive has no time."""
        return self.record["lead_seconds"] or self.record["lead_frames"]


def read_evaluations(uris: Sequence[str]) -> list[Scored]:
    """Read evaluations, from their JSON or from the folders that hold it as scores.json.

    Raises
    ------
    UsageError
        A file is absent or no evaluation.
    """
    found = [(place, _read(place)) for place in map(_file, uris)]
    labels = [_label(record) for _, record in found]
    return [
        Scored(place, label if labels.count(label) == 1 else f"{label} ({place})", record)
        for (place, record), label in zip(found, labels, strict=True)
    ]


def refuse_incomparable(evaluations: Sequence[Scored], protocol: str) -> None:
    """Refuse scores of different windows, stores or conventions.

    Raises
    ------
    UsageError
        Naming what differs, and both files.
    """
    first = evaluations[0]
    for variable, scored in first.record["variables"].items():
        if protocol not in scored["protocols"]:
            known = ", ".join(scored["protocols"])
            raise UsageError(
                f"'{variable}' was not scored under protocol {protocol}",
                where=first.uri,
                remedy=f"give --protocol one of {known}",
            )
    for other in evaluations[1:]:
        for what, of in _SAME.items():
            ours, theirs = of(first.record), of(other.record)
            if ours != theirs:
                raise _refusal(first, other, what, ours, theirs)
        same_scale = first.record["openstl_scale"] == other.record["openstl_scale"]
        if protocol == "openstl" and not same_scale:
            scales = [entry.record["openstl_scale"] for entry in (first, other)]
            raise _refusal(first, other, "the scale of protocol openstl", *scales)
        for variable in first.record["variables"] if same_scale else ():
            ours, theirs = (
                entry.scores(variable, "strict", "persistence")["overall"]["rmse"]
                for entry in (first, other)
            )
            if not _close(ours, theirs):
                what = f"the windows (persistence of {variable} has another RMSE)"
                raise _refusal(first, other, what, ours, theirs)


def table(evaluations: Sequence[Scored], protocol: str) -> list[str]:
    """Overall scores, a row for each model and then for each baseline; lines for a terminal."""
    first = evaluations[0].record
    scored, leads = first["windows"]["scored"], evaluations[0].leads
    timed = first["lead_seconds"] is not None
    lines = [
        f"{first['title']}: {first['split']}, {' to '.join(map(str, first['period']))}, "
        f"{scored:,} windows, {', '.join(lead_labels(leads, timed)[i] for i in (0, -1))}, "
        f"protocol {protocol}"
    ]
    for variable, described in first["variables"].items():
        rows = [(entry.label, entry, MODEL) for entry in evaluations]
        baselines = evaluations[0].forecasts(variable)[1:]
        rows += [(name, evaluations[0], name) for name in baselines]
        overall = {
            label: entry.scores(variable, protocol, forecast)["overall"]
            for label, entry, forecast in rows
        }
        names = _shown(next(iter(overall.values())))
        heads = [_LABELS.get(name, name) for name in names]
        columns = [column([_value(row.get(name)) for row in overall.values()]) for name in names]
        lines += ["", f"{variable}, {described['units']}"]
        lines += _aligned(["", *heads], [[k, *v] for k, *v in zip(overall, *columns, strict=True)])
    return lines


def published_block(name: str, evaluations: Sequence[Scored]) -> list[str]:
    """The published scores of one data set, and those of ours that have the same convention.

    Raises
    ------
    UsageError
        There are no published scores under this name.
    """
    known = yaml.safe_load(PUBLISHED.read_text())
    if name not in known:
        raise UsageError(
            f"no published scores of '{name}'", remedy=f"give --published one of {', '.join(known)}"
        )
    entry = known[name]
    lines = ["", f"PUBLISHED, not measured here: {entry['table']}", f"  {entry['setting'].strip()}"]
    rows = [[f"  {row}", *map(str, values)] for row, values in entry["rows"].items()]
    lines += _aligned(["", *entry["columns"]], rows)
    reason = _why_apart(name, entry, evaluations[0].record)
    if reason:
        return [*lines, f"  ours are not shown beside them: {reason}"]
    same = entry["same"]
    lines.append(f"ours in the same conventions ({entry['protocol']}):")
    ours = []
    for scored in evaluations:
        (variable,) = scored.record["variables"]
        overall = scored.scores(variable, entry["protocol"], MODEL)["overall"]
        values = [_value(overall[same[c]["score"]]) * same[c]["times"] for c in entry["columns"]]
        ours.append([f"  {scored.label}", *(f"{value:.4f}" for value in values)])
    return [*lines, *_aligned(["", *entry["columns"]], ours)]


def as_csv(evaluations: Sequence[Scored]) -> str:
    """Every score of every protocol, overall and by lead time (seconds, or frames)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for entry in evaluations:
        writer.writerows(_csv_rows(entry))
    return text.getvalue()


def _csv_rows(entry: Scored) -> Iterator[tuple[Any, ...]]:
    for variable, described in entry.record["variables"].items():
        for protocol, forecasts in described["protocols"].items():
            for forecast, result in forecasts.items():
                head = (entry.label, forecast, variable, described["units"], protocol)
                for name, value in result["overall"].items():
                    yield (*head, name, "overall", _value(value))
                for name, values in result["per_lead"].items():
                    for lead, value in zip(entry.leads, values, strict=True):
                        yield (*head, name, lead, _value(value))


_SAME: dict[str, Callable[[dict[str, Any]], Any]] = {
    "the archive": lambda record: record["archive"],
    "the statistics of the store": lambda record: record["fingerprint"],
    "the split": lambda record: record["split"],
    "the period": lambda record: record["period"],
    "the windows": lambda record: record["windows"],
    "the lead times": lambda record: record["lead_seconds"] or record["lead_frames"],
    "the variables and units": lambda record: {
        name: scored["units"] for name, scored in record["variables"].items()
    },
    "the climatology": lambda record: record["climatology"],
}
"""What two evaluations must share to be compared."""


def _why_apart(name: str, entry: dict[str, Any], record: dict[str, Any]) -> str | None:
    """Why scores of ours cannot stand beside a published table; None where they can."""
    from jobs.forecasts.protocols import OPENSTL_SCALES

    if entry["protocol"] is None:
        return "the paper does not give its conventions"
    if record["archive"] != name:
        return f"they are of archive {record['archive']}"
    horizon = len(record["lead_seconds"] or record["lead_frames"])
    if horizon != entry["horizon"]:
        return f"they are of {horizon} frames, the table's of {entry['horizon']}"
    if record["openstl_scale"] != OPENSTL_SCALES[entry["normalised"]]:
        return f"another scale: the model was not trained with normalise {entry['normalised']}"
    if len(record["variables"]) != 1 or record["split"] != "test":
        return "they are of several variables or not of the test split"
    return None


def _file(uri: str) -> str:
    return uri if uri.endswith(".json") else places.join(uri, "scores.json")


def _read(place: str) -> dict[str, Any]:
    try:
        record = json.loads(places.read_bytes(place))
        if {"variables", "fingerprint", "windows", "openstl_scale"} <= record.keys():
            return record
    except (FileNotFoundError, NotADirectoryError, ValueError, AttributeError):
        pass
    raise UsageError(
        "no evaluation here",
        where=place,
        remedy="give the scores.json that jobs/evaluate.py wrote, or its folder",
    )


def _label(record: dict[str, Any]) -> str:
    run = str(record["checkpoint_uri"]).rstrip("/").split("/")[-2:][0]
    return f"{record['model']} {run} step {record['step']}"


def _shown(overall: dict[str, Any]) -> list[str]:
    events = [name for name in overall if name.startswith(("csi_", "fss_"))]
    return [name for name in _LABELS if name in overall] or events[:6] or list(overall)[:6]


def _value(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _close(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=_TOLERANCE)


def _refusal(first: Scored, other: Scored, what: str, ours: Any, theirs: Any) -> UsageError:
    return UsageError(
        f"these scores are not comparable, {what} differ: {ours} and {theirs}",
        where=f"{first.uri} and {other.uri}",
        remedy="evaluate both on the same store, split and --max_windows, with the same window",
    )


def _aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of text: the first to the left, the others to the right."""
    widths = [max(map(len, cells)) for cells in zip(head, *rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    ]
