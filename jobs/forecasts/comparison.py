"""Evaluations that may stand side by side: of the same windows of the same store."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.training.checkpoints import PREFIX
from pipelines import uri as places
from pipelines.errors import UsageError

MODEL = "model"
SCORES = "scores.json"
_TOLERANCE = 1e-4
"""relative; what persistence may differ by between runs of the same windows"""


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
    def sums_uri(self) -> str:
        """Where the sums by day lie, see ``daily_sums``."""
        folder, _, name = self.uri.rpartition("/")
        beside = "sums.npz" if name == SCORES else f"{name.removesuffix('.json')}.npz"
        return places.join(folder, beside) if folder else beside

    @property
    def leads(self) -> list[int]:
        """Seconds, or frames where the archive has no time."""
        return self.record["lead_seconds"] or self.record["lead_frames"]


@dataclass(frozen=True)
class System:
    """A forecast of a comparison: a model, or a baseline as the first evaluation has it."""

    label: str
    entry: Scored
    forecast: str
    """of the evaluation"""


def systems_of(evaluations: Sequence[Scored], variable: str, protocol: str) -> list[System]:
    """The models, then the baselines: whatever was scored under a protocol."""
    models = [System(entry.label, entry, MODEL) for entry in evaluations]
    first = evaluations[0]
    found = [*models, *(System(name, first, name) for name in first.forecasts(variable)[1:])]
    return [
        system
        for system in found
        if system.forecast
        in system.entry.record["variables"][variable]["protocols"].get(protocol, {})
    ]


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
    for entry in evaluations:
        for variable, scored in entry.record["variables"].items():
            if protocol not in scored["protocols"]:
                known = ", ".join(scored["protocols"])
                raise UsageError(
                    f"'{variable}' was not scored under protocol {protocol}",
                    where=entry.uri,
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


_SAME: dict[str, Callable[[dict[str, Any]], Any]] = {
    "the archive": lambda record: record["archive"],
    "the statistics of the store": lambda record: record["fingerprint"],
    "the split": lambda record: record["split"],
    "the period": lambda record: record["period"],
    "the windows": lambda record: "{scored} of {available}".format_map(record["windows"]),
    "the lead times": lambda record: record["lead_seconds"] or record["lead_frames"],
    "the variables and units": lambda record: {
        name: scored["units"] for name, scored in record["variables"].items()
    },
    "the climatology": lambda record: record["climatology"],
}
"""What two evaluations must share to be compared."""


def _file(uri: str) -> str:
    return uri if uri.endswith(".json") else places.join(uri, SCORES)


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
    *_, parent, name = ("", *str(record["checkpoint_uri"]).rstrip("/").split("/"))
    members = f", {record['members']} members" if (record.get("members") or 1) > 1 else ""
    run = parent if name.startswith(PREFIX) else name
    model = str(record["model"])
    # Runs are often named by their model, and need it no second time.
    name = run if run.startswith(model) else f"{model} {run}"
    return f"{name} step {record['step']}{members}"


def _close(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=_TOLERANCE)


def _refusal(first: Scored, other: Scored, what: str, ours: Any, theirs: Any) -> UsageError:
    return UsageError(
        f"these scores are not comparable, they differ in {what}: {ours} and {theirs}",
        where=f"{first.uri} and {other.uri}",
        remedy="evaluate both on the same store, split and --max_windows, with the same window",
    )
