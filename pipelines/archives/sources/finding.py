"""Find the files of an archive: one file, a glob, a folder, or a tree of folders.

Symbolic links are followed, and a link to nothing is an error: no file is left out silently.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

from fsspec.spec import AbstractFileSystem

from pipelines.archives.contents import SourceFile
from pipelines.archives.sources import zips
from pipelines.errors import NoFilesError, SourceError, reason
from pipelines.storage import places
from pipelines.storage.retry import is_storage_fault

Entry = dict[str, Any]
"""what fsspec tells of a file or folder: its name, size, type and version"""

_FILES = ("file", "broken")
"""types of entries that count as files; "broken" is a link to nothing, which is reported by name"""
_GLOB_CHARACTERS = "*?["
_NUMBERS = re.compile(r"(\d+)", re.ASCII)


def find_files(
    source: str, suffixes: tuple[str, ...], archive: str, levels: int = 1
) -> tuple[SourceFile, ...]:
    """Return the archive's files at `source`, sorted by name.

    The members of a zip count as files of their own, except those that also lie unpacked beside
    the zip with the same name and size.

    Parameters
    ----------
    source:
        One file, a glob, a folder that holds the files, or a folder at most `levels` above such
        folders. The first level that has any of the archive's files is used.
    suffixes:
        Endings of the archive's files, lower case.
    archive:
        Name of the archive, for messages.

    Raises
    ------
    NoFilesError
        No file at the source has one of the endings.
    SourceError
        The source does not exist or cannot be listed, or a zip is damaged.
    """
    fs, path = places.filesystem(source)
    fs.invalidate_cache()
    endings = ", ".join(suffixes)
    remedy = f"archive '{archive}' reads files ending in {endings}: give their folder, or one file"
    try:
        # A path that exists is taken as it stands: the name of a folder may hold such characters.
        if _is_glob(path) and not fs.exists(path):
            matching: Any = fs.glob(path, detail=True)
            found = [entry for entry in map(_resolved, matching.values()) if _is_file(entry)]
        elif fs.isfile(path):
            found = [_resolved(fs.info(path))]
        elif fs.isdir(path):
            found = _in_folder(fs, path, (*suffixes, zips.SUFFIX), levels)
        else:
            raise SourceError("the source does not exist", where=source, remedy=remedy)
    except Exception as error:
        if not is_storage_fault(error):
            raise
        raise _cannot_list(source, error, remedy) from None
    if not found:
        names = _names_in(fs, path)
        raise NoFilesError("no files found", where=source, remedy=remedy, names=names)
    _check_readable(found)
    scheme = _scheme(source)
    files = [
        SourceFile(f"{scheme}{entry['name']}", int(entry["size"]), places.etag(entry))
        for entry in found
    ]
    files = _with_members(files, suffixes)
    if not files:
        raise SourceError("no files found in the zip", where=source, remedy=remedy)
    return tuple(sorted(files, key=lambda file: (file.name, file.uri)))


def find_tree(source: str, suffixes: tuple[str, ...], archive: str) -> tuple[SourceFile, ...]:
    """Return the archive's files at and below `source`, which is a folder or one file.

    The name of each file is its path inside the folder. Numbers in names sort as numbers:
    `sample_2` comes before `sample_10`.

    Raises
    ------
    SourceError
        The source does not exist or cannot be listed, or no file has one of the endings.
    """
    fs, path = places.filesystem(source)
    fs.invalidate_cache()
    remedy = f"archive '{archive}' reads {', '.join(suffixes)}: give the folder that holds them"
    try:
        folder = fs.isdir(path)
        entries = list(_walk(fs, path)) if folder else [_resolved(fs.info(path))]
    except FileNotFoundError:
        raise SourceError("the source does not exist", where=source, remedy=remedy) from None
    except Exception as error:
        if not is_storage_fault(error):
            raise
        raise _cannot_list(source, error, remedy) from None
    scheme = _scheme(source)
    root = path.rstrip("/") + "/" if folder else path.rsplit("/", 1)[0] + "/"
    found = {entry["name"]: entry for entry in entries if _belongs(entry, suffixes)}
    _check_readable(list(found.values()))
    files = [
        SourceFile(
            f"{scheme}{name}", int(entry["size"]), places.etag(entry), name.removeprefix(root)
        )
        for name, entry in found.items()
    ]
    if not files:
        raise SourceError("no files found", where=source, remedy=remedy)
    return tuple(sorted(files, key=lambda file: _by_number(file.name)))


def _is_glob(path: str) -> bool:
    return any(character in path for character in _GLOB_CHARACTERS)


def _is_file(entry: Entry) -> bool:
    return entry["type"] in _FILES


def _scheme(source: str) -> str:
    """Return what comes before the paths that the driver gives, such as "s3://"."""
    return "" if places.is_local(source) else source.split("://", 1)[0] + "://"


def _cannot_list(source: str, error: Exception, remedy: str) -> SourceError:
    """Return the error for the user when the storage fails while a source is listed."""
    if not places.is_local(source):
        remedy = places.CHECK_ACCESS
    elif isinstance(error, PermissionError):
        remedy = "give this user the permission to list and read it (chmod -R +rX)"
    return SourceError(f"the source cannot be listed: {reason(error)}", where=source, remedy=remedy)


def _with_members(files: list[SourceFile], suffixes: tuple[str, ...]) -> list[SourceFile]:
    """Return the files with every zip replaced by its members."""
    if zips.SUFFIX in suffixes:
        return files
    packed = [file for file in files if file.name.lower().endswith(zips.SUFFIX)]
    plain = [file for file in files if file not in packed]
    unpacked = {(file.name, file.size) for file in plain}
    members = [member for file in packed for member in zips.members(file.uri, suffixes)]
    return plain + [m for m in members if (zips.last_part(m.uri), m.size) not in unpacked]


def _in_folder(
    fs: AbstractFileSystem, path: str, suffixes: tuple[str, ...], levels: int
) -> list[Entry]:
    """Return the files of the first level of folders that has any with one of the endings."""
    folders = [path]
    for _ in range(levels + 1):
        entries = _list(fs, folders)
        found = [entry for entry in entries if _belongs(entry, suffixes)]
        if found:
            return found
        folders = sorted(entry["name"] for entry in entries if entry["type"] == "directory")
    return []


def _names_in(fs: AbstractFileSystem, path: str) -> tuple[str, ...]:
    """Return the names of the files directly in a folder; () if the path is not a folder."""
    if _is_glob(path) or not fs.isdir(path):
        return ()
    return tuple(entry["name"] for entry in _list(fs, [path]) if entry["type"] == "file")


def _belongs(entry: Entry, suffixes: tuple[str, ...]) -> bool:
    """Return whether an entry is a file with one of the endings, and not hidden."""
    name = entry["name"].rstrip("/").rsplit("/", 1)[-1]
    return _is_file(entry) and not name.startswith(".") and name.lower().endswith(suffixes)


def _by_number(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts the numbers in names as numbers."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in _NUMBERS.split(name)]


def _list(fs: AbstractFileSystem, folders: Sequence[str]) -> list[Entry]:
    """Return the entries directly in the folders, with local links resolved.

    A folder that several links lead to is listed once, so that circles of links end.
    """
    seen: set[str] = set()
    found = []
    for folder in folders:
        for entry in fs.ls(folder, detail=True):
            entry = _resolved(entry)
            if entry["type"] == "directory" and "ino" in entry:
                place = os.path.realpath(entry["name"])
                if place in seen or f"{os.path.realpath(folder)}/".startswith(f"{place}/"):
                    continue
                seen.add(place)
            found.append(entry)
    return found


def _walk(fs: AbstractFileSystem, root: str) -> Iterator[Entry]:
    """Yield every file at and below a folder, and every link to nothing; links are followed."""
    if "file" not in fs.protocol:
        found: Any = fs.find(root, detail=True)
        yield from found.values()
        return
    folders = [root]
    seen = {os.path.realpath(root)}
    while folders:
        below = []
        for entry in _list(fs, folders):
            if entry["type"] != "directory":
                yield entry
            elif (place := os.path.realpath(entry["name"])) not in seen:
                seen.add(place)
                below.append(entry["name"])
        folders = below


def _resolved(entry: Entry) -> Entry:
    """Return an entry; the type of a local link is that of its target, or "broken"."""
    if not entry.get("islink"):
        return entry
    path = entry["name"]
    kind = "directory" if os.path.isdir(path) else "file" if os.path.isfile(path) else "broken"
    return entry | {"type": kind}


def _check_readable(files: Sequence[Entry]) -> None:
    """Raise SourceError for a link to nothing, and for a local file without read permission."""
    for entry in files:
        path = entry["name"]
        if entry["type"] == "broken":
            raise SourceError(
                f"a source file is a link to nothing: {os.readlink(path)}",
                where=path,
                remedy="put back what it points to, or remove the link",
            )
        if "ino" in entry and not os.access(path, os.R_OK):
            raise SourceError(
                "a source file cannot be read: permission denied",
                where=path,
                remedy=f"chmod +r '{path}', or run as a user who may read it",
            )
