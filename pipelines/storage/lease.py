"""One writer at a time: a lease in a store or in a run, with owner and heartbeat.

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
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pipelines.errors import BusyError, PlatformError, UsageError
from pipelines.storage import places
from pipelines.storage.retry import Retry, retrying

LEDGER_FOLDER = ".ledger"
"""folder of a store or a run that holds the lease and the ledger, hidden from Zarr readers"""
HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 30.0
SETTLING_SECONDS = 0.5
"""after which two who took a lease on an object store at the same time both see who has it"""

_released: set[str] = set()
"""tokens that this process gave back: one that still stands could not be removed"""

_Print = Callable[[str], None]
_What = Literal["store", "run", "forecasts"]


@dataclass(frozen=True)
class LeaseRecord:
    """Who writes to a store or a run."""

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


@dataclass(frozen=True)
class Permit:
    """A lease as its owner's workers know it: they ask before they write. Can be pickled."""

    uri: str
    record: LeaseRecord
    what: _What
    sure_at: float
    """when it is sure, on the clock of its host that only goes forward"""

    def confirm(self) -> None:
        """Wait until the lease is sure; returns at once on a local disk, and later on.

        An object store has no exclusive section: the last of two writers is the one who holds, and
        until then neither may write.

        Raises
        ------
        BusyError
            Another process holds it.
        """
        if places.is_local(self.uri):
            return
        here = self.record.host == this_process().host
        time.sleep(max(0.0, self.sure_at - time.monotonic()) if here else SETTLING_SECONDS)
        held = _read(self.uri)
        if held is None or held.token != self.record.token:
            raise _busy(self.uri, held or self.record, self.what)


class Lease:
    """A lease that is held; :func:`hold` makes one."""

    def __init__(self, uri: str, record: LeaseRecord, what: _What = "store"):
        self.uri = uri
        self.what: _What = what
        self.record = record
        self.permit = Permit(uri, record, what, time.monotonic() + SETTLING_SECONDS)
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
        check_held(self.uri, "" if self._lost.is_set() else self.record.token, self.what)

    def release(self) -> None:
        """Give the lease back; if the storage is away it stays, for the next to take over."""
        self._stop.set()
        self._thread.join()
        _released.add(self.record.token)
        with suppress(OSError, PlatformError), retrying(Retry(0.0)):
            held = _read(self.uri)
            if held is not None and held.token == self.record.token:
                places.delete(_place(self.uri))

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            try:
                held = _read(self.uri)
                if held is None or held.token != self.record.token:
                    self._lost.set()
                    return
                _write(self.uri, _refreshed(self.record))
            except (OSError, PlatformError):
                # The storage is away for a moment; the next beat tries again, and check() decides.
                continue


def check_held(uri: str, token: str, what: _What) -> None:
    """Check a lease from a process that works for its owner, such as a worker on another node.

    Parameters
    ----------
    token:
        ``Lease.record.token`` of the owner.

    Raises
    ------
    BusyError
        Another process took the lease over: nothing may be written now.
    """
    held = _read(uri)
    if held is None or held.token != token:
        raise BusyError(
            f"another process took the {what} over while this one was not heard of",
            where=uri,
            remedy="wait until it has ended and run the same command again: it resumes",
        )


@contextmanager
def hold(
    uri: str, say: _Print = print, what: _What = "store", *, confirmed: bool = True
) -> Iterator[Lease]:
    """Hold the lease of the store or run at ``uri`` while the block runs.

    ``what`` is the word for it in messages, and the option that names it. Where it need not be
    ``confirmed``, the block calls ``permit.confirm`` before it writes anything.

    Raises
    ------
    BusyError
        A live process holds it.
    UsageError
        It cannot be written.
    """
    lease = _take(uri, say, what)
    try:
        if confirmed:
            lease.permit.confirm()
        yield lease
    finally:
        lease.release()


def acquire(uri: str, say: _Print = print, what: _What = "store") -> Lease:
    """Take the lease, see :func:`hold`."""
    lease = _take(uri, say, what)
    try:
        lease.permit.confirm()
    except BaseException:
        lease.release()
        raise
    return lease


def _take(uri: str, say: _Print, what: _What) -> Lease:
    waited_for: LeaseRecord | None = None
    began = time.monotonic()
    while True:
        mine = this_process()
        with _exclusive(uri, what):
            held = _read(uri)
            if held is None or _is_dead(held) or _is_stale(held, waited_for, began):
                if _set_down(uri, mine, instead_of=held):
                    break
                continue
        if held.host == mine.host or (waited_for and held.heartbeat != waited_for.heartbeat):
            raise _busy(uri, held, what)
        if waited_for is None:
            waited_for, began = held, time.monotonic()
            say(
                f"waiting up to {STALE_SECONDS:.0f} s to see whether {held.owner} still writes to "
                f"{uri}"
            )
        time.sleep(1.0)
    return Lease(uri, mine, what)


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


def _busy(uri: str, held: LeaseRecord, what: _What) -> BusyError:
    age = max(0.0, time.time() - held.heartbeat)
    return BusyError(
        f"another process writes to this {what}: {held.owner}, heard of {age:.0f} s ago",
        where=uri,
        remedy="wait until it has ended and run the same command again",
    )


def _is_dead(held: LeaseRecord) -> bool:
    here = this_process()
    ended = held.token in _released or _start_time(held.pid) != held.started
    return held.host == here.host and ended


def _is_stale(held: LeaseRecord, watched: LeaseRecord | None, since: float) -> bool:
    if time.time() - held.heartbeat > STALE_SECONDS:
        return True
    # The clocks of two hosts may differ: a heartbeat that stood still while watched is as old.
    still = watched is not None and watched.heartbeat == held.heartbeat
    return still and time.monotonic() - since > STALE_SECONDS


def _refreshed(record: LeaseRecord) -> LeaseRecord:
    return LeaseRecord(**{**asdict(record), "heartbeat": time.time()})


def _place(uri: str) -> str:
    return places.join(uri, LEDGER_FOLDER, "lease.json")


def _read(uri: str) -> LeaseRecord | None:
    try:
        return LeaseRecord(**json.loads(places.read_bytes(_place(uri))))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _write(uri: str, record: LeaseRecord) -> None:
    places.write_bytes(_place(uri), _content(record))


def _content(record: LeaseRecord) -> bytes:
    return json.dumps(asdict(record)).encode()


def _set_down(uri: str, mine: LeaseRecord, instead_of: LeaseRecord | None) -> bool:
    """Write a lease; False where another process was first, as far as the storage can tell."""
    if instead_of is not None or places.is_local(uri):
        _write(uri, mine)
        return True
    if places.create_bytes(_place(uri), _content(mine)):
        return True
    if (now := _read(uri)) is None:
        _write(uri, mine)  # over one that cannot be read
        return True
    return now.token == mine.token  # written by an attempt whose answer was lost


@contextmanager
def _exclusive(uri: str, what: _What) -> Iterator[None]:
    """On a local disk, one process at a time looks at the lease and takes it."""
    if not places.is_local(uri):
        yield
        return
    folder = os.path.join(places.local_path(uri), LEDGER_FOLDER)
    try:
        os.makedirs(folder, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise UsageError(
            f"the {what} cannot be written: {error.strerror}",
            where=uri,
            remedy=f"give a --{what} that this user may write to",
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
