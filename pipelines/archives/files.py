"""The files of an archive: found by URI, fetched where they are remote, watched for changes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipelines import uri as places
from pipelines.archives.archive import SourceFile
from pipelines.errors import SourceError


def find_files(source: str, suffixes: tuple[str, ...], archive: str) -> tuple[SourceFile, ...]:
    """The archive's files at ``source``, in the order of their names.

    ``source`` is one file, a glob, a folder that holds the files, or that folder's parent.

    Raises
    ------
    SourceError
        Nothing there, or nothing with one of the archive's endings.
    """
    fs, path = places.filesystem(source)
    fs.invalidate_cache()
    endings = ", ".join(suffixes)
    remedy = f"archive '{archive}' reads files ending in {endings}: give their folder, or one file"
    try:
        if any(sign in path for sign in "*?["):
            entries: Any = fs.glob(path, detail=True)
            found = [entry for entry in entries.values() if entry["type"] == "file"]
        elif fs.isfile(path):
            found = [fs.info(path)]
        elif fs.isdir(path):
            found = _in_folder(fs, path, suffixes)
        else:
            raise SourceError("there is nothing at the source", where=source, remedy=remedy)
    except (PermissionError, OSError) as error:
        raise SourceError(
            f"the source cannot be listed: {_reason(error)}", where=source, remedy=remedy
        ) from None
    if not found:
        raise SourceError("no files found", where=source, remedy=remedy)
    scheme = "" if places.is_local(source) else source.split("://", 1)[0] + "://"
    files = [
        SourceFile(f"{scheme}{entry['name']}", int(entry["size"]), places.etag(entry))
        for entry in found
    ]
    return tuple(sorted(files, key=lambda file: (file.name, file.uri)))


def _in_folder(fs: Any, path: str, suffixes: tuple[str, ...]) -> list[dict[str, Any]]:
    entries = fs.ls(path, detail=True)
    found = [entry for entry in entries if _belongs(entry, suffixes)]
    if found:
        return found
    below = [entry["name"] for entry in entries if entry["type"] == "directory"]
    return [
        entry
        for folder in sorted(below)
        for entry in fs.ls(folder, detail=True)
        if _belongs(entry, suffixes)
    ]


def _belongs(entry: dict[str, Any], suffixes: tuple[str, ...]) -> bool:
    name = entry["name"].rstrip("/").rsplit("/", 1)[-1]
    return entry["type"] == "file" and not name.startswith(".") and name.lower().endswith(suffixes)


@contextmanager
def reading(file: SourceFile) -> Iterator[str]:
    """A local path of the file's content, which is checked to be the planned one before and after.

    A remote file is fetched to a temporary copy that is removed on leaving.

    Raises
    ------
    SourceError
        The file is gone, or changed since it was planned: nothing that was read may be used.
    """
    check_unchanged(file)
    if places.is_local(file.uri):
        yield places.local_path(file.uri)
        check_unchanged(file)
        return
    fs, path = places.filesystem(file.uri)
    with tempfile.TemporaryDirectory(prefix="gmg-source-") as folder:
        copy = os.path.join(folder, file.name)
        try:
            fs.get_file(path, copy)
        except OSError as error:
            raise SourceError(
                f"a source file cannot be fetched: {_reason(error)}",
                where=file.uri,
                remedy="check the connection and run the same command again: it resumes",
            ) from None
        check_unchanged(file)
        yield copy


def check_unchanged(file: SourceFile) -> None:
    """SourceError where the file is gone or is not the one that was planned."""
    fs, path = places.filesystem(file.uri)
    fs.invalidate_cache()
    try:
        info = fs.info(path)
    except FileNotFoundError:
        raise SourceError(
            "a source file is missing", where=file.uri, remedy="put it back and run again"
        ) from None
    except OSError as error:
        raise SourceError(
            f"a source file cannot be read: {_reason(error)}",
            where=file.uri,
            remedy="check the connection and the permissions, and run the same command again",
        ) from None
    if places.etag(info) != file.etag:
        raise SourceError(
            "a source file changed while it was being converted",
            where=file.uri,
            remedy="wait until it is complete and run the same command again: it resumes",
        )


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".strip(": ")
