"""Evaluations that may be compared: of the same windows of the same store."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.forecasts.scoring.provenance import Provenance
from jobs.forecasts.scoring.score_rows import MODEL, STRICT
from jobs.forecasts.scoring.scores import PERSISTENCE, SCHEMA, Evaluation
from jobs.training.run.checkpoints import PREFIX
from pipelines.errors import StoreError, UsageError
from pipelines.storage import places

SCORES = "scores.json"
_TOLERANCE = 1e-4
"""relative difference that the RMSE of persistence may have between runs on the same windows"""
_REQUIRED = (
    *("title", "store_uri", "archive", "synthetic", "fingerprint", "notes"),
    *("checkpoint_uri", "model", "step"),
    *("split", "period", "windows", "lead_seconds", "lead_frames"),
    *("climatology", "extrapolation", "openstl_scale", "variables"),
)
"""Keys of `scores.json` that a comparison needs."""
_REQUIRED_OF_VARIABLES = (
    *("long_name", "units", "train_range", "protocols", "intervals", "months", "hours"),
)
"""Keys of each variable that a comparison needs."""


@dataclass(frozen=True)
class KeptEvaluation:
    """One `scores.json` that `jobs/evaluate.py` wrote."""

    uri: str
    """of the file"""
    label: str
    """model, run and step"""
    evaluation: Evaluation
    provenance: Provenance

    @property
    def sums_uri(self) -> str:
        """URI of the sums by day, see `DailySums`."""
        folder, _, name = self.uri.rpartition("/")
        beside = "sums.npz" if name == SCORES else f"{name.removesuffix('.json')}.npz"
        return places.join(folder, beside) if folder else beside


@dataclass(frozen=True)
class System:
    """A model of a comparison, or a baseline as the first evaluation has it."""

    label: str
    """what the comparison calls it"""
    kept: KeptEvaluation
    forecast: str
    """what its evaluation calls it"""


def systems_of(evaluations: Sequence[KeptEvaluation], variable: str, protocol: str) -> list[System]:
    """Return the models, then the baselines of the first evaluation, scored under a protocol."""
    first = evaluations[0]
    models = [System(kept.label, kept, MODEL) for kept in evaluations]
    baselines = first.evaluation.scores_of(variable).baselines
    return [
        system
        for system in (*models, *(System(name, first, name) for name in baselines))
        if system.forecast in system.kept.evaluation.scores_of(variable).systems(protocol)
    ]


def read_evaluations(uris: Sequence[str]) -> list[KeptEvaluation]:
    """Read evaluations from their files, or from the folders that hold them as `scores.json`.

    Raises
    ------
    UsageError
        A file is missing, is not an evaluation, or is given twice.
    StoreError
        An evaluation is incomplete, or another version wrote it.
    """
    files = [uri if uri.endswith(".json") else places.join(uri, SCORES) for uri in uris]
    for place, file in enumerate(files):
        if places.absolute(file) in map(places.absolute, files[:place]):
            raise UsageError(
                "the same evaluation is given twice",
                where=file,
                remedy="give every evaluation once",
            )
    records = [_read(file) for file in files]
    read = [(Evaluation.from_dict(one), Provenance.from_dict(one)) for one in records]
    labels = [_label(*one) for one in read]
    return [
        KeptEvaluation(file, label if labels.count(label) == 1 else f"{label} ({file})", *one)
        for file, label, one in zip(files, labels, read, strict=True)
    ]


def check_comparable(evaluations: Sequence[KeptEvaluation], protocol: str) -> None:
    """Raise UsageError for scores of different windows, stores or conventions.

    The error names what differs, and both files.
    """
    for kept in evaluations:
        for scored in kept.evaluation.scores:
            if protocol not in scored.protocols:
                known = ", ".join(scored.protocols)
                raise UsageError(
                    f"'{scored.label}' was not scored under protocol {protocol}",
                    where=kept.uri,
                    remedy=f"give --protocol one of {known}",
                )
    first = evaluations[0]
    for other in evaluations[1:]:
        for what, of in _SAME.items():
            ours, theirs = of(first), of(other)
            if ours != theirs:
                raise _not_comparable(first, other, what, ours, theirs)
        scales = [kept.evaluation.openstl_scale for kept in (first, other)]
        if protocol == "openstl" and scales[0] != scales[1]:
            raise _not_comparable(first, other, "the scale of protocol openstl", *scales)
        for variable in first.evaluation.labels if scales[0] == scales[1] else ():
            ours, theirs = (
                kept.evaluation.scores_of(variable).strict(PERSISTENCE, "rmse")
                for kept in (first, other)
            )
            if not _is_close(ours, theirs):
                what = f"the windows (persistence of {variable} has another RMSE)"
                raise _not_comparable(first, other, what, ours, theirs)


_SAME: dict[str, Callable[[KeptEvaluation], Any]] = {
    "the archive": lambda kept: kept.provenance.archive,
    "the statistics of the store": lambda kept: kept.provenance.fingerprint,
    "the split": lambda kept: kept.evaluation.split,
    "the period": lambda kept: list(kept.evaluation.period),
    "the windows": lambda kept: (
        f"{kept.evaluation.windows_scored} of {kept.evaluation.windows_available}"
    ),
    "the lead times": lambda kept: list(kept.evaluation.lead_seconds),
    "the variables and units": lambda kept: {
        scored.label: scored.units for scored in kept.evaluation.scores
    },
    "the climatology": lambda kept: kept.evaluation.climatology,
}
"""What evaluations must share to be comparable."""


def _read(file: str) -> dict[str, Any]:
    try:
        record = json.loads(places.read_bytes(file))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):
        record = None
    if not isinstance(record, dict) or "schema" not in record:
        raise UsageError(
            "no evaluation here",
            where=file,
            remedy="give the scores.json that jobs/evaluate.py wrote, or its folder",
        )
    again = "run evaluate.py again there"
    if record["schema"] != SCHEMA:
        what = f"the scores are of schema {record['schema']}, and this version reads {SCHEMA}"
        raise StoreError(what, where=file, remedy=again)
    if missing := list(_missing(record)):
        what = f"the scores are incomplete, missing are {', '.join(missing)}"
        raise StoreError(what, where=file, remedy=again)
    return record


def _missing(record: dict[str, Any]) -> Iterator[str]:
    """Yield the keys that a comparison needs and the file does not have."""
    yield from (key for key in _REQUIRED if key not in record)
    windows, variables = _part(record, "windows"), _part(record, "variables")
    yield from (f"windows.{key}" for key in ("scored", "available") if key not in windows)
    for name in variables:
        scored = _part(variables, name)
        yield from (
            f"variables.{name}.{key}" for key in _REQUIRED_OF_VARIABLES if key not in scored
        )
        systems = _part(_part(scored, "protocols"), STRICT)
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


def _label(evaluation: Evaluation, provenance: Provenance) -> str:
    *_, parent, name = ("", *provenance.checkpoint_uri.rstrip("/").split("/"))
    members = f", {evaluation.members} members" if (evaluation.members or 1) > 1 else ""
    run = parent if name.startswith(PREFIX) else name
    # Runs are often named after their model, whose name is then not repeated.
    named = run if run.startswith(provenance.model) else f"{provenance.model} {run}"
    return f"{named} step {provenance.step}{members}"


def _is_close(one: float, other: float) -> bool:
    if math.isnan(one) or math.isnan(other):
        return math.isnan(one) and math.isnan(other)
    return math.isclose(one, other, rel_tol=_TOLERANCE)


def _not_comparable(
    first: KeptEvaluation, other: KeptEvaluation, what: str, ours: Any, theirs: Any
) -> UsageError:
    return UsageError(
        f"these scores are not comparable, they differ in {what}: {ours} and {theirs}",
        where=f"{first.uri} and {other.uri}",
        remedy="evaluate both on the same store, split and --max_windows, with the same window",
    )
