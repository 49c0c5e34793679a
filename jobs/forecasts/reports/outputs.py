"""The files of an evaluation: choose their places, check that these are free, write them."""

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
"""Files that mark a folder into which no report is written.

The values are a name for the folder, and a key by which the content of the file is recognised.
"""


class Destinations(NamedTuple):
    """The URIs of the files that an evaluation writes."""

    page: str
    """The self-contained HTML page."""
    scores: str
    """JSON of all scores."""
    table: str
    """CSV of all scores, one row per score."""
    fields: str
    """Zarr store of maps of errors."""
    sums: str
    """NPZ file of the daily sums from which scores are computed."""


def destinations(report: str) -> Destinations:
    """Return where the files of a report go: into a folder, or beside a page `*.html`.

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
    """Write every file of an evaluation and return their URIs.

    If the evaluation kept no maps of errors, the maps of an earlier evaluation are removed.

    Parameters
    ----------
    trained:
        The checkpoint that was scored.
    store:
        The data on which it was scored.
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
    """Write the page and the JSON of scores, and return their URIs."""
    page, record, *_ = destinations(report)
    result = finite({**provenance.as_dict(), **evaluation.as_dict()})
    html = render(evaluation, provenance, store, protocol, motion, colours)
    places.write_bytes(record, json.dumps(result, indent=1, ensure_ascii=False).encode())
    places.write_bytes(page, html.encode())
    return page, record


def check_writable(report: str) -> None:
    """Check that a report can be written to a place. The check leaves no files behind.

    Raises
    ------
    UsageError
        If `report` is empty; if it lies inside a store, a run, a checkpoint or an exported folder;
        if a file exists where a folder is needed, or a folder where a file is needed; if a file
        that no evaluation wrote would be replaced; if the storage does not accept the write; or
        if something other than maps of errors is in their place.
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
    """Raise `UsageError` if the folder, or one above it, is one of those in `_OTHERS`."""
    above = folder.rstrip("/")
    while not above.endswith(":/"):  # above a bucket, as in "s3:/"
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
    """Raise `UsageError` if a file that no evaluation wrote would be replaced."""
    scored, header = {"schema", "variables"} <= _json(written.scores).keys(), ",".join(COLUMNS)
    ours = {
        written.scores: scored,
        written.table: _content(written.table, len(header)) == header.encode(),
        # Damaged sums cannot be recognised. Beside scores of an evaluation they count as sums.
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
    """Return the object in a JSON file, or an empty one if the file is missing or unreadable."""
    try:
        record = json.loads(_content(file))
    except (PlatformError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _content(file: str, most: int | None = None) -> bytes:
    """Return the first `most` bytes of a file, or all; nothing if the file is missing."""
    try:
        return places.read_bytes(file) if most is None else places.read_range(file, 0, most)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return b""
