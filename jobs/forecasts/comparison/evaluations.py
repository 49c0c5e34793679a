"""Evaluations that may stand side by side: of the same windows of the same store."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.forecasts.scoring.scores import MODEL, PERSISTENCE, SCHEMA
from jobs.training.run.checkpoints import PREFIX
from pipelines.errors import StoreError, UsageError
from pipelines.storage import places

SCORES = "scores.json"
_TOLERANCE = 1e-4
"""relative; what persistence may differ by between runs of the same windows"""
_USED = (
    *("title", "store_uri", "archive", "synthetic", "fingerprint", "notes"),
    *("checkpoint_uri", "model", "step"),
    *("split", "period", "windows", "lead_seconds", "lead_frames"),
    *("climatology", "extrapolation", "openstl_scale", "variables"),
)
_OF_VARIABLES = ("long_name", "units", "train_range", "protocols", "intervals", "months", "hours")
"""What comparisons read of the JSON, and of each of its variables."""


@dataclass(frozen=True)
class KeptEvaluation:
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
        """Where the sums by day lie, see `DailySums`."""
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
    entry: KeptEvaluation
    forecast: str
    """of the evaluation"""


def systems_of(evaluations: Sequence[KeptEvaluation], variable: str, protocol: str) -> list[System]:
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


def read_evaluations(uris: Sequence[str]) -> list[KeptEvaluation]:
    """Read evaluations, from their JSON or from the folders that hold it as scores.json.

    Raises
    ------
    UsageError
        A file is absent or no evaluation, or is given twice.
    StoreError
        An evaluation is incomplete, or another version wrote it.
    """
    files = [_file(uri) for uri in uris]
    for place, file in enumerate(files):
        if places.absolute(file) in map(places.absolute, files[:place]):
            raise UsageError(
                "the same evaluation is given twice",
                where=file,
                remedy="give every evaluation once",
            )
    found = [(file, _read(file)) for file in files]
    labels = [_label(record) for _, record in found]
    return [
        KeptEvaluation(place, label if labels.count(label) == 1 else f"{label} ({place})", record)
        for (place, record), label in zip(found, labels, strict=True)
    ]


def check_comparable(evaluations: Sequence[KeptEvaluation], protocol: str) -> None:
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
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):
        record = None
    if not isinstance(record, dict) or "schema" not in record:
        raise UsageError(
            "no evaluation here",
            where=place,
            remedy="give the scores.json that jobs/evaluate.py wrote, or its folder",
        )
    again = "run evaluate.py again there"
    if record["schema"] != SCHEMA:
        what = f"the scores are of schema {record['schema']}, and this version reads {SCHEMA}"
        raise StoreError(what, where=place, remedy=again)
    if lacking := list(_lacking(record)):
        what = f"the scores are incomplete: they lack {', '.join(lacking)}"
        raise StoreError(what, where=place, remedy=again)
    return record


def _lacking(record: dict[str, Any]) -> Iterator[str]:
    """What a comparison would look for in vain."""
    yield from (key for key in _USED if key not in record)
    windows, variables = _part(record, "windows"), _part(record, "variables")
    yield from (f"windows.{key}" for key in ("scored", "available") if key not in windows)
    for name in variables:
        scored = _part(variables, name)
        yield from (f"variables.{name}.{key}" for key in _OF_VARIABLES if key not in scored)
        systems = _part(_part(scored, "protocols"), "strict")
        yield from (
            f"variables.{name}.protocols.strict.{system}"
            for system in (MODEL, PERSISTENCE)
            if not {"overall", "per_lead"} <= _part(systems, system).keys()
        )
    if not variables:
        yield "variables"


def _part(record: dict[str, Any], key: str) -> dict[str, Any]:
    part = record.get(key)
    return part if isinstance(part, dict) else {}


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


def _refusal(
    first: KeptEvaluation, other: KeptEvaluation, what: str, ours: Any, theirs: Any
) -> UsageError:
    return UsageError(
        f"these scores are not comparable, they differ in {what}: {ours} and {theirs}",
        where=f"{first.uri} and {other.uri}",
        remedy="evaluate both on the same store, split and --max_windows, with the same window",
    )
