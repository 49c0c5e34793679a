"""Local copies of remote files and of zip members: fetched once per node, not once per shard.

All processes of a node share one folder. Each copy has a lock file, which lets in any number of
readers but only one process that fetches. If space runs out, the copies that were unused for the
longest time are removed; a copy that is being read stays. The operating system releases the locks
of a process that ends, so a killed process blocks nobody. The next conversion removes folders that
no process uses any more.

fsspec has a cache of files too, but without locks between processes, without a limit, and without a
check of the version.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from pipelines.archives.contents import SourceFile

MAX_BYTES = 16 * 1024**3
"""limit of the copies on a node if the user sets none; the limit is also half of the free disk"""

Fetch = Callable[[str], None]
"""writes a file's content to a local path"""

_used: dict[str, int] = {}
"""cache folders that this process uses -> the open file whose shared lock protects the folder. The
locks belong to the process as a whole, so this is state of the module"""
_active: ContextVar[SourceCache | None] = ContextVar("source_cache", default=None)


@dataclass(frozen=True)
class SourceCache:
    """The cache of one conversion. It can be sent to every node, where it names a local folder."""

    limit_bytes: int | None = None
    """limit of the copies on a node; 0 keeps no copies; None means MAX_BYTES or half of the free
    disk, whichever is smaller"""
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    """random part of the folder's name"""

    @property
    def folder(self) -> str:
        """The folder on this node."""
        return os.path.join(tempfile.gettempdir(), f"{_prefix()}{self.token}")

    @contextmanager
    def active(self) -> Iterator[None]:
        """Keep the copies of `local_copy` in this cache while the block runs."""
        before = _active.set(self)
        try:
            yield
        finally:
            _active.reset(before)

    def remove(self) -> None:
        """Remove the folder on this node. Processes can finish reading copies that they opened."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if (lock := _used.pop(self.folder, None)) is not None:
            os.close(lock)


@contextmanager
def kept_copies(limit_bytes: int | None = None) -> Iterator[SourceCache]:
    """Provide a cache for the block: the active one, or a new one that is removed after the block.

    Parameters
    ----------
    limit_bytes:
        Limit of a new cache, as in `SourceCache`.
    """
    if (cache := _active.get()) is not None:
        yield cache
        return
    cache = SourceCache(limit_bytes)
    try:
        with cache.active():
            yield cache
    finally:
        cache.remove()


@contextmanager
def local_copy(file: SourceFile, name: str, fetch: Fetch) -> Iterator[str]:
    """Yield a local path of the file's content: a kept copy, or one that is removed afterwards.

    Parameters
    ----------
    file:
        The file to copy.
    name:
        The last part of the path.
    fetch:
        Called if there is no copy yet. Its errors are passed on, and nothing is kept then.
    """
    cache = _active.get()
    if cache is not None and cache.limit_bytes != 0:
        with _kept(cache, file, name, fetch) as path:
            if path is not None:
                yield path
                return
    with tempfile.TemporaryDirectory(prefix="gmg-source-") as folder:
        path = os.path.join(folder, name)
        fetch(path)
        yield path


@contextmanager
def _kept(cache: SourceCache, file: SourceFile, name: str, fetch: Fetch) -> Iterator[str | None]:
    """Yield the kept copy, locked against removal; None if it is too large to be kept."""
    folder = _enter(cache)
    key = hashlib.sha256(f"{file.uri}\n{file.etag}\n{file.size}".encode()).hexdigest()[:32]
    path = os.path.join(folder, key, name)
    with _locked(os.path.join(folder, f"{key}.lock")) as lock:
        while True:
            fcntl.flock(lock, fcntl.LOCK_SH)
            if os.path.exists(path):
                os.utime(lock)
                yield path
                return
            # Another process may fetch the file between the two locks: check again.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.exists(path):
                continue
            if not _reserve(cache, folder, key, file.size):
                break
            partial = f"{os.path.dirname(path)}/.partial"
            try:
                fetch(partial)
                os.rename(partial, path)
            except BaseException:
                shutil.rmtree(os.path.dirname(path), ignore_errors=True)
                raise
    yield None


def _reserve(cache: SourceCache, folder: str, key: str, size: int) -> bool:
    """Reserve room for a copy; return False if it is too large. The copy's own lock is held."""
    with _locked(os.path.join(folder, "room.lock")) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        entries = [name[:-5] for name in os.listdir(folder) if name.endswith(".size")]
        sizes = {entry: _number(os.path.join(folder, f"{entry}.size")) for entry in entries}
        sizes.pop(key, None)
        limit = cache.limit_bytes
        if limit is None:
            limit = min(MAX_BYTES, (shutil.disk_usage(folder).free + sum(sizes.values())) // 2)
        for entry in sorted(sizes, key=lambda entry: _last_use(folder, entry)):
            if sum(sizes.values()) + size <= limit:
                break
            if _forget(folder, entry):
                del sizes[entry]
        if sum(sizes.values()) + size > limit:
            return False
        with open(os.path.join(folder, f"{key}.size"), "w") as file:
            file.write(str(size))
        # A killed process may have left an unfinished copy here.
        shutil.rmtree(os.path.join(folder, key), ignore_errors=True)
        os.mkdir(os.path.join(folder, key))
        return True


def _forget(folder: str, key: str) -> bool:
    """Remove a copy; return False if a process reads or fetches it."""
    with _locked(os.path.join(folder, f"{key}.lock")) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        shutil.rmtree(os.path.join(folder, key), ignore_errors=True)
        os.unlink(os.path.join(folder, f"{key}.size"))
        return True


def _enter(cache: SourceCache) -> str:
    """Register this process as a user of the cache's folder, and return the folder."""
    folder = cache.folder
    if folder in _used and os.path.isdir(folder):
        return folder
    _sweep(keep=folder)
    users = os.path.join(folder, "users.lock")
    while True:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(users, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(lock, fcntl.LOCK_SH)
            # Another process may have swept the folder away before this one had the lock.
            if os.path.exists(users) and os.path.samestat(os.fstat(lock), os.stat(users)):
                if (before := _used.pop(folder, None)) is not None:
                    os.close(before)
                _used[folder] = lock
                return folder
            os.close(lock)


def _sweep(keep: str) -> None:
    """Remove the folders of killed conversions: no process holds a lock on them."""
    root = tempfile.gettempdir()
    for name in os.listdir(root):
        folder = os.path.join(root, name)
        users = os.path.join(folder, "users.lock")
        if not name.startswith(_prefix()) or folder == keep or not os.path.exists(users):
            continue
        with contextlib.suppress(OSError), _locked(users) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(path: str) -> Iterator[int]:
    """Open a lock file. Locks that the block takes on it are released after the block."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield lock
    finally:
        os.close(lock)


def _last_use(folder: str, key: str) -> float:
    try:
        return os.stat(os.path.join(folder, f"{key}.lock")).st_mtime
    except FileNotFoundError:
        return 0.0


def _number(path: str) -> int:
    with open(path) as file:
        return int(file.read() or 0)


def _prefix() -> str:
    return f"gmg-sources-{os.getuid()}-"
