"""Where a report goes, and whether it can go there, asked before the forecasts are made."""

from __future__ import annotations

import json
from typing import NamedTuple

from pipelines import uri as places
from pipelines import writable
from pipelines.errors import UsageError
from pipelines.ledger import FOLDER

ROOT = "zarr.json"
SYSTEM = "system"
"""A coordinate that maps of errors have, and are begun with."""
COUNTED = "windows_scored"
"""An attribute that the root of maps of errors has."""


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


def refuse_unwritable(report: str) -> None:
    """Refuse a place that a report cannot be written to; leaves nothing behind.

    Raises
    ------
    UsageError
        A file stands where a folder is needed, the storage refuses, or see ``refuse_overwriting``.
    """
    written = destinations(report)
    writable.refuse_unwritable(written.page.rpartition("/")[0] or ".", "report")
    refuse_overwriting(written.fields)


def refuse_overwriting(fields: str) -> None:
    """Refuse to put maps of errors, which replace those of before, over anything else.

    Raises
    ------
    UsageError
        Something else stands there: beside a page ``t2m.html`` maps go to ``t2m.zarr``, which may
        well be the store.
    """
    held = places.names(fields)
    if held and not _are_maps(fields, held):
        raise UsageError(
            "maps of errors go here, and something else is here that they would replace",
            where=fields,
            remedy="give a --report of another name",
        )


def _are_maps(fields: str, held: list[str]) -> bool:
    try:
        root = json.loads(places.read_bytes(places.join(fields, ROOT)))
    except FileNotFoundError:
        # What an evaluation left that was killed while it wrote them.
        return SYSTEM in held and FOLDER not in held
    except (NotADirectoryError, ValueError):
        return False
    return isinstance(root, dict) and COUNTED in root.get("attributes", {})
