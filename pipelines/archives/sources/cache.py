"""Local copies of what is remote or in a zip: fetched once a node, not once for each shard.

All processes of a node share one folder. A file lock per copy lets readers in together and one
fetcher at a time; the copies that were not used for longest make room for new ones, and a copy
that is being read is never removed. Locks end with their process, so nothing that was killed
blocks anyone, and a folder that nobody uses any more is removed by the next conversion.
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
"""of copies on a node, where nothing else is asked; at most half of what the disk has free"""

Fetch = Callable[[str], None]
"""writes a file's content to a local path"""

_used: dict[str, int] = {}
"""folders that this process uses: the open file whose shared lock says so"""
_active: ContextVar[SourceCache | None] = ContextVar("source_cache", default=None)


@dataclass(frozen=True)
class SourceCache:
    """One conversion's copies; the same on every node but for the copies themselves."""

    limit_bytes: int | None = None
    """of copies on a node; 0: nothing is kept; None: :data:`MAX_BYTES` or half the free disk"""
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    """names the folder"""

    @property
    def folder(self) -> str:
        """The folder on this node."""
        return os.path.join(tempfile.gettempdir(), f"{_prefix()}{self.token}")

    @contextmanager
    def active(self) -> Iterator[None]:
        """:func:`local_copy` keeps its copies here inside the block."""
        before = _active.set(self)
        try:
            yield
        finally:
            _active.reset(before)

    def remove(self) -> None:
        """Take the folder away from this node; who still reads a copy keeps it until it closes."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if (lock := _used.pop(self.folder, None)) is not None:
            os.close(lock)


@contextmanager
def kept_copies(limit_bytes: int | None = None) -> Iterator[SourceCache]:
    """A cache for the block: the one that is active already, or one that ends with the block."""
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
    """A local path of the file's content: the copy that is kept, or one that ends with the block.

    Parameters
    ----------
    name:
        The last part of the path.
    fetch:
        Called where there is no copy yet; what it raises is passed on and nothing is kept.
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
    """The kept copy, locked against removal; None where there is no room for it."""
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
            # Between the two locks another process may fetch it: look again under the second.
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
    """Make room for a copy and count it as there; the copy's own lock is held."""
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
        # What a killed process left of an earlier attempt goes first.
        shutil.rmtree(os.path.join(folder, key), ignore_errors=True)
        os.mkdir(os.path.join(folder, key))
        return True


def _forget(folder: str, key: str) -> bool:
    """Remove a copy unless someone reads or fetches it."""
    with _locked(os.path.join(folder, f"{key}.lock")) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        shutil.rmtree(os.path.join(folder, key), ignore_errors=True)
        os.unlink(os.path.join(folder, f"{key}.size"))
        return True


def _enter(cache: SourceCache) -> str:
    """The cache's folder, which this process uses from now on."""
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
            # A sweep of another process may have removed the folder before the lock was there.
            if os.path.exists(users) and os.path.samestat(os.fstat(lock), os.stat(users)):
                if (before := _used.pop(folder, None)) is not None:
                    os.close(before)
                _used[folder] = lock
                return folder
            os.close(lock)


def _sweep(keep: str) -> None:
    """Remove folders of conversions that were killed: nobody holds a lock on them."""
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
    """A lock file, open; what is locked on it ends with the block."""
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
