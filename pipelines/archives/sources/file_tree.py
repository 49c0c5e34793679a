"""The files of an archive that keeps them in folders of folders, each with its path as its name."""

from __future__ import annotations

import re

from pipelines.archives.contents import SourceFile
from pipelines.archives.sources import listing
from pipelines.archives.sources.files import unlisted
from pipelines.errors import SourceError
from pipelines.storage import places
from pipelines.storage.retry import is_storage_fault

_NUMBERS = re.compile(r"(\d+)", re.ASCII)


def find_tree(source: str, suffixes: tuple[str, ...], archive: str) -> tuple[SourceFile, ...]:
    """The archive's files at and below ``source``, which is a folder or one file.

    Their names are paths inside the folder, numbers in them counted as numbers: ``sample_2`` comes
    before ``sample_10``.

    Raises
    ------
    SourceError
        Nothing there, or nothing with one of the archive's endings.
    """
    fs, path = places.filesystem(source)
    fs.invalidate_cache()
    remedy = f"archive '{archive}' reads {', '.join(suffixes)}: give the folder that holds them"
    try:
        folder = fs.isdir(path)
        entries = list(listing.tree(fs, path)) if folder else [listing.resolved(fs.info(path))]
    except FileNotFoundError:
        raise SourceError("there is nothing at the source", where=source, remedy=remedy) from None
    except Exception as error:
        if not is_storage_fault(error):
            raise
        raise unlisted(source, error, remedy) from None
    scheme = "" if places.is_local(source) else source.split("://", 1)[0] + "://"
    root = path.rstrip("/") + "/" if folder else path.rsplit("/", 1)[0] + "/"
    found = {entry["name"]: entry for entry in entries if entry["type"] in ("file", "broken")}
    found = {
        name: entry
        for name, entry in found.items()
        if name.lower().endswith(suffixes) and not name.rsplit("/", 1)[-1].startswith(".")
    }
    listing.check_usable(list(found.values()))
    files = [
        SourceFile(
            f"{scheme}{name}", int(entry["size"]), places.etag(entry), name.removeprefix(root)
        )
        for name, entry in found.items()
    ]
    if not files:
        raise SourceError("no files found", where=source, remedy=remedy)
    return tuple(sorted(files, key=lambda file: _by_number(file.name)))


def _by_number(name: str) -> list[tuple[int, str]]:
    """A key that sorts the numbers in names as numbers."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in _NUMBERS.split(name)]
