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
"""The columns of the table.

`group_kind` and `group` say which part of the data a row is about, see `score_rows.Part`. The kind
is `all`, `month`, `hour`, `channel`, `difference` (the model minus the baseline `group`) or `skill`
(of the model over the baseline `group`). `lead` is `all`, a number of seconds, or a number of
frames if the archive has no times. `units` are those of the variable. A cell is empty if its score
or its interval does not exist.
"""


def as_csv(evaluation: Evaluation) -> str:
    """Return all scores of an evaluation as CSV text with a header."""
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
