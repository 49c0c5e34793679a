"""Scores that the GMG paper prints: apart from ours, and only for the data that they are of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from jobs.forecasts.comparison.evaluations import KeptEvaluation
from jobs.forecasts.scoring.score_rows import MODEL
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
    """evaluation -> its scores in the same conventions; nothing where `apart` says why"""
    apart: str | None
    """why some or none of ours stand beside them"""


def published_scores(name: str, evaluations: Sequence[KeptEvaluation]) -> Published | str:
    """The published scores of one data set, or why none are shown.

    Parameters
    ----------
    name:
        Of the data set; empty: that of the evaluations, `none`: nothing.

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
    first = evaluations[0]
    archive = first.provenance.archive
    if name == "none" or (not name and archive not in known):
        return ""
    if name and name not in known:
        raise UsageError(
            f"no published scores of '{name}'", remedy=f"give --published one of {', '.join(known)}"
        )
    chosen = name or archive
    entry, other = known[chosen], _other_data(chosen, known[chosen], first)
    if other and not name:
        return f"the published scores of '{chosen}' are not shown: {other}"
    if other:
        raise UsageError(
            f"published scores of '{name}' are of another data set: {other}",
            where=first.uri,
            remedy="leave --published out: published scores are shown where they fit",
        )
    reasons = {kept.label: _why_apart(entry, kept) for kept in evaluations}
    given = dict.fromkeys(reason for reason in reasons.values() if reason)
    return Published(
        table=entry["table"],
        setting=entry["setting"].strip(),
        columns=tuple(entry["columns"]),
        rows={row: tuple(map(str, values)) for row, values in entry["rows"].items()},
        protocol=entry["protocol"],
        ours={s.label: _ours(s, entry) for s in evaluations if not reasons[s.label]},
        apart="; ".join(given) or None,
    )


def _ours(kept: KeptEvaluation, entry: dict[str, Any]) -> tuple[str, ...]:
    """Return the scores of one evaluation of a single variable, in the columns of a table."""
    (scored,) = kept.evaluation.scores
    overall = scored.scores.means(entry["protocol"], MODEL)
    same = (entry["same"][column] for column in entry["columns"])
    return tuple(f"{overall[known['score']] * known['times']:.4f}" for known in same)


def _other_data(name: str, entry: dict[str, Any], kept: KeptEvaluation) -> str | None:
    """Return why an evaluation is not of a table's data set; None if it is."""
    archive, grid = kept.provenance.archive, kept.evaluation.grid
    if archive != name:
        return f"these scores are of archive {archive}"
    if grid is not None and [grid.channels, *grid.shape] != entry["grid"]:
        theirs, ours = (
            " x ".join(map(str, shape)) for shape in (entry["grid"], (grid.channels, *grid.shape))
        )
        return f"it has frames of {theirs}, and these are of {ours}"
    return None


def _why_apart(entry: dict[str, Any], kept: KeptEvaluation) -> str | None:
    """Return why scores of ours cannot stand beside a published table; None if they can."""
    from jobs.forecasts.scoring.protocols import OPENSTL_SCALES

    evaluation = kept.evaluation
    leads = evaluation.lead_seconds
    if entry["protocol"] is None:
        return "the paper does not give its conventions"
    if kept.provenance.synthetic:
        return "they are of synthetic data"
    if evaluation.grid is None:
        return "they do not say what their frames are: run evaluate.py again"
    if entry["cadence_seconds"] not in (None, leads[0]):
        return f"their frames are {leads[0]} s apart, the table's {entry['cadence_seconds']} s"
    if len(leads) != entry["horizon"]:
        return f"they are of {len(leads)} frames, the table's of {entry['horizon']}"
    if evaluation.openstl_scale != OPENSTL_SCALES[entry["normalised"]]:
        return f"another scale: the model was not trained with normalise {entry['normalised']}"
    if len(evaluation.scores) != 1 or evaluation.split != "test":
        return "they are of several variables or not of the test split"
    if entry["protocol"] not in evaluation.scores[0].protocols:
        return f"they were not scored under protocol {entry['protocol']}"
    return None
