"""Places: every path of the platform is a URI (local, ``s3://``, ``gs://``) opened by fsspec.

Credentials come from the standard environment only (``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``,
``AWS_SECRET_ACCESS_KEY``, ``GOOGLE_APPLICATION_CREDENTIALS``); a URI that carries one is refused,
so that none can reach an attribute or a log.
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

from pipelines.errors import PlatformError, StorageError, UsageError
from pipelines.storage.retry import call_with_retry, is_refusal, is_storage_fault

T = TypeVar("T")

_OBJECT_STORAGES = ("s3", "gs", "gcs")
_AT_ONCE = 10
"""requests to one storage that wait at the same time; drivers keep as many connections"""

CHECK_ACCESS = (
    "check the bucket's name, AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
    "(gs://: GOOGLE_APPLICATION_CREDENTIALS), and the permissions"
)


def filesystem(uri: str) -> tuple[AbstractFileSystem, str]:
    """The filesystem that holds ``uri`` and the path inside it.

    Raises
    ------
    UsageError
        The URI carries credentials, names no bucket, or no driver for its scheme is installed.
    """
    parts = urlsplit(uri)
    if parts.username or parts.password:
        raise UsageError(
            "a URI must not carry credentials",
            where=f"{parts.scheme}://***@{parts.hostname}{parts.path}",
            remedy="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment instead",
        )
    check_uri(uri)
    if is_local(uri):
        return fsspec.filesystem("file"), local_path(uri)
    if parts.scheme in ("gs", "gcs"):
        # It prints the traceback of every attempt that fails, beside raising the error; and it asks
        # for the kind of each bucket, which needs a permission more and matters to zonal ones only.
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
    """Options for the fsspec driver of ``uri`` (``storage_options``), also for other libraries."""
    if not uri.startswith("s3://"):
        return {}
    from pipelines.storage.s3 import BoundedSession

    own = fsspec_settings.get("s3", {}).get("config_kwargs", {})
    return {"config_kwargs": {"http_session_cls": BoundedSession, **own}}


def check_uri(uri: str) -> None:
    """UsageError where ``uri`` is empty, or an object storage without ``//`` and a bucket.

    >>> check_uri("s3:/bucket/store")
    Traceback (most recent call last):
    ...
    pipelines.errors.UsageError: 's3:/bucket/store' names no bucket
      to do: give s3://BUCKET/PATH, with two slashes
    """
    if not uri.strip():
        raise UsageError("a place is empty", remedy="give a local path, s3://... or gs://...")
    scheme, _, rest = uri.partition(":")
    if scheme in _OBJECT_STORAGES and not re.match(r"//[^/]", rest):
        raise UsageError(
            f"'{uri}' names no bucket", remedy=f"give {scheme}://BUCKET/PATH, with two slashes"
        )


def is_local(uri: str) -> bool:
    """True for a plain path and for ``file://``."""
    return "://" not in uri or uri.startswith("file://")


def local_path(uri: str) -> str:
    """The absolute path of a local URI."""
    return os.path.abspath(os.path.expanduser(uri.removeprefix("file://")))


def absolute(uri: str) -> str:
    """``uri`` in the one form that is written into records: absolute, without a trailing slash.

    >>> absolute("s3://bucket/store/")
    's3://bucket/store'
    """
    return local_path(uri) if is_local(uri) else uri.rstrip("/")


def join(uri: str, *parts: str) -> str:
    """``uri`` with further path parts.

    >>> join("s3://bucket/store", "zarr.json")
    's3://bucket/store/zarr.json'
    """
    return "/".join([uri.rstrip("/"), *parts])


