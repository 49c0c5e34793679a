"""Every score of an evaluation as one row of a CSV file."""

from __future__ import annotations

import csv
import io
import math

from jobs.forecasts.scoring.scores import Evaluation

COLUMNS = (
    "system",
    "variable",
    "channel",
    "units",
    "protocol",
    "metric",
    "group_kind",
    "group",
    "lead",
    "value",
    "low",
    "high",
)
"""`group_kind` and `group` are the part of a row, see `score_rows.Part`: `all`, `month`, `hour`,
`channel`, `difference` (of the model less the baseline `group`) or `skill` (over it). `lead` is
`all`, seconds, or frames if the archive has no times. `units` are those of the variable. An empty
cell: the score or its interval does not exist."""


def as_csv(evaluation: Evaluation) -> str:
    """Return the table with its header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for item in evaluation.scores:
        for row in item.scores:
            kind, group = row.part
            channel = group if kind == "channel" else ""
            lead = "all" if row.lead is None else row.lead
            writer.writerow(
                (
                    *(row.system, row.variable, channel, item.units, row.protocol, row.name),
                    *(kind, group, lead),
                    *map(_cell, (row.value, row.low, row.high)),
                )
            )
    return text.getvalue()


def _cell(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else repr(float(value))
