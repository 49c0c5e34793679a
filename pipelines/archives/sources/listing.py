"""What lies in the folders of a source: links are followed, and none is left out in silence."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from fsspec.spec import AbstractFileSystem

from pipelines.errors import SourceError

Entry = dict[str, Any]
"""what fsspec says of a file or folder: its name, size, type and version"""


def entries(fs: AbstractFileSystem, folders: Sequence[str]) -> list[Entry]:
    """What lies directly in the folders; local links are what they point to.

    A folder that is reached twice by links counts once, so that circles end. A link that points to
    nothing has the type "broken".
    """
    seen: set[str] = set()
    found = []
    for folder in folders:
        for entry in fs.ls(folder, detail=True):
            entry = resolved(entry)
            if entry["type"] == "directory" and "ino" in entry:
                place = os.path.realpath(entry["name"])
                if place in seen or f"{os.path.realpath(folder)}/".startswith(f"{place}/"):
                    continue
                seen.add(place)
            found.append(entry)
    return found


def tree(fs: AbstractFileSystem, root: str) -> Iterator[Entry]:
    """Every file at and below a folder, and every link to nothing; links are followed."""
    if "file" not in fs.protocol:
        found: Any = fs.find(root, detail=True)
        yield from found.values()
        return
    folders = [root]
    seen = {os.path.realpath(root)}
    while folders:
        below = []
        for entry in entries(fs, folders):
            if entry["type"] != "directory":
                yield entry
            elif (place := os.path.realpath(entry["name"])) not in seen:
                seen.add(place)
                below.append(entry["name"])
        folders = below


def resolved(entry: Entry) -> Entry:
    """An entry of a local link with the type of what it points to; any other as it is."""
    if not entry.get("islink"):
        return entry
    path = entry["name"]
    kind = "directory" if os.path.isdir(path) else "file" if os.path.isfile(path) else "broken"
    return entry | {"type": kind}


def check_usable(files: Sequence[Entry]) -> None:
    """SourceError for a link to nothing and for a local file that this user may not read."""
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
