"""The files of an archive: found by URI, fetched where they are remote, watched for changes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipelines import archives
from pipelines.archives.contents import SourceFile
from pipelines.archives.sources import listing, zips
from pipelines.archives.sources.cache import local_copy
from pipelines.errors import SourceError
from pipelines.storage import places
from pipelines.storage.retry import call_with_retry, is_storage_fault

_FILES = ("file", "broken")
"""types of what counts as a file of the archive; a link to nothing is refused by name"""


def find_files(
    source: str, suffixes: tuple[str, ...], archive: str, levels: int = 1
) -> tuple[SourceFile, ...]:
    """The archive's files at ``source``, in the order of their names.

    ``source`` is one file, a glob, a folder that holds the files, or a folder at most ``levels``
    above: the first level that has any counts. The members of a zip that it means are files of
    their own, but for those that lie beside it with the same name and size.

    Raises
    ------
    SourceError
        Nothing there, nothing with one of the archive's endings, or a damaged zip.
    """
    fs, path = places.filesystem(source)
    fs.invalidate_cache()
    endings = ", ".join(suffixes)
    remedy = f"archive '{archive}' reads files ending in {endings}: give their folder, or one file"
    try:
        # A folder's own name may hold a sign that stands for others in a glob.
        if any(sign in path for sign in "*?[") and not fs.exists(path):
            matching: Any = fs.glob(path, detail=True)
            found = [e for e in map(listing.resolved, matching.values()) if e["type"] in _FILES]
        elif fs.isfile(path):
            found = [listing.resolved(fs.info(path))]
        elif fs.isdir(path):
            found = _in_folder(fs, path, (*suffixes, zips.SUFFIX), levels)
        else:
            raise SourceError("there is nothing at the source", where=source, remedy=remedy)
    except Exception as error:
        if not is_storage_fault(error):
            raise
        raise unlisted(source, error, remedy) from None
    if not found:
        here = _others_here(fs, path)
        raise SourceError("no files found", where=source, remedy=remedy + here)
    listing.check_usable(found)
    scheme = "" if places.is_local(source) else source.split("://", 1)[0] + "://"
    files = [
        SourceFile(f"{scheme}{entry['name']}", int(entry["size"]), places.etag(entry))
        for entry in found
    ]
    files = _with_members(files, suffixes)
    if not files:
        raise SourceError("no files found in the zip", where=source, remedy=remedy)
    return tuple(sorted(files, key=lambda file: (file.name, file.uri)))


def unlisted(source: str, error: Exception, remedy: str) -> SourceError:
    """What a storage fault on listing a source is to the user."""
    if not places.is_local(source):
        remedy = places.CHECK_ACCESS
    elif isinstance(error, PermissionError):
        remedy = "give this user the permission to list and read it (chmod -R +rX)"
    return SourceError(
        f"the source cannot be listed: {_reason(error)}", where=source, remedy=remedy
    )


def _with_members(files: list[SourceFile], suffixes: tuple[str, ...]) -> list[SourceFile]:
    """The files with the members of every zip in its place."""
    if zips.SUFFIX in suffixes:
        return files
    packed = [file for file in files if file.name.lower().endswith(zips.SUFFIX)]
    plain = [file for file in files if file not in packed]
    unpacked = {(file.name, file.size) for file in plain}
    members = [member for file in packed for member in zips.members(file.uri, suffixes)]
    return plain + [m for m in members if (_last_part(m.uri), m.size) not in unpacked]


def _last_part(uri: str) -> str:
    return re.split("[/!]", uri)[-1]


def _in_folder(fs: Any, path: str, suffixes: tuple[str, ...], levels: int) -> list[dict[str, Any]]:
    folders = [path]
    for _ in range(levels + 1):
        entries = listing.entries(fs, folders)
        found = [entry for entry in entries if _belongs(entry, suffixes)]
        if found:
            return found
        folders = sorted(entry["name"] for entry in entries if entry["type"] == "directory")
    return []


def _others_here(fs: Any, path: str) -> str:
    """What a folder without the archive's files holds instead, and which archives read that."""
    if any(sign in path for sign in "*?[") or not fs.isdir(path):
        return ""
    names = [e["name"].lower() for e in listing.entries(fs, [path]) if e["type"] == "file"]
    readers = archives.archives_that_read(names)
    if not readers:
        return ""
    return f"; what is in the folder may be for --archive {' or '.join(readers)}"


def _belongs(entry: dict[str, Any], suffixes: tuple[str, ...]) -> bool:
    name = entry["name"].rstrip("/").rsplit("/", 1)[-1]
    return entry["type"] in _FILES and not name.startswith(".") and name.lower().endswith(suffixes)


@contextmanager
def reading(file: SourceFile) -> Iterator[str]:
    """A local path of the file's content, which is checked to be the planned one before and after.

    A remote file and a member of a zip are fetched to a copy, which the active cache of
    :mod:`pipelines.archives.sources.cache` keeps and nobody else.

    Raises
    ------
    SourceError
        The file is gone, or changed since it was planned: nothing that was read may be used.
    """
    if places.is_local(file.uri) and zips.place_of(file.uri) is None:
        check_unchanged(file)
        yield places.local_path(file.uri)
        check_unchanged(file)
        return
    call_with_retry(f"looking at {file.uri}", lambda: check_unchanged(file))

    def fetch(path: str) -> None:
        call_with_retry(f"fetching {file.uri}", lambda: _fetch(file, path))

    with local_copy(file, _last_part(file.uri), fetch) as path:
        yield path


def _fetch(file: SourceFile, path: str) -> None:
    """Write the content of a remote file or a zip's member to a local path."""
    if zips.place_of(file.uri) is not None:
        zips.extract(file, path)
        check_unchanged(file)
        return
    fs, remote = places.filesystem(file.uri)
    try:
        fs.get_file(remote, path)
    except Exception as error:
        if not is_storage_fault(error):
            raise
        raise SourceError(
            f"a source file cannot be fetched: {_reason(error)}",
            where=file.uri,
            remedy="check the connection and run the same command again: it resumes",
        ) from error
    check_unchanged(file)


def check_unchanged(file: SourceFile) -> None:
    """SourceError where the file is gone or is not the one that was planned."""
    if zips.place_of(file.uri) is not None:
        zips.check_member(file)
        return
    fs, path = places.filesystem(file.uri)
    fs.invalidate_cache()
    try:
        info = fs.info(path)
    except FileNotFoundError:
        raise SourceError(
            "a source file is missing", where=file.uri, remedy="put it back and run again"
        ) from None
    except Exception as error:
        if not is_storage_fault(error):
            raise
        raise SourceError(
            f"a source file cannot be read: {_reason(error)}",
            where=file.uri,
            remedy="check the connection and the permissions, and run the same command again",
        ) from error
    if places.etag(info) != file.etag:
        raise SourceError(
            "a source file changed while it was being converted",
            where=file.uri,
            remedy="wait until it is complete and run the same command again: it resumes",
        )


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".strip(": ")
