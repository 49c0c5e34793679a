"""Scores that the GMG paper prints: apart from ours, and only for the data that they are of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from jobs.forecasts.comparison.evaluations import MODEL, KeptEvaluation
from pipelines.errors import UsageError

TABLES = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True)
class Published:
    """A block of published scores, and ours in the same conventions where there are any."""

    table: str
    """where they were published"""
    setting: str
    """what they were measured on"""
    columns: tuple[str, ...]
    rows: dict[str, tuple[str, ...]]
    """model -> its scores as printed"""
    protocol: str | None
    """of ours that has the same conventions"""
    ours: dict[str, tuple[str, ...]]
    """evaluation -> its scores in the same conventions; nothing where ``apart`` says why"""
    apart: str | None
    """why some or none of ours stand beside them"""


def published_scores(name: str, evaluations: Sequence[KeptEvaluation]) -> Published | str:
    """The published scores of one data set, or why none are shown.

    Parameters
    ----------
    name:
        Of the data set; empty: that of the evaluations, ``none``: nothing.

    Returns
    -------
    Published | str
        An empty text where there is nothing to say: no paper has a table of this archive.

    Raises
    ------
    UsageError
        There are no published scores under this name, or the evaluations are of another data set.
    """
    known = yaml.safe_load(TABLES.read_text(encoding="utf-8"))
    record = evaluations[0].record
    if name == "none" or (not name and record["archive"] not in known):
        return ""
    if name and name not in known:
        raise UsageError(
            f"no published scores of '{name}'", remedy=f"give --published one of {', '.join(known)}"
        )
    chosen = name or record["archive"]
    entry, other = known[chosen], _other_data(chosen, known[chosen], record)
    if other and not name:
        return f"the published scores of '{chosen}' are not shown: {other}"
    if other:
        raise UsageError(
            f"published scores of '{name}' are of another data set: {other}",
            where=evaluations[0].uri,
            remedy="leave --published out: published scores are shown where they fit",
        )
    reasons = {scored.label: _why_apart(entry, scored.record) for scored in evaluations}
    told = dict.fromkeys(reason for reason in reasons.values() if reason)
    return Published(
        table=entry["table"],
        setting=entry["setting"].strip(),
        columns=tuple(entry["columns"]),
        rows={row: tuple(map(str, values)) for row, values in entry["rows"].items()},
        protocol=entry["protocol"],
        ours={s.label: _ours(s, entry) for s in evaluations if not reasons[s.label]},
        apart="; ".join(told) or None,
    )


def _ours(scored: KeptEvaluation, entry: dict[str, Any]) -> tuple[str, ...]:
    (variable,) = scored.record["variables"]
    overall = scored.scores(variable, entry["protocol"], MODEL)["overall"]
    values = []
    for column in entry["columns"]:
        same = entry["same"][column]
        value = overall[same["score"]]
        values.append(math.nan if value is None else value * same["times"])
    return tuple(f"{value:.4f}" for value in values)


def _other_data(name: str, entry: dict[str, Any], record: dict[str, Any]) -> str | None:
    """Why evaluations are not of a table's data set; None where they are."""
    if record["archive"] != name:
        return f"these scores are of archive {record['archive']}"
    wanted, grid = entry["grid"], record.get("grid")
    if grid is not None and [grid["channels"], *grid["shape"]] != wanted:
        shapes = (wanted, [grid["channels"], *grid["shape"]])
        theirs, ours = (" x ".join(map(str, shape)) for shape in shapes)
        return f"it has frames of {theirs}, and these are of {ours}"
    return None


def _why_apart(entry: dict[str, Any], record: dict[str, Any]) -> str | None:
    """Why scores of ours cannot stand beside a published table; None where they can."""
    from jobs.forecasts.scoring.protocols import OPENSTL_SCALES

    if entry["protocol"] is None:
        return "the paper does not give its conventions"
    if record.get("synthetic"):
        return "they are of synthetic data"
    if record.get("grid") is None:
        return "they do not say what their frames are: run evaluate.py again"
    leads = record["lead_seconds"] or record["lead_frames"]
    horizon = len(leads)
    if entry["cadence_seconds"] not in (None, leads[0]):
        return f"their frames are {leads[0]} s apart, the table's {entry['cadence_seconds']} s"
    if horizon != entry["horizon"]:
        return f"they are of {horizon} frames, the table's of {entry['horizon']}"
    if record["openstl_scale"] != OPENSTL_SCALES[entry["normalised"]]:
        return f"another scale: the model was not trained with normalise {entry['normalised']}"
    if len(record["variables"]) != 1 or record["split"] != "test":
        return "they are of several variables or not of the test split"
    if entry["protocol"] not in next(iter(record["variables"].values()))["protocols"]:
        return f"they were not scored under protocol {entry['protocol']}"
    return None
