"""One writer at a time: a lease in a store or in a run, with an owner and a heartbeat.

A lease records the process number and the start time of its owner. If the owner ran on this host
and is dead, the lease is taken over at once. If it ran on another host, the lease is taken over
once its heartbeat is 30 s old. While the owner lives, a second writer gets a BusyError.
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
"""time between two updates of the heartbeat"""
STALE_SECONDS = 30.0
"""age of the heartbeat at which another host's lease is taken over"""
SETTLING_SECONDS = 0.5
"""time after which two processes that took a lease at the same time see which of them has it"""

_released: set[str] = set()
"""tokens of leases that this process released. If such a lease is still there, the storage was away
when it was to be removed, and this process may take it over"""

_Print = Callable[[str], None]
_What = Literal["store", "run", "forecasts"]


@dataclass(frozen=True)
class LeaseRecord:
    """The process that writes to a store or a run."""

    token: str
    """a random identifier of the lease"""
    user: str
    host: str
    """host name and boot id, because process numbers are unique only until a host boots"""
    pid: int
    started: str
    """start time of the process, which differs from that of a later process of the same number"""
    heartbeat: float
    """time of the last heartbeat, seconds since 1970-01-01"""

    @property
    def owner(self) -> str:
        """The owner as it stands in messages and records.

        >>> LeaseRecord("", "ada", "node7/5e1b", 41, "", 0.0).owner
        'ada@node7, process 41'
        """
        return f"{self.user}@{self.host.split('/')[0]}, process {self.pid}"


@dataclass(frozen=True)
class Permit:
    """What the owner's workers need to check the lease before they write. It can be pickled."""

    uri: str
    record: LeaseRecord
    what: _What
    sure_at: float
    """time by the owner's monotonic clock after which no other process can have the lease"""

    def confirm(self) -> None:
        """Wait until it is certain that the owner holds the lease.

        On a local disk it is certain at once. An object storage has no exclusive section: if two
        processes take the lease at the same time, the last one has it, and until both can see that,
        neither may write.

        Raises
        ------
        BusyError
            Another process holds the lease.
        """
        if places.is_local(self.uri):
            return
        here = self.record.host == this_process().host
        time.sleep(max(0.0, self.sure_at - time.monotonic()) if here else SETTLING_SECONDS)
        held = _read(self.uri)
        if held is None or held.token != self.record.token:
            raise _busy(self.uri, held or self.record, self.what)


class Lease:
    """A lease that this process holds. A thread updates its heartbeat. `hold` creates one."""

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
        """The owner as it stands in messages and records."""
        return self.record.owner

    def check(self) -> None:
        """Raise BusyError if another process took the lease over: stop writing then."""
        check_held(self.uri, "" if self._lost.is_set() else self.record.token, self.what)

    def release(self) -> None:
        """Release the lease. If the storage is away, the lease stays until it is taken over."""
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
                # The storage is away. The next beat retries, and check() decides whether to go on.
                continue


def check_held(uri: str, token: str, what: _What) -> None:
    """Check a lease in any process that works for its owner, such as a worker on another node.

    Parameters
    ----------
    uri:
        The store or run.
    token:
        `Lease.record.token` of the owner.
    what:
        The word for it in messages.

    Raises
    ------
    BusyError
        Another process took the lease over: stop writing then.
    """
    held = _read(uri)
    if held is None or held.token != token:
        raise BusyError(
            f"another process took the {what} over while this one sent no heartbeat",
            where=uri,
            remedy="wait until it has ended and run the same command again: it resumes",
        )


@contextmanager
def hold(
    uri: str, say: _Print = print, what: _What = "store", *, confirmed: bool = True
) -> Iterator[Lease]:
    """Hold the lease of the store or run at `uri` while the block runs.

    Parameters
    ----------
    uri:
        The store or run.
    say:
        Called with a line if another host's heartbeat has to be watched first.
    what:
        The word for it in messages, which is also the name of its option.
    confirmed:
        Wait until it is certain that this process has the lease. If False, the block must call
        `permit.confirm` before it writes anything.

    Raises
    ------
    BusyError
        A live process holds the lease.
    UsageError
        The store or run cannot be written.
    """
    lease = _take(uri, say, what)
    try:
        if confirmed:
            lease.permit.confirm()
        yield lease
    finally:
        lease.release()


def acquire(uri: str, say: _Print = print, what: _What = "store") -> Lease:
    """Take the lease until its `release` is called; parameters and errors are those of `hold`."""
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
    """Return a new lease record with this process as the owner."""
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
        f"another process writes to this {what}: {held.owner}, last heartbeat {age:.0f} s ago",
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
    # The clocks of two hosts may differ, so a heartbeat that did not change while it was watched
    # counts as old as well.
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
    """Write a lease; return False if the storage shows that another process was faster."""
    if instead_of is not None or places.is_local(uri):
        _write(uri, mine)
        return True
    if places.create_bytes(_place(uri), _content(mine)):
        return True
    if (now := _read(uri)) is None:
        _write(uri, mine)  # replaces a lease that cannot be read
        return True
    return now.token == mine.token  # an earlier attempt wrote it, and its answer was lost


@contextmanager
def _exclusive(uri: str, what: _What) -> Iterator[None]:
    """On a local disk, let only one process at a time look at the lease and take it."""
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
    """Return the start of a process in the kernel's ticks, or None if it does not run."""
    stat = Path(f"/proc/{pid}/stat")
    if not Path("/proc/self/stat").exists():
        return _alive_without_proc(pid)
    try:
        fields = stat.read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # A zombie (state Z) cannot write any more, so it counts as ended.
    return None if fields[0] == "Z" else fields[19]


def _alive_without_proc(pid: int) -> str | None:
    """Return "" for a running process and None otherwise, on systems without /proc."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""
