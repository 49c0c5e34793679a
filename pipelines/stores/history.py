"""Keep the history of a store in an Icechunk repository, with one commit per conversion.

A conversion writes plain Zarr. `publish` brings an Icechunk repository up to what the ledger of a
complete store records: it copies the objects whose checksums differ from the last commit, and
commits them together. Every commit can be read again. If `publish` is killed, nothing is committed.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipelines.errors import StorageError, StoreError, UsageError
from pipelines.progress import Progress, ignore
from pipelines.storage import places
from pipelines.storage.lease import hold
from pipelines.storage.writable import check_writable
from pipelines.stores.ledger import Ledger, checksum, read_or_none
from pipelines.stores.store import Store, open_store

if TYPE_CHECKING:
    import icechunk


BRANCH = "main"
"""branch of the repository that holds the commits"""
_OBJECTS = "objects"
"""key of a commit's metadata: the checksum of each object, for comparison by the next `publish`"""
_AT_ONCE = 8
"""objects that are copied at the same time"""
_METADATA = "zarr.json"


@dataclass(frozen=True)
class Commit:
    """One commit of a repository: the store after one conversion."""

    snapshot: str
    """id of the commit, for `repository.readonly_session(snapshot_id=...)`"""
    committed_at: str
    """time of the commit, ISO 8601"""
    run: str
    """time of the conversion that wrote this state of the store, ISO 8601"""
    first_time: str
    last_time: str
    frames: int
    """frames of the time axis"""
    objects: int
    """objects of the store"""
    changed: int
    """objects that were written or removed since the previous commit"""
    statistics_fingerprint: str

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a plain dictionary."""
        return asdict(self)


def publish(store: str, repository: str, progress: Progress = ignore) -> tuple[Commit, bool]:
    """Commit a store as it is.

    Parameters
    ----------
    store
        URI of the store.
    repository
        URI of the Icechunk repository, which is created if it does not exist.
    progress
        Called with the number of objects copied and their total.

    Returns
    -------
    commit : Commit
        The newest commit.
    new : bool
        False if the store is still as it was in the last commit, so that nothing was committed.

    Raises
    ------
    StoreError
        The store is incomplete, or an object does not have the recorded checksum. Nothing was
        committed.
    BusyError
        A conversion writes to the store.
    UsageError
        Icechunk is not installed, or the repository cannot be written.
    """
    open_store(store)
    repo = _repository(repository, create=True)
    with hold(store, lambda line: None):
        # A conversion may have ended between the first check and the lease.
        opened = open_store(store)
        now = recorded_objects(opened)
        last = next(_commits(repo), None)
        before: Mapping[str, str] = last.metadata[_OBJECTS] if last else {}
        changed = [name for name, value in now.items() if before.get(name) != value]
        gone = [name for name in before if name not in now]
        if last is not None and not changed and not gone:
            return _commit(last), False
        session = repo.writable_session(BRANCH)
        asyncio.run(_copy(opened, session.store, now, changed, gone, progress))
        summary = Ledger(store).read_plan() or {}
        run = {
            "run": summary["updated_at"],
            "first_time": opened.label(0),
            "last_time": opened.label(len(opened.times) - 1),
            "frames": len(opened.times),
            "changed": len(changed) + len(gone),
            "statistics_fingerprint": opened.fingerprint,
        }
        message = f"{run['run']}: {run['frames']} frames to {run['last_time']}"
        _ask(repository, lambda: session.commit(message, run | {_OBJECTS: now}))
    return _commit(next(_commits(repo))), True


def commits(repository: str) -> list[Commit]:
    """Return the commits, newest first; raise StoreError if there is no repository."""
    return [_commit(commit) for commit in _commits(_repository(repository, create=False))]


def recorded_objects(store: Store) -> dict[str, str]:
    """Return the recorded checksum of every object of a store."""
    ledger = Ledger(store.uri)
    summary = ledger.read_plan() or {}
    configuration = summary["configuration"]
    found = dict(summary["objects"])
    shards = range(-(-summary["frames"] // configuration["shard_frames"]))
    static = [name for name, *_ in configuration.get("static_fields", ())]
    for name in configuration["variables"]:
        found |= {record.object_name: record.checksum for record in ledger.read(name, shards)}
    for name in static:
        found |= {record.object_name: record.checksum for record in ledger.read(name, range(1))}
    return found


async def _copy(
    store: Store,
    target: icechunk.IcechunkStore,
    recorded: Mapping[str, str],
    changed: Sequence[str],
    gone: Sequence[str],
    progress: Progress,
) -> None:
    from zarr.core.buffer import cpu

    async def copy(name: str) -> None:
        uri = places.join(store.uri, *name.split("/"))
        data = await asyncio.to_thread(read_or_none, uri) or b""
        if checksum(data) != recorded[name]:
            raise _not_as_recorded(store.uri, name)
        content = _plain_group(data) if name == _METADATA else data
        await target.set(name, cpu.Buffer.from_bytes(content))

    # Icechunk wants an array before its chunks, and a group before its arrays.
    metadata = sorted(n for n in changed if n.split("/")[-1] == _METADATA)
    rest = [name for name in changed if name not in set(metadata)]
    for name in sorted(metadata, key=lambda name: name.count("/")):
        await copy(name)
    for begin in range(0, len(rest), _AT_ONCE):
        progress(begin, len(rest))
        await asyncio.gather(*map(copy, rest[begin : begin + _AT_ONCE]))
    for name in gone:
        await target.delete(name)
    progress(len(rest), len(rest))


def _plain_group(data: bytes) -> bytes:
    """Return the metadata of a group without the consolidated part: Icechunk has its own."""
    document = json.loads(data)
    document.pop("consolidated_metadata", None)
    return json.dumps(document).encode()


def _not_as_recorded(store: str, name: str) -> StoreError:
    return StoreError(
        "an object of the store is not as recorded, so that nothing was committed",
        where=places.join(store, *name.split("/")),
        remedy=f"python jobs/reprocess.py verify --store {store}",
    )


def _commits(repo: icechunk.Repository) -> Iterator[icechunk.SnapshotInfo]:
    """Yield the commits that `publish` made, newest first."""
    for commit in repo.ancestry(branch=BRANCH):
        if _OBJECTS in commit.metadata:
            yield commit


def _commit(commit: icechunk.SnapshotInfo) -> Commit:
    held: Mapping[str, Any] = commit.metadata
    return Commit(
        snapshot=commit.id,
        committed_at=commit.written_at.isoformat("T", "seconds"),
        run=held["run"],
        first_time=held["first_time"],
        last_time=held["last_time"],
        frames=held["frames"],
        objects=len(held[_OBJECTS]),
        changed=held["changed"],
        statistics_fingerprint=held["statistics_fingerprint"],
    )


def _repository(uri: str, *, create: bool) -> icechunk.Repository:
    try:
        import icechunk
    except ImportError:
        raise UsageError(
            "snapshots need icechunk, which is not installed",
            where="icechunk",
            remedy="pip install 'gmg-platform[icechunk]'",
        ) from None
    if create:
        check_writable(uri, "icechunk")
    # It warns that several commits at a time are not safe on a local disk. The lease of the store
    # allows only one.
    icechunk.set_logs_filter("error")
    # Looking into a local place would create it.
    absent = places.is_local(uri) and not places.exists(uri)
    storage = _storage(uri)
    if absent or not _ask(uri, lambda: icechunk.Repository.exists(storage)):
        if not create:
            raise StoreError(
                "there is no Icechunk repository",
                where=uri,
                remedy=f"python jobs/reprocess.py publish --store STORE --icechunk {uri}",
            )
        if places.names(uri):
            raise UsageError(
                "the folder holds something else than an Icechunk repository",
                where=uri,
                remedy="give an empty or new folder as --icechunk",
            )
        if places.is_local(uri):
            _make_folder(uri)
    return _ask(uri, lambda: icechunk.Repository.open_or_create(storage))


def _make_folder(uri: str) -> None:
    try:
        os.makedirs(places.local_path(uri), exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"the repository cannot be written: {error.strerror}",
            where=uri,
            remedy="give an --icechunk that this user may write to",
        ) from None


def _ask(uri: str, action: Callable[[], Any]) -> Any:
    """Return what `action` returns; turn an error of Icechunk into an error for the user."""
    import icechunk

    try:
        return action()
    except icechunk.IcechunkError as error:
        reason = str(error).strip().splitlines()[0]
        raise StorageError(
            f"the Icechunk repository cannot be used: {reason}",
            where=uri,
            remedy=f"run the same command again; {places.CHECK_ACCESS}",
        ) from None


def _storage(uri: str) -> icechunk.Storage:
    import icechunk

    if places.is_local(uri):
        return icechunk.local_filesystem_storage(places.local_path(uri))
    parts = urlsplit(uri)
    bucket, prefix = parts.netloc, parts.path.strip("/")
    if parts.scheme == "s3":
        endpoint = os.environ.get("AWS_ENDPOINT_URL")
        return icechunk.s3_storage(
            bucket=bucket,
            prefix=prefix,
            region=os.environ.get("AWS_DEFAULT_REGION"),
            endpoint_url=endpoint,
            allow_http=bool(endpoint) and endpoint.startswith("http://"),
            force_path_style=bool(endpoint),
            from_env=True,
        )
    if parts.scheme in ("gs", "gcs"):
        return icechunk.gcs_storage(bucket=bucket, prefix=prefix, from_env=True)
    raise UsageError(
        f"an Icechunk repository cannot be at '{parts.scheme}://'",
        where=uri,
        remedy="give a local path, s3:// or gs://",
    )
