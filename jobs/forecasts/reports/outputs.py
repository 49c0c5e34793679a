"""The files of an evaluation: where they go, whether they can go there, and writing them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from jobs.command_line import finite
from jobs.drawing.palettes import Colours
from jobs.forecasts.forecasters.trained import training_history
from jobs.forecasts.reports.error_maps import (
    ROOT,
    check_overwriting,
    error_dataset,
    remove_error_fields,
    write_error_fields,
)
from jobs.forecasts.reports.evaluation_page import FILM_RANK, render
from jobs.forecasts.reports.motion import Motion, example_motion
from jobs.forecasts.reports.score_table import COLUMNS, as_csv
from jobs.forecasts.scoring.options import EvaluationOptions
from jobs.forecasts.scoring.protocols import Selection
from jobs.forecasts.scoring.provenance import Provenance
from jobs.forecasts.scoring.scores import Evaluation
from jobs.forecasts.scoring.sums import are_daily_sums
from pipelines.errors import PlatformError, UsageError
from pipelines.storage import places, writable

if TYPE_CHECKING:
    from jobs.training.run.checkpoints import Checkpoint
    from pipelines.stores.store import Store

_OTHERS = {
    ROOT: ("a Zarr store", "zarr_format"),
    "run.json": ("a run", "statistics_fingerprint"),
    "checkpoint.json": ("a checkpoint", "files"),
    "model.json": ("an exported folder", "weights"),
}
"""Records of folders that no report is written into: what they are, and a key that tells."""


class Destinations(NamedTuple):
    """URIs of what an evaluation writes."""

    page: str
    """HTML that loads nothing"""
    scores: str
    """JSON of all scores"""
    table: str
    """CSV of all scores, a row each"""
    fields: str
    """Zarr of maps of errors"""
    sums: str
    """npz of the sums by day that scores are made of"""


def destinations(report: str) -> Destinations:
    """Where a report's files go: into a folder, or beside a page that is named.

    >>> destinations("s3://bucket/scores/day1.html").scores
    's3://bucket/scores/day1.json'
    >>> destinations("s3://bucket/scores").fields
    's3://bucket/scores/fields.zarr'
    """
    report = report.rstrip("/")
    if report.endswith(".html"):
        stem = report.removesuffix(".html")
        beside = (f"{stem}{ending}" for ending in (".json", ".csv", ".zarr", ".npz"))
        return Destinations(report, *beside)
    names = ("report.html", "scores.json", "scores.csv", "fields.zarr", "sums.npz")
    return Destinations(*(places.join(report, name) for name in names))


def write_outputs(
    options: EvaluationOptions, evaluation: Evaluation, trained: Checkpoint, store: Store
) -> Destinations:
    """Write every file of an evaluation; without maps of errors remove those of an earlier one.

    Parameters
    ----------
    trained, store:
        What was scored, and on which data.
    """
    written = destinations(options.report)
    places.write_bytes(written.table, as_csv(evaluation).encode())
    if evaluation.sums is not None:
        evaluation.sums.write(written.sums)
    maps = error_dataset(evaluation, store, trained.variables)
    if maps is None:
        remove_error_fields(written.fields)
    else:
        write_error_fields(written.fields, maps)
    provenance = Provenance.of(trained, store, training_history(trained))
    motion = example_motion(trained, evaluation, FILM_RANK)
    headline = Selection.of(options).headline
    write_report(options.report, evaluation, provenance, store, headline, motion, options.colours)
    return written


def write_report(
    report: str,
    evaluation: Evaluation,
    provenance: Provenance,
    store: Store,
    protocol: str,
    motion: Motion | None = None,
    colours: Colours = "usual",
) -> tuple[str, str]:
    """Write the page and the JSON; returns their URIs."""
    page, record, *_ = destinations(report)
    result = finite({**provenance.as_dict(), **evaluation.as_dict()})
    html = render(evaluation, provenance, store, protocol, motion, colours)
    places.write_bytes(record, json.dumps(result, indent=1, ensure_ascii=False).encode())
    places.write_bytes(page, html.encode())
    return page, record


def check_writable(report: str) -> None:
    """Refuse a place that a report cannot be written to; leaves nothing behind.

    Raises
    ------
    UsageError
        The place is empty or inside a store, a run or an exported folder; a file stands where a
        folder is needed, or a folder or somebody else's file where one of the report's goes; the
        storage refuses; or see `check_overwriting`.
    """
    if not report.strip():
        raise UsageError(
            "--report is empty", remedy="give a folder, or a page whose name ends in .html"
        )
    written = destinations(report)
    folder = places.absolute(written.page).rpartition("/")[0] or "/"
    writable.check_writable(folder, "report")
    _check_outside(folder)
    for file in (written.page, written.scores, written.table, written.sums):
        if writable.is_folder(file):
            raise UsageError(
                "a file of a report goes here, and a folder stands here",
                where=file,
                remedy="give a --report of another name",
            )
    _check_not_foreign(written)
    check_overwriting(written.fields)


def _check_outside(folder: str) -> None:
    """Refuse a folder that is, or lies in, one that belongs to something else."""
    above = folder.rstrip("/")
    while not above.endswith(":/"):  # of a bucket
        for name, (what, key) in _OTHERS.items():
            if key in _json(places.join(above, name)):
                raise UsageError(
                    f"a report is not written into {what}",
                    where=f"{above or '/'}, which holds {name}",
                    remedy="give a --report outside of it",
                )
        if not above:
            return
        above = above.rpartition("/")[0]


def _check_not_foreign(written: Destinations) -> None:
    """Refuse files of the report's names that no evaluation wrote."""
    scored, header = {"schema", "variables"} <= _json(written.scores).keys(), ",".join(COLUMNS)
    ours = {
        written.scores: scored,
        written.table: _content(written.table, len(header)) == header.encode(),
        # Damaged ones have no sign of their own.
        written.sums: are_daily_sums(_content(written.sums), damaged=scored),
    }
    for file, known in ours.items():
        if not known and places.exists(file):
            raise UsageError(
                "a file of a report goes here, and something else is here that it would replace",
                where=file,
                remedy="give a --report of another name, or move what is here away",
            )


def _json(file: str) -> dict[str, Any]:
    """What a file of JSON holds; nothing where there is none, or none that may be looked at."""
    try:
        record = json.loads(_content(file))
    except (PlatformError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _content(file: str, most: int | None = None) -> bytes:
    """Of a file, or of its beginning; nothing where there is none."""
    try:
        return places.read_bytes(file) if most is None else places.read_range(file, 0, most)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return b""
