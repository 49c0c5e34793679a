"""Read zip files as they are published: each member is a source file, and nothing is unpacked.

The URI of a member is `archive.zip!folder/member.nc`. Its version is the checksum that the zip
stores for it. A zip on object storage is read in ranges: first the list of members, then each
member that is needed.
"""

from __future__ import annotations

import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from pipelines.archives.contents import SourceFile
from pipelines.errors import PlatformError, SourceError, reason
from pipelines.storage import places
from pipelines.storage.retry import is_storage_fault

SUFFIX = ".zip"
_MEMBER = re.compile(r"(.+\.zip)!(.+)", re.IGNORECASE | re.DOTALL)
_BLOCK_BYTES = 8 * 1024**2
_ENCRYPTED = 0x1
"""flag of an encrypted member"""


def place_of(uri: str) -> tuple[str, str] | None:
    """Return the URI of a member's zip and the member's path in it; None for other files.

    >>> place_of("s3://bucket/t2m.zip!a/2010.nc")
    ('s3://bucket/t2m.zip', 'a/2010.nc')
    """
    found = _MEMBER.fullmatch(uri)
    return (found[1], found[2]) if found else None


def last_part(uri: str) -> str:
    """Return the name of a file or of a zip's member without its folders.

    >>> last_part("s3://bucket/t2m.zip!a/2010.nc")
    '2010.nc'
    """
    return re.split("[/!]", uri)[-1]


def members(uri: str, suffixes: tuple[str, ...]) -> list[SourceFile]:
    """Return the members of a zip with one of the endings, in the zip's own order.

    Raises
    ------
    SourceError
        The file is not a zip, or it is damaged, or a member is encrypted.
    """
    with _opened(uri) as content:
        infos = [info for info in content.infolist() if _belongs(info, suffixes)]
    return [_source(uri, info) for info in infos]


def check_member(file: SourceFile) -> None:
    """Raise SourceError if the member is missing or changed since it was planned."""
    uri, member = _place(file)
    with _opened(uri) as content:
        try:
            info = content.getinfo(member)
        except KeyError:
            raise SourceError(
                f"a zip no longer holds '{member}'",
                where=uri,
                remedy="put the file back and run again",
            ) from None
    if _source(uri, info) != file:
        raise SourceError(
            f"'{member}' changed in its zip while it was being converted",
            where=uri,
            remedy="wait until it is complete and run the same command again: it resumes",
        )


def extract(file: SourceFile, path: str) -> None:
    """Write a member's content to a local path and verify its checksum.

    Raises
    ------
    SourceError
        The member is damaged, or its compression is one that Python cannot read.
    """
    uri, member = _place(file)
    with _opened(uri) as content:
        try:
            with content.open(member) as packed, open(path, "wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, _BLOCK_BYTES)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, KeyError) as error:
            raise _damaged(f"'{member}' cannot be unpacked: {error}", uri) from None


@contextmanager
def _opened(uri: str) -> Iterator[zipfile.ZipFile]:
    fs, path = places.filesystem(uri)
    fs.invalidate_cache()
    try:
        with (
            cast("BinaryIO", fs.open(path, "rb", block_size=_BLOCK_BYTES)) as raw,
            zipfile.ZipFile(raw) as content,
        ):
            yield content
    except PlatformError:
        raise
    except zipfile.BadZipFile as error:
        raise _damaged(f"it is truncated or not a zip: {error}", uri) from None
    except FileNotFoundError:
        raise SourceError(
            "a source file is missing", where=uri, remedy="put it back and run again"
        ) from None
    except Exception as error:
        if not is_storage_fault(error):
            raise
        raise SourceError(
            f"a zip cannot be read: {reason(error)}",
            where=uri,
            remedy="check the connection and the permissions, and run the same command again",
        ) from error


def _belongs(info: zipfile.ZipInfo, suffixes: tuple[str, ...]) -> bool:
    parts = info.filename.split("/")
    hidden = parts[-1].startswith(".") or parts[0] == "__MACOSX"
    return not info.is_dir() and not hidden and info.filename.lower().endswith(suffixes)


def _source(uri: str, info: zipfile.ZipInfo) -> SourceFile:
    if info.flag_bits & _ENCRYPTED:
        raise SourceError(
            f"'{info.filename}' is encrypted",
            where=uri,
            remedy="unpack it with its password and give the folder as the source",
        )
    return SourceFile(
        f"{uri}!{info.filename}",
        info.file_size,
        f"crc32-{info.CRC:08x}",
        inside=f"{uri.rsplit('/', 1)[-1]}!{info.filename}",
    )


def _place(file: SourceFile) -> tuple[str, str]:
    place = place_of(file.uri)
    if place is None:
        raise ValueError(f"{file.uri} is not a member of a zip")
    return place


def _damaged(what: str, uri: str) -> SourceError:
    return SourceError(
        f"a zip is damaged: {what}",
        where=uri,
        remedy="fetch it again, or leave it out of the source",
    )
