"""One writer at a time: a lease in the store, with owner and heartbeat.

The lease of a dead process on this host (its process number and start time are written down) is
taken over at once; that of another host once its heartbeat is 30 s old. A live one is refused.
"""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from pipelines import uri as places
from pipelines.errors import BusyError, UsageError
from pipelines.ledger import FOLDER

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 30.0

_Print = Callable[[str], None]


@dataclass(frozen=True)
class LeaseRecord:
    """Who writes to a store."""

    token: str
    """drawn anew for each lease"""
    user: str
    host: str
    """host name and boot id: process numbers mean something on this host only"""
    pid: int
    started: str
    """start time of the process, which tells it from a later one of the same number"""
    heartbeat: float
    """seconds since 1970-01-01"""

    @property
    def owner(self) -> str:
        """For messages and records.

        >>> LeaseRecord("", "ada", "node7/5e1b", 41, "", 0.0).owner
        'ada@node7, process 41'
        """
        return f"{self.user}@{self.host.split('/')[0]}, process {self.pid}"


class Lease:
    """A lease that is held; :func:`hold` makes one."""

    def __init__(self, store: str, record: LeaseRecord):
        self.store = store
        self.record = record
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    @property
    def owner(self) -> str:
        """Who holds it."""
        return self.record.owner

    def check(self) -> None:
        """BusyError where another process took the lease over: nothing may be written now."""
        held = _read(self.store)
        if self._lost.is_set() or held is None or held.token != self.record.token:
            raise BusyError(
                "another process took the store over while this one was not heard of",
                where=self.store,
                remedy="wait until it has ended and run the same command again: it resumes",
            )

    def release(self) -> None:
        """Give the lease back."""
        self._stop.set()
        self._thread.join()
        held = _read(self.store)
        if held is not None and held.token == self.record.token:
            places.delete(_place(self.store))

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            try:
                held = _read(self.store)
                if held is None or held.token != self.record.token:
                    self._lost.set()
                    return
                _write(self.store, _refreshed(self.record))
            except OSError:
                # The storage is away for a moment; the next beat tries again, and check() decides.
                continue


@contextmanager
def hold(store: str, say: _Print = print) -> Iterator[Lease]:
    """Hold the store's lease while the block runs.

    Raises
    ------
    BusyError
        A live process holds it.
    UsageError
        The store cannot be written.
    """
    lease = acquire(store, say)
    try:
        yield lease
    finally:
        lease.release()


def acquire(store: str, say: _Print = print) -> Lease:
    """Take the lease, see :func:`hold`."""
    waited_for: LeaseRecord | None = None
    began = time.monotonic()
    while True:
        mine = this_process()
        with _exclusive(store):
            held = _read(store)
            if held is None or _is_dead(held) or _is_stale(held, waited_for, began):
                _write(store, mine)
                break
        if held.host == mine.host or (waited_for and held.heartbeat != waited_for.heartbeat):
            raise _busy(store, held)
        if waited_for is None:
            waited_for, began = held, time.monotonic()
            say(
                f"waiting up to {STALE_SECONDS:.0f} s to see whether {held.owner} still writes to "
                f"{store}"
            )
        time.sleep(1.0)
    if not places.is_local(store):
        # An object store has no exclusive section: the last of two writers is the one who holds.
        time.sleep(0.5)
        held = _read(store)
        if held is None or held.token != mine.token:
            raise _busy(store, held or mine)
    return Lease(store, mine)


def this_process() -> LeaseRecord:
    """A fresh lease in the name of this process."""
    return LeaseRecord(
        token=uuid.uuid4().hex,
        user=_user(),
        host=f"{socket.gethostname()}/{_boot_id()}",
        pid=os.getpid(),
        started=_start_time(os.getpid()) or "",
        heartbeat=time.time(),
    )


def _busy(store: str, held: LeaseRecord) -> BusyError:
    age = max(0.0, time.time() - held.heartbeat)
    return BusyError(
        f"another process writes to this store: {held.owner}, heard of {age:.0f} s ago",
        where=store,
        remedy="wait until it has ended and run the same command again",
    )


def _is_dead(held: LeaseRecord) -> bool:
    here = this_process()
    return held.host == here.host and _start_time(held.pid) != held.started


def _is_stale(held: LeaseRecord, watched: LeaseRecord | None, since: float) -> bool:
    if time.time() - held.heartbeat > STALE_SECONDS:
        return True
    # The clocks of two hosts may differ: a heartbeat that stood still while watched is as old.
    still = watched is not None and watched.heartbeat == held.heartbeat
    return still and time.monotonic() - since > STALE_SECONDS


def _refreshed(record: LeaseRecord) -> LeaseRecord:
    return LeaseRecord(**{**asdict(record), "heartbeat": time.time()})


def _place(store: str) -> str:
    return places.join(store, FOLDER, "lease.json")


def _read(store: str) -> LeaseRecord | None:
    try:
        return LeaseRecord(**json.loads(places.read_bytes(_place(store))))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _write(store: str, record: LeaseRecord) -> None:
    try:
        places.write_bytes(_place(store), json.dumps(asdict(record)).encode())
    except PermissionError as error:
        raise UsageError(
            f"the store cannot be written: {error}",
            where=store,
            remedy="give a --store that this user may write to",
        ) from None


@contextmanager
def _exclusive(store: str) -> Iterator[None]:
    """On a local disk, one process at a time looks at the lease and takes it."""
    if not places.is_local(store):
        yield
        return
    folder = os.path.join(places.local_path(store), FOLDER)
    try:
        os.makedirs(folder, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise UsageError(
            f"the store cannot be written: {error.strerror}",
            where=store,
            remedy="give a --store that this user may write to",
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _boot_id() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""


def _start_time(pid: int) -> str | None:
    """Start of a process in the kernel's ticks; None where there is no such process."""
    stat = Path(f"/proc/{pid}/stat")
    if not Path("/proc/self/stat").exists():
        return _alive_without_proc(pid)
    try:
        fields = stat.read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # A zombie writes nothing any more.
    return None if fields[0] == "Z" else fields[19]


def _alive_without_proc(pid: int) -> str | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""
