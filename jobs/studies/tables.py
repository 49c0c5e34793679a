"""The tables of a study: means over seeds with their spread, baselines beside, compute stated."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.forecasts.comparison.evaluations import (
    MODEL,
    KeptEvaluation,
    check_comparable,
    read_evaluations,
)
from jobs.forecasts.scoring.text import lead_labels, number, several, shown_units
from jobs.studies.definition import Study
from jobs.training.run.checkpoints import load_checkpoint
from jobs.training.run.run_folder import read_history
from pipelines.errors import StoreError

MOST_LEADS = 6
"""columns of a table, besides that of all leads"""


@dataclass(frozen=True)
class Trained:
    """One system under one seed, scored."""

    system: str
    seed: int
    scored: KeptEvaluation
    parameters: int
    steps: int
    device: str
    """that it was trained on, as PyTorch names it: ``cpu``, ``cuda``"""
    minutes: float
    """of training steps, starts and uploads left out, summed over the workers: of processor time on
    CPUs, of time on each accelerator"""


def is_scored(run: str, report: str) -> bool:
    """Whether the report is that of the checkpoint that would be scored now."""
    if not Path(report).is_dir():
        return False
    return read_evaluations([report])[0].record["checkpoint_uri"] == load_checkpoint(run).uri


def read(system: str, seed: int, run: str, report: str) -> Trained:
    """A finished training and its scores.

    Raises
    ------
    StoreError
        An earlier version trained it, and did not note what its steps cost.
    """
    scored = read_evaluations([report])[0]
    checkpoint, history = load_checkpoint(run), read_history(run)
    if any("processor_seconds" not in record for record in history):
        raise StoreError(
            "an earlier version trained this run, which did not note what its steps cost",
            where=run,
            remedy="remove it and its report, or give a new --folder: it is trained again",
        )
    device = checkpoint.record["device"]
    windows = scored.record["options"]["training"]["global_batch"]
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
        scored=scored,
        parameters=sum(parameter.numel() for parameter in checkpoint.model().parameters()),
        steps=len(history),
        device=device,
        minutes=seconds / 60,
    )


def tables(study: Study, trained: Sequence[Trained]) -> list[str]:
    """Markdown: for each variable and score a table by lead time, a row a system.

    Raises
    ------
    UsageError
        The systems were not scored on the same windows.
    """
    check_comparable([entry.scored for entry in trained], study.scores[0][0])
    lines = [f"# {study.title}", "", *_headline(trained)]
    for variable, described in trained[0].scored.record["variables"].items():
        for protocol, score in study.scores:
            if protocol in described["protocols"]:
                lines += ["", *_table(trained, variable, protocol, score)]
    return lines


def as_dict(study: Study, trained: Sequence[Trained]) -> dict[str, Any]:
    """Every number of the tables, each seed by itself."""
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
                "windows": entry.scored.record["windows"],
                "variables": entry.scored.record["variables"],
            }
            for entry in trained
        ],
    }


def _headline(trained: Sequence[Trained]) -> list[str]:
    record = trained[0].scored.record
    first, last = (time[:16] for time in record["period"]) if record["period"] else ("", "")
    seeds = sorted({entry.seed for entry in trained})
    steps = sorted({entry.steps for entry in trained})
    minutes = sum(entry.minutes for entry in trained)
    return [
        f"{record['windows']['scored']} windows of the {record['split']} split"
        + (f", {first} to {last}" if first else "")
        + f"; {len(seeds)} seed(s), {' or '.join(map(str, steps))} steps each; training took "
        f"{minutes:.0f} {_unit(trained)} in all. Means over seeds ± one standard deviation.",
    ]


def _unit(trained: Sequence[Trained]) -> str:
    """What the compute of the systems is counted in."""
    devices = sorted({entry.device for entry in trained})
    return " and ".join("core-minutes" if d == "cpu" else f"{d.upper()}-minutes" for d in devices)


def _table(trained: Sequence[Trained], variable: str, protocol: str, score: str) -> list[str]:
    record = trained[0].scored.record
    described = record["variables"][variable]
    timed = record["lead_seconds"] is not None
    leads = trained[0].scored.leads
    shown = several(len(leads), MOST_LEADS)
    labels = [lead_labels(leads, timed)[i] for i in shown]
    units = shown_units(described["units"]) if score in ("rmse", "mae", "bias", "mse") else ""
    rows = [
        f"| {score} of {variable}{units and f', {units}'} | parameters | {_unit(trained)} | "
        + " | ".join([*labels, "all leads"])
        + " |",
        "|---|---:|---:|" + "---:|" * (len(shown) + 1),
    ]
    for system in dict.fromkeys(entry.system for entry in trained):
        own = [entry for entry in trained if entry.system == system]
        values = [_values(entry.scored, variable, protocol, score, MODEL, shown) for entry in own]
        minutes = statistics.mean(entry.minutes for entry in own)
        rows.append(_row(system, f"{own[0].parameters / 1e6:.2f} M", f"{minutes:.1f}", values))
    for baseline in trained[0].scored.forecasts(variable):
        if baseline != MODEL:
            values = [_values(trained[0].scored, variable, protocol, score, baseline, shown)]
            rows.append(_row(baseline, "", "", values))
    return rows


def _values(
    scored: KeptEvaluation,
    variable: str,
    protocol: str,
    score: str,
    forecast: str,
    shown: Sequence[int],
) -> list[float]:
    scores = scored.scores(variable, protocol, forecast)
    per_lead = scores["per_lead"][score]
    wanted = [*(per_lead[i] for i in shown), scores["overall"][score]]
    return [float("nan") if value is None else value for value in wanted]


def _row(name: str, parameters: str, minutes: str, values: Sequence[Sequence[float]]) -> str:
    cells = [_over_seeds(column) for column in zip(*values, strict=True)]
    return f"| {name} | {parameters} | {minutes} | " + " | ".join(cells) + " |"


def _over_seeds(values: Sequence[float]) -> str:
    """Mean and standard deviation of a score, of the seeds that have it.

    >>> _over_seeds([1.0, 2.0, 3.0]), _over_seeds([0.5])
    ('2.00 ± 1.0', '0.500')
    >>> _over_seeds([0.25, math.nan, 0.75]), _over_seeds([math.nan, math.nan])
    ('0.500 ± 0.35 (2 of 3)', 'none')
    """
    known = [value for value in values if math.isfinite(value)]
    spread = f" ± {number(statistics.stdev(known), 2)}" if len(known) > 1 else ""
    of_some = f" ({len(known)} of {len(values)})" if 0 < len(known) < len(values) else ""
    return f"{number(statistics.mean(known or values))}{spread}{of_some}"
