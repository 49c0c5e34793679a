"""Read one source file and check that it is still the file that was planned."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.archives.contents import SourceFile
from pipelines.archives.sources import zips
from pipelines.archives.sources.cache import local_copy
from pipelines.errors import SourceError, reason
from pipelines.storage import places
from pipelines.storage.retry import call_with_retry, is_storage_fault


@contextmanager
def reading(file: SourceFile) -> Iterator[str]:
    """Yield a local path of the file's content.

    The file is compared with its planned version before and after the block. A remote file or a
    member of a zip is fetched to a local copy; `pipelines.archives.sources.cache` decides how long
    the copy is kept.

    Raises
    ------
    SourceError
        The file is missing, or it changed since it was planned: discard what was read.
    """
    if places.is_local(file.uri) and zips.place_of(file.uri) is None:
        check_unchanged(file)
        yield places.local_path(file.uri)
        check_unchanged(file)
        return
    call_with_retry(f"looking at {file.uri}", lambda: check_unchanged(file))

    def fetch(path: str) -> None:
        call_with_retry(f"fetching {file.uri}", lambda: _fetch(file, path))

    with local_copy(file, zips.last_part(file.uri), fetch) as path:
        yield path


def check_unchanged(file: SourceFile) -> None:
    """Raise SourceError if the file is missing or its version is not the planned one."""
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
            f"a source file cannot be read: {reason(error)}",
            where=file.uri,
            remedy="check the connection and the permissions, and run the same command again",
        ) from error
    if places.etag(info) != file.etag:
        raise SourceError(
            "a source file changed while it was being converted",
            where=file.uri,
            remedy="wait until it is complete and run the same command again: it resumes",
        )


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
            f"a source file cannot be fetched: {reason(error)}",
            where=file.uri,
            remedy="check the connection and run the same command again: it resumes",
        ) from error
    check_unchanged(file)