def ask(uri: str, what: str, action: Callable[[], T]) -> T:
    """What ``action`` returns, which asks the storage that holds ``uri`` for something.

    A remote storage that fails is asked again as :func:`pipelines.storage.retry.retrying` allows;
    then its error names the place and what to check. An absent object stays one.

    Raises
    ------
    UsageError
        The storage refuses these credentials, or there are none.
    StorageError
        It cannot be reached, or fails.
    """
    try:
        return action() if is_local(uri) else call_with_retry(f"{what} {uri}", action)
    except (PlatformError, FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise
    except Exception as error:
        if not is_storage_fault(error):
            raise
        if is_local(uri):
            raise _here(uri, what, error) from error
        kind, refused = type(error).__name__, is_refusal(error)
        raise (UsageError if refused else StorageError)(
            f"the storage {'refuses access' if refused else 'fails'}: {kind}: {error}",
            where=uri,
            remedy=CHECK_ACCESS if refused else f"try again; {CHECK_ACCESS}",
        ) from None


def _here(uri: str, what: str, error: Exception) -> PlatformError:
    """What a fault of the local disk is to the user; its cause says whether it may pass."""
    kind, remedy = StorageError, "make room or mend the disk, and run the same command again"
    if isinstance(error, PermissionError):
        kind, remedy = UsageError, "give this user the permission (chmod), and run it again"
    reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
    return kind(f"{what} failed: {reason}", where=uri, remedy=remedy)


def exists(uri: str) -> bool:
    """Whether an object or folder stands at ``uri``; asks the storage, never a cached listing."""
    fs, path = filesystem(uri)

    def look() -> bool:
        fs.invalidate_cache()
        return fs.exists(path)

    return ask(uri, "looking for", look)


def read_bytes(uri: str) -> bytes:
    """The object's bytes; ``FileNotFoundError`` where it is absent."""
    fs, path = filesystem(uri)
    content = ask(uri, "reading", lambda: fs.cat_file(path, **one_request(fs)))
    return content.encode() if isinstance(content, str) else content


def one_request(fs: AbstractFileSystem) -> dict[str, Any]:
    """Options of a driver's ``cat`` with which a whole object costs one request.

    Where s3fs may read parts at the same time, it asks for the size first.
    """
    return {"max_concurrency": 1} if "s3" in fs.protocol else {}


def read_range(uri: str, start: int, end: int | None = None) -> bytes:
    """Bytes [start, end) of an object in one request; a negative start alone: its last bytes."""
    fs, path = filesystem(uri)
    content = ask(uri, "reading", lambda: fs.cat_file(path, start=start, end=end))
    content = content.encode() if isinstance(content, str) else content
    # A server that knows no ranges of this kind answers with the whole object.
    wanted = -start if start < 0 else len(content) if end is None else end - start
    return content if len(content) <= wanted else content[start:end]


def write_bytes(uri: str, data: bytes | Sequence[bytes], *, durable: bool = True) -> None:
    """Write one object so that a reader sees the old bytes or the new ones, never a part.

    ``data`` may come in pieces, which are written one after the other.

    Object stores publish an object when its upload ends; on a local disk the bytes go to a
    temporary name beside it and are renamed. ``durable`` waits there until the disk has them, which
    matters if the machine itself loses power.
    """
    fs, path = filesystem(uri)
    if not is_local(uri):
        whole = data if isinstance(data, bytes) else b"".join(data)
        ask(uri, "writing", lambda: fs.pipe_file(path, whole))
        return
    ask(uri, "writing", lambda: _write_here(path, data, durable))


def create_bytes(uri: str, data: bytes) -> bool:
    """Write one object on an object storage where none stands; False: there is one.

    A storage that knows no conditional requests writes over it and gives True.
    """
    fs, path = filesystem(uri)

    def create() -> bool:
        try:
            fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno == errno.EINVAL and "precondition" in repr(error.__cause__).lower():
                return False  # which condition failed, not every storage says
            if error.errno != errno.ENOSYS:
                raise
            fs.pipe_file(path, data)
        return True

    return ask(uri, "writing", create)


def _write_here(path: str, data: bytes | Sequence[bytes], durable: bool) -> None:
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
            remedy="give another place to write to",
        ) from None
    finally:
        if os.path.exists(partial):
            os.unlink(partial)


def in_parallel(uri: str, actions: Sequence[Callable[[], T]]) -> list[T]:
    """What the actions return, in their order; they wait for a remote ``uri`` all together.

    The first error is raised when all have ended. On a local disk they run one after the other.
    """
    if is_local(uri) or len(actions) < 2:
        return [action() for action in actions]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        # A thread starts without the patience of the block that it works for.
        futures = [pool.submit(copy_context().run, action) for action in actions]
    return [future.result() for future in futures]


def delete(uri: str) -> None:
    """Remove one object; nothing happens where it is absent."""
    fs, path = filesystem(uri)

    def remove() -> None:
        fs.invalidate_cache()
        with suppress(FileNotFoundError):
            fs.rm_file(path)

    ask(uri, "removing", remove)


def names(uri: str) -> list[str]:
    """Sorted names directly below a folder; empty where the folder is absent."""
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
    """What the driver tells of every object below a folder, by its name there.

    Empty where the folder is absent; unfinished uploads are left out.
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
    """A version of an object from its fsspec ``info``: the store's ETag, else time and size.

    Local files have no ETag: modification time in nanoseconds and size stand for it, as web servers
    do it, so that planning never reads a whole archive.
    """
    for key in ("ETag", "etag", "md5Hash", "generation"):
        if info.get(key):
            return str(info[key]).strip('"')
    local = info.get("type") == "file" or info.get("islink")
    if local and "name" in info and os.path.exists(info["name"]):
        stat = os.stat(info["name"])
        return f"{stat.st_mtime_ns:x}-{stat.st_size:x}"
    return f"{info.get('LastModified', info.get('mtime', ''))}-{info.get('size', 0):x}"
