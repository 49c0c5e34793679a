"""Read, write and list files by URI: a local path, `s3://` or `gs://`, opened with fsspec.

Credentials come from the standard environment variables only (`AWS_ENDPOINT_URL`,
`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `GOOGLE_APPLICATION_CREDENTIALS`). A URI that contains
credentials is an error, so that they cannot reach an attribute or a log.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from typing import Any, TypeVar
from urllib.parse import urlsplit

import fsspec
from fsspec.config import conf as fsspec_settings
from fsspec.spec import AbstractFileSystem

from pipelines.errors import PlatformError, StorageError, UsageError, reason
from pipelines.storage.retry import call_with_retry, is_refusal, is_storage_fault

T = TypeVar("T")

_OBJECT_STORAGES = ("s3", "gs", "gcs")
_AT_ONCE = 10
"""requests to one storage that run in parallel; drivers keep as many connections"""

CHECK_ACCESS = (
    "check the bucket's name, AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
    "(gs://: GOOGLE_APPLICATION_CREDENTIALS), and the permissions"
)


def filesystem(uri: str) -> tuple[AbstractFileSystem, str]:
    """Return the fsspec filesystem of `uri` and the path inside it.

    Raises
    ------
    UsageError
        The URI contains credentials, its bucket is missing, or no driver for its scheme is
        installed.
    """
    parts = urlsplit(uri)
    if parts.username or parts.password:
        raise UsageError(
            "a URI must not contain credentials",
            where=f"{parts.scheme}://***@{parts.hostname}{parts.path}",
            remedy="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment instead",
        )
    check_uri(uri)
    if is_local(uri):
        return fsspec.filesystem("file"), local_path(uri)
    if parts.scheme in ("gs", "gcs"):
        # gcsfs prints the traceback of every failed attempt, although it also raises the error. It
        # also asks for the kind of each bucket, which needs one more permission and matters only
        # for zonal buckets.
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    try:
        fs = fsspec.filesystem(parts.scheme, **driver_options(uri))
    except (ValueError, ImportError) as error:
        raise UsageError(
            f"no driver for '{parts.scheme}://'",
            where=uri,
            remedy="pip install 'gmg-platform[gcs]'"
            if parts.scheme in ("gs", "gcs")
            else f"use a local path, s3:// or gs:// ({error})",
        ) from None
    return fs, f"{parts.netloc}{parts.path}".rstrip("/")


def driver_options(uri: str) -> dict[str, Any]:
    """Return the `storage_options` with which fsspec, or a library on top of it, opens `uri`."""
    if not uri.startswith("s3://"):
        return {}
    from pipelines.storage.s3 import BoundedSession

    own = fsspec_settings.get("s3", {}).get("config_kwargs", {})
    return {"config_kwargs": {"http_session_cls": BoundedSession, **own}}


def check_uri(uri: str) -> None:
    """Raise UsageError if `uri` is empty, or is one of an object storage without `//` and a bucket.

    >>> check_uri("s3:/bucket/store")
    Traceback (most recent call last):
    ...
    pipelines.errors.UsageError: the bucket is missing in 's3:/bucket/store'
      to do: give s3://BUCKET/PATH, with two slashes
    """
    if not uri.strip():
        raise UsageError("a URI is empty", remedy="give a local path, s3://... or gs://...")
    scheme, _, rest = uri.partition(":")
    if scheme in _OBJECT_STORAGES and not re.match(r"//[^/]", rest):
        raise UsageError(
            f"the bucket is missing in '{uri}'",
            remedy=f"give {scheme}://BUCKET/PATH, with two slashes",
        )


def is_local(uri: str) -> bool:
    """Return True for a plain path and for `file://`."""
    return "://" not in uri or uri.startswith("file://")


def local_path(uri: str) -> str:
    """Return the absolute path of a local URI."""
    return os.path.abspath(os.path.expanduser(uri.removeprefix("file://")))


def absolute(uri: str) -> str:
    """Return the form of `uri` that records use: absolute, without a trailing slash.

    >>> absolute("s3://bucket/store/")
    's3://bucket/store'
    """
    return local_path(uri) if is_local(uri) else uri.rstrip("/")


def join(uri: str, *parts: str) -> str:
    """Return `uri` extended by further path parts.

    >>> join("s3://bucket/store", "zarr.json")
    's3://bucket/store/zarr.json'
    """
    return "/".join([uri.rstrip("/"), *parts])


def ask(uri: str, what: str, action: Callable[[], T]) -> T:
    """Return the result of `action`, a request to the storage that holds `uri`.

    A request to a remote storage is retried as `pipelines.storage.retry.retrying` allows. Errors
    that only say that an object is missing pass unchanged.

    Parameters
    ----------
    uri:
        The file or folder of the request, for messages.
    what:
        Description of the request for messages, such as "reading".
    action:
        Sends the request; may be called several times.

    Raises
    ------
    UsageError
        The storage denies access, or credentials are missing.
    StorageError
        The storage cannot be reached, or it fails.
    """
    try:
        return action() if is_local(uri) else call_with_retry(f"{what} {uri}", action)
    except (PlatformError, FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise
    except Exception as error:
        if not is_storage_fault(error):
            raise
        if is_local(uri):
            raise _local_fault(uri, what, error) from error
        kind, refused = type(error).__name__, is_refusal(error)
        raise (UsageError if refused else StorageError)(
            f"the storage {'denies access' if refused else 'fails'}: {kind}: {error}",
            where=uri,
            remedy=CHECK_ACCESS if refused else f"try again; {CHECK_ACCESS}",
        ) from None


def _local_fault(uri: str, what: str, error: Exception) -> PlatformError:
    """Turn an error of the local disk into an error for the user.

    `__cause__` keeps the original, which tells whether a retry can help.
    """
    kind, remedy = StorageError, "make room or mend the disk, and run the same command again"
    if isinstance(error, PermissionError):
        kind, remedy = UsageError, "give this user the permission (chmod), and run it again"
    why = getattr(error, "strerror", None) or reason(error)
    return kind(f"{what} failed: {why}", where=uri, remedy=remedy)


def exists(uri: str) -> bool:
    """Return whether an object or folder exists at `uri`, without using cached listings."""
    fs, path = filesystem(uri)

    def look() -> bool:
        fs.invalidate_cache()
        return fs.exists(path)

    return ask(uri, "looking for", look)


def read_bytes(uri: str) -> bytes:
    """Return the bytes of an object; raise FileNotFoundError if it is missing."""
    fs, path = filesystem(uri)
    content = ask(uri, "reading", lambda: fs.cat_file(path, **one_request(fs)))
    return content.encode() if isinstance(content, str) else content


def one_request(fs: AbstractFileSystem) -> dict[str, Any]:
    """Return options for a driver's `cat_file` with which a whole object costs one request.

    If s3fs may read parts in parallel, it sends a request for the size first.
    """
    return {"max_concurrency": 1} if "s3" in fs.protocol else {}


def read_range(uri: str, start: int, end: int | None = None) -> bytes:
    """Return the bytes [start, end) of an object, in one request.

    A negative `start` without `end` means the last bytes.
    """
    fs, path = filesystem(uri)
    content = ask(uri, "reading", lambda: fs.cat_file(path, start=start, end=end))
    content = content.encode() if isinstance(content, str) else content
    # A server that does not support such a range answers with the whole object.
    wanted = -start if start < 0 else len(content) if end is None else end - start
    return content if len(content) <= wanted else content[start:end]


def write_bytes(uri: str, data: bytes | Sequence[bytes], *, durable: bool = True) -> None:
    """Write one object atomically: a reader sees the old bytes or the new ones, never a part.

    An object storage publishes an object when its upload ends. On a local disk the bytes go to a
    temporary file in the same folder, which is then renamed.

    Parameters
    ----------
    uri:
        Where to write.
    data:
        The bytes, or pieces of them that are written one after the other.
    durable:
        On a local disk, wait until the bytes are on the disk, so that they survive a power failure.
    """
    fs, path = filesystem(uri)
    if not is_local(uri):
        whole = data if isinstance(data, bytes) else b"".join(data)
        ask(uri, "writing", lambda: fs.pipe_file(path, whole))
        return
    ask(uri, "writing", lambda: _write_local(path, data, durable))


def create_bytes(uri: str, data: bytes) -> bool:
    """Create an object on an object storage; return False if it already exists.

    A storage that does not support conditional requests overwrites the object and returns True.
    """
    fs, path = filesystem(uri)

    def create() -> bool:
        try:
            fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno == errno.EINVAL and "precondition" in repr(error.__cause__).lower():
                return False  # the only condition of the request is that nothing exists yet
            if error.errno != errno.ENOSYS:
                raise
            fs.pipe_file(path, data)
        return True

    return ask(uri, "writing", create)


def _write_local(path: str, data: bytes | Sequence[bytes], durable: bool) -> None:
    folder = os.path.dirname(path)
    partial = f"{path}.{uuid.uuid4().hex}.partial"
    try:
        os.makedirs(folder, exist_ok=True)
        with open(partial, "wb") as file:
            file.writelines([data] if isinstance(data, bytes) else data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    except (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise UsageError(
            f"nothing can be written here: {error.strerror}",
            where=folder,
            remedy="give another folder to write to",
        ) from None
    finally:
        if os.path.exists(partial):
            os.unlink(partial)


def in_parallel(uri: str, actions: Sequence[Callable[[], T]]) -> list[T]:
    """Return the results of the actions, in their order; run them in parallel for a remote `uri`.

    On a local disk they run one after the other. If actions fail, the error of the first of them is
    raised after all have ended.
    """
    if is_local(uri) or len(actions) < 2:
        return [action() for action in actions]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        # A thread starts with an empty context: copy it, so that retrying() applies there too.
        futures = [pool.submit(copy_context().run, action) for action in actions]
    return [future.result() for future in futures]


def delete(uri: str) -> None:
    """Remove one object; do nothing if it is missing."""
    fs, path = filesystem(uri)

    def remove() -> None:
        fs.invalidate_cache()
        with suppress(FileNotFoundError):
            fs.rm_file(path)

    ask(uri, "removing", remove)


def names(uri: str) -> list[str]:
    """Return the sorted names directly below a folder; an empty list if the folder is missing."""
    fs, path = filesystem(uri)

    def look() -> list[str]:
        fs.invalidate_cache()
        return fs.ls(path, detail=False)

    try:
        entries = ask(uri, "listing", look)
    except FileNotFoundError:
        return []
    found = (entry.rstrip("/").rsplit("/", 1)[-1] for entry in entries)
    return sorted(name for name in found if name and not name.endswith(".partial"))


def objects(uri: str) -> dict[str, dict[str, Any]]:
    """Return the driver's information on every object below a folder, by its path in the folder.

    Empty if the folder is missing. Unfinished local files are left out.
    """
    fs, folder = filesystem(uri)

    def look() -> dict[str, Any]:
        fs.invalidate_cache()
        return dict(fs.find(folder, detail=True))

    try:
        found = ask(uri, "listing", look)
    except FileNotFoundError:
        return {}
    return {
        path[len(folder) :].lstrip("/"): info
        for path, info in sorted(found.items())
        if not path.endswith(".partial")
    }


def etag(info: dict[str, Any]) -> str:
    """Return the version of an object, given its fsspec `info`: its ETag, else its time and size.

    Local files have no ETag. Their modification time in nanoseconds and their size are used
    instead, as web servers do, so that planning never reads a whole archive.
    """
    for key in ("ETag", "etag", "md5Hash", "generation"):
        if info.get(key):
            return str(info[key]).strip('"')
    local = info.get("type") == "file" or info.get("islink")
    if local and "name" in info and os.path.exists(info["name"]):
        stat = os.stat(info["name"])
        return f"{stat.st_mtime_ns:x}-{stat.st_size:x}"
    return f"{info.get('LastModified', info.get('mtime', ''))}-{info.get('size', 0):x}"
