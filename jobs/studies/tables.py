"""The tables of a study: mean and spread of scores over seeds, baselines, and the compute used."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.forecasts.comparison.evaluations import (
    KeptEvaluation,
    check_comparable,
    read_evaluations,
)
from jobs.forecasts.scoring.score_rows import MODEL, Scores
from jobs.forecasts.scoring.scores import GroupScores
from jobs.forecasts.scoring.text import lead_labels, number, several, shown_units
from jobs.studies.definition import Study
from jobs.training.run.checkpoints import load_checkpoint
from jobs.training.run.run_folder import read_history
from pipelines.errors import StoreError

MOST_LEADS = 6
"""largest number of lead-time columns of a table; one more column has the score over all leads"""


@dataclass(frozen=True)
class Trained:
    """A system that was trained with one seed, and its scores."""

    system: str
    seed: int
    kept: KeptEvaluation
    """scores of its checkpoint"""
    parameters: int
    steps: int
    device: str
    """device of the training, as PyTorch names it: `cpu`, `cuda`"""
    minutes: float
    """minutes of all training steps, without starts and uploads, summed over the workers: processor
    time on CPUs, elapsed time on accelerators"""


def is_scored(run: str, report: str) -> bool:
    """Return whether the report scores the checkpoint that an evaluation would score now."""
    if not Path(report).is_dir():
        return False
    return read_evaluations([report])[0].provenance.checkpoint_uri == load_checkpoint(run).uri


def read(system: str, seed: int, run: str, report: str) -> Trained:
    """Read a finished training and its scores.

    Raises
    ------
    StoreError
        An earlier version wrote the run and did not record the time of its steps.
    """
    kept = read_evaluations([report])[0]
    checkpoint, history = load_checkpoint(run), read_history(run)
    if any("processor_seconds" not in record for record in history):
        raise StoreError(
            "an earlier version trained this run, which did not note what its steps cost",
            where=run,
            remedy="remove it and its report, or give a new --folder: it is trained again",
        )
    device = checkpoint.record["device"]
    windows = kept.provenance.options["training"]["global_batch"]
    seconds = sum(
        record["workers"]
        * (
            record["processor_seconds"]
            if device == "cpu"
            else windows / record["samples_per_second"]
        )
        for record in history
    )
    return Trained(
        system=system,
        seed=seed,
        kept=kept,
        parameters=sum(parameter.numel() for parameter in checkpoint.model().parameters()),
        steps=len(history),
        device=device,
        minutes=seconds / 60,
    )


def tables(study: Study, trained: Sequence[Trained]) -> list[str]:
    """Return a Markdown table per variable and score, with a row per system and lead times across.

    Raises
    ------
    UsageError
        The systems were not scored on the same windows.
    """
    check_comparable([entry.kept for entry in trained], study.scores[0][0])
    lines = [f"# {study.title}", "", *_headline(trained)]
    for scored in trained[0].kept.evaluation.scores:
        for protocol, score in study.scores:
            if protocol in scored.protocols:
                lines += ["", *_table(trained, scored, protocol, score)]
    return lines


def as_dict(study: Study, trained: Sequence[Trained]) -> dict[str, Any]:
    """Return every number of the tables, separately for each seed."""
    return {
        "study": study.name,
        "title": study.title,
        "trained": [
            {
                "system": entry.system,
                "seed": entry.seed,
                "parameters": entry.parameters,
                "steps": entry.steps,
                "device": entry.device,
                "minutes": round(entry.minutes, 2),
                "windows": found["windows"],
                "variables": found["variables"],
            }
            for entry in trained
            for found in [entry.kept.evaluation.as_dict()]
        ],
    }


def _headline(trained: Sequence[Trained]) -> list[str]:
    evaluation = trained[0].kept.evaluation
    first, last = (time[:16] for time in evaluation.period)
    seeds = sorted({entry.seed for entry in trained})
    steps = sorted({entry.steps for entry in trained})
    minutes = sum(entry.minutes for entry in trained)
    return [
        f"{evaluation.windows_scored} windows of the {evaluation.split} split, {first} to {last}; "
        f"{len(seeds)} seed(s), {' or '.join(map(str, steps))} steps each; training took "
        f"{minutes:.0f} {_unit(trained)} in all. Means over seeds ± one standard deviation.",
    ]


def _unit(trained: Sequence[Trained]) -> str:
    """Return the unit in which the compute of the systems is counted."""
    devices = sorted({entry.device for entry in trained})
    return " and ".join("core-minutes" if d == "cpu" else f"{d.upper()}-minutes" for d in devices)


def _table(trained: Sequence[Trained], scored: GroupScores, protocol: str, score: str) -> list[str]:
    evaluation, variable = trained[0].kept.evaluation, scored.label
    shown = several(len(evaluation.lead_seconds), MOST_LEADS)
    every = lead_labels(evaluation.lead_seconds, evaluation.timed)
    labels = [every[i] for i in shown]
    units = shown_units(scored.units) if score in ("rmse", "mae", "bias", "mse") else ""
    rows = [
        f"| {score} of {variable}{units and f', {units}'} | parameters | {_unit(trained)} | "
        + " | ".join([*labels, "all leads"])
        + " |",
        "|---|---:|---:|" + "---:|" * (len(shown) + 1),
    ]
    for system in dict.fromkeys(entry.system for entry in trained):
        own = [entry for entry in trained if entry.system == system]
        found = (entry.kept.evaluation.scores_of(variable).scores for entry in own)
        values = [_values(scores.series(protocol, MODEL, score), shown) for scores in found]
        minutes = statistics.mean(entry.minutes for entry in own)
        rows.append(_row(system, f"{own[0].parameters / 1e6:.2f} M", f"{minutes:.1f}", values))
    for baseline in scored.baselines:
        values = [_values(scored.scores.series(protocol, baseline, score), shown)]
        rows.append(_row(baseline, "", "", values))
    return rows


def _values(rows: Scores, shown: Sequence[int]) -> list[float]:
    """Return a score at the lead times that are shown, then that of all lead times."""
    overall, *per_lead = rows.values
    return [*(per_lead[i] for i in shown), overall]


def _row(name: str, parameters: str, minutes: str, values: Sequence[Sequence[float]]) -> str:
    cells = [_over_seeds(column) for column in zip(*values, strict=True)]
    return f"| {name} | {parameters} | {minutes} | " + " | ".join(cells) + " |"


def _over_seeds(values: Sequence[float]) -> str:
    """Return the mean and standard deviation of a score over the seeds that have it.

    >>> _over_seeds([1.0, 2.0, 3.0]), _over_seeds([0.5])
    ('2.00 ± 1.0', '0.500')
    >>> _over_seeds([0.25, math.nan, 0.75]), _over_seeds([math.nan, math.nan])
    ('0.500 ± 0.35 (2 of 3)', 'none')
    """
    known = [value for value in values if math.isfinite(value)]
    spread = f" ± {number(statistics.stdev(known), 2)}" if len(known) > 1 else ""
    of_some = f" ({len(known)} of {len(values)})" if 0 < len(known) < len(values) else ""
    return f"{number(statistics.mean(known or values))}{spread}{of_some}"
