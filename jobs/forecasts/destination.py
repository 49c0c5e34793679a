"""Where a report goes, and whether it can go there, asked before the forecasts are made."""

from __future__ import annotations

from typing import NamedTuple

from pipelines import uri as places
from pipelines import writable


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
        A file stands where a folder is needed, or the storage refuses.
    """
    page = destinations(report).page
    writable.refuse_unwritable(page.rpartition("/")[0] or ".", "report")
