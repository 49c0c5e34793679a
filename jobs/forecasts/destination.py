"""Where a report goes, and whether it can go there, asked before the forecasts are made."""

from __future__ import annotations

import os
import uuid

from pipelines import uri as places
from pipelines.errors import UsageError


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
    folder = page.rpartition("/")[0] or "."
    reason = _local(places.local_path(folder)) if places.is_local(page) else _remote(folder)
    if reason:
        raise UsageError(
            f"the report cannot be written: {reason}",
            where=page,
            remedy="give --report a folder or an .html file that you may write to",
        )


def _local(folder: str) -> str | None:
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    if not os.path.isdir(folder):
        return f"{folder} is no folder"
    return None if os.access(folder, os.W_OK | os.X_OK) else f"no permission to write in {folder}"


def _remote(folder: str) -> str | None:
    probe = places.join(folder, f"probe-{uuid.uuid4().hex}")
    try:
        places.write_bytes(probe, b"")
        places.delete(probe)
    except UsageError:
        raise
    except Exception as error:  # each storage driver has errors of its own
        return f"{type(error).__name__}: {error}"
    return None
