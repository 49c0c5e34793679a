"""Where a report goes, and whether it can go there, asked before the forecasts are made."""

from __future__ import annotations

from pipelines import uri as places
from pipelines import writable


def destinations(report: str) -> tuple[str, str]:
    """URIs of the page and of the JSON beside it.

    >>> destinations("s3://bucket/scores/day1.html")
    ('s3://bucket/scores/day1.html', 's3://bucket/scores/day1.json')
    >>> destinations("s3://bucket/scores")
    ('s3://bucket/scores/report.html', 's3://bucket/scores/evaluation.json')
    """
    report = report.rstrip("/")
    if report.endswith(".html"):
        return report, report.removesuffix(".html") + ".json"
    return places.join(report, "report.html"), places.join(report, "evaluation.json")


def refuse_unwritable(report: str) -> None:
    """Refuse a place that a report cannot be written to; leaves nothing behind.

    Raises
    ------
    UsageError
        A file stands where a folder is needed, or the storage refuses.
    """
    page, _ = destinations(report)
    writable.refuse_unwritable(page.rpartition("/")[0] or ".", "report")
