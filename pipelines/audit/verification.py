"""Compare a store with its ledger, and its sources with what was read."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from pipelines.archives import load_archive, suggesting_other_archives
from pipelines.archives.contents import SourceFile
from pipelines.archives.series.static_variables import find_static
from pipelines.audit.suspicious_frames import SuspiciousFrames, find_suspicious_frames
from pipelines.errors import StoreError
from pipelines.inputs.climatology import FOLDER as CLIMATOLOGY_FOLDER
from pipelines.progress import Progress, ignore
from pipelines.storage import places
from pipelines.storage.lease import LEDGER_FOLDER
from pipelines.stores.ledger import Ledger, checksum, object_sizes, read_or_none
from pipelines.stores.moments import MomentsTable
from pipelines.stores.store import open_store


@dataclass(frozen=True)
class Problem:
    """One object or source file that is not as recorded."""

    kind: str
    """in the store: missing, altered, extra or unrecorded; of a source: missing, changed or new"""
    place: str
    """object in the store, or source file"""
    frames: str = ""
    """variable and frames in the object; empty if there are none"""


@dataclass(frozen=True)
class Verification:
    """What `verify` found."""

    store: str
    """URI of the store"""
    objects: int
    """objects that the ledger records"""
    bytes: int
    """bytes of those that are in the store"""
    problems: tuple[Problem, ...]
    """problems of the store"""
    source_problems: tuple[Problem, ...]
    """sources that changed since the store was made"""
    remedy: str
    """the command that repairs the store; empty without problems"""
    suspicious: tuple[SuspiciousFrames, ...] = ()
    """frames that are as recorded and look wrong; not problems of the store"""

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems and not self.source_problems

    def as_dict(self) -> dict[str, Any]:
        """Return a plain dictionary, for JSON."""
        record = asdict(self)
        # Scripts read the name of the first version.
        record["anomalies"] = record.pop("suspicious")
        return record | {"ok": self.ok}


@dataclass
class RecordedObjects:
    """What the ledger says of a store's objects."""

    checksums: dict[str, str]
    """object -> checksum of its bytes"""
    frames: dict[str, str] = field(default_factory=dict)
    """object -> its variable and frames, if it is a shard"""
    problems: list[Problem] = field(default_factory=list)
    """shards without a record"""
    suspicious: list[SuspiciousFrames] = field(default_factory=list)
    """frames whose recorded moments look wrong"""

    @property
    def unrecorded(self) -> bool:
        """Whether a shard has no record."""
        return bool(self.problems)


def verify(store: str, source: str | None = None, progress: Progress = ignore) -> Verification:
    """Read every object of the store and compare it with the ledger.

    Parameters
    ----------
    source:
        Place of the archive, to compare its files with the versions that were read; None: do not.

    Raises
    ------
    StoreError
        Nothing was ever converted at `store`.
    """
    ledger = Ledger(store)
    summary = _summary(ledger, store)
    recorded = recorded_objects(ledger, summary, _frame_label(store))
    compared, total_bytes = compare_objects(store, recorded, progress)
    problems = [*recorded.problems, *compared]
    if summary.get("state") != "complete" and not recorded.unrecorded:
        problems.append(Problem("missing", "zarr.json", "the conversion did not end"))
    sources = check_sources(summary, source) if source else ()
    return Verification(
        store=places.absolute(store),
        objects=len(recorded.checksums),
        bytes=total_bytes,
        problems=tuple(problems),
        source_problems=sources,
        remedy=_remedy(store, summary, source, problems, sources),
        suspicious=tuple(recorded.suspicious),
    )


def recorded_objects(
    ledger: Ledger, summary: dict[str, Any], label: Callable[[int], str]
) -> RecordedObjects:
    """Return the objects that the ledger records, and the shards that it should record.

    Parameters
    ----------
    summary:
        The ledger's record of the plan.
    label:
        Names a frame: its time, for example.
    """
    recorded = RecordedObjects(dict(summary.get("objects", {})))
    for name in summary["configuration"]["variables"]:
        _add_variable(recorded, ledger, summary, name, label)
    for name, _ in summary["configuration"].get("static_fields", ()):
        frames, found = f"static field {name}", False
        for record in ledger.read(name, range(1)):
            recorded.checksums[record.object_name] = record.checksum
            recorded.frames[record.object_name] = frames
            found = True
        if not found:
            recorded.problems.append(Problem("unrecorded", _record_place(name, 0), frames))
    return recorded


def _add_variable(
    recorded: RecordedObjects,
    ledger: Ledger,
    summary: dict[str, Any],
    name: str,
    label: Callable[[int], str],
) -> None:
    total, shard_frames = summary["frames"], summary["configuration"]["shard_frames"]
    shards = -(-total // shard_frames)

    def frames_of(shard: int) -> str:
        first, end = shard * shard_frames, min((shard + 1) * shard_frames, total)
        return f"{name}, frames {first} to {end - 1}"

    table, found = None, set[int]()
    for record in ledger.read(name, range(shards)):
        recorded.checksums[record.object_name] = record.checksum
        recorded.frames[record.object_name] = frames_of(record.shard)
        found.add(record.shard)
        if table is None:
            table = MomentsTable(record.moments.shape[1])
        table.write(record.start, record.moments)
    for shard in sorted(set(range(shards)) - found):
        recorded.problems.append(
            Problem("unrecorded", _record_place(name, shard), frames_of(shard))
        )
    # Without the moments of every frame nothing can be said of what is usual.
    if table is not None and len(found) == shards:
        recorded.suspicious += find_suspicious_frames(name, table, total, label)


def _record_place(name: str, shard: int) -> str:
    return f"{LEDGER_FOLDER}/{name}/{shard:06d}.json"


def compare_objects(
    store: str, recorded: RecordedObjects, progress: Progress = ignore
) -> tuple[list[Problem], int]:
    """Read every recorded object, and list the store.

    Returns
    -------
    problems:
        Objects that are missing, altered, or in the store without a record.
    bytes:
        Bytes of the recorded objects that are in the store.
    """
    present = object_sizes(store, "")
    problems: list[Problem] = []
    total_bytes = 0
    for done, (name, expected) in enumerate(sorted(recorded.checksums.items())):
        progress(done, len(recorded.checksums))
        data = read_or_none(places.join(store, *name.split("/")))
        if data is None:
            problems.append(Problem("missing", name, recorded.frames.get(name, "")))
            continue
        total_bytes += len(data)
        if checksum(data) != expected:
            problems.append(Problem("altered", name, recorded.frames.get(name, "")))
    progress(len(recorded.checksums), len(recorded.checksums))
    own = (f"{LEDGER_FOLDER}/", f"{CLIMATOLOGY_FOLDER}/")
    problems += (
        Problem("extra", name)
        for name in sorted(present)
        if name not in recorded.checksums and not name.startswith(own)
    )
    return problems, total_bytes


def check_sources(summary: dict[str, Any], source: str) -> tuple[Problem, ...]:
    """Compare the files of an archive with the versions that were read."""
    return tuple(_source_problems(summary, source))


def _summary(ledger: Ledger, store: str) -> dict[str, Any]:
    summary = ledger.read_plan()
    if summary is None:
        raise StoreError(
            "no store with a ledger is there",
            where=store,
            remedy="make it with  python jobs/reprocess.py convert --archive ARCHIVE --source "
            f"SOURCE --store {shlex.quote(store)}",
        )
    return summary


def _frame_label(store: str) -> Callable[[int], str]:
    """Return what names a frame: its time, or its number if the store cannot be opened."""
    try:
        return open_store(store).label
    except Exception:
        # What keeps the store from being opened is among the problems.
        return lambda frame: f"frame {frame}"


def _source_problems(summary: dict[str, Any], source: str) -> Iterator[Problem]:
    archive = load_archive(summary["archive"])
    with suggesting_other_archives():
        found = {file.name: file for file in archive.find(source)}
    recorded = {file.name: file for file in (SourceFile(**s) for s in summary["sources"])}
    yield from _gone_or_changed(recorded, found)
    yield from (Problem("new", found[name].uri) for name in sorted(found.keys() - recorded.keys()))
    static = summary.get("static", {})
    if static.get("source"):
        # Other files in that folder were never read, so that new ones do not matter.
        found = {file.name: file for file in find_static(static["source"])}
        recorded = {file.name: file for file in (SourceFile(**s) for s in static["files"])}
        yield from _gone_or_changed(recorded, found)


def _gone_or_changed(
    recorded: dict[str, SourceFile], found: dict[str, SourceFile]
) -> Iterable[Problem]:
    for name, file in recorded.items():
        if name not in found:
            yield Problem("missing", file.uri)
        elif (found[name].size, found[name].etag) != (file.size, file.etag):
            yield Problem("changed", found[name].uri)


def _remedy(
    store: str,
    summary: dict[str, Any],
    source: str | None,
    problems: list[Problem],
    sources: tuple[Problem, ...],
) -> str:
    shards = tuple(f"{name}/c/" for name in summary["configuration"]["variables"])
    strays = [p.place for p in problems if p.kind == "extra" and not p.place.startswith(shards)]
    # A repair does not delete these: they may be files that the user keeps there.
    by_hand = f"remove by hand what is no part of the store ({', '.join(strays)})" if strays else ""
    if len(strays) == len(problems) and not sources:
        return by_hand
    return (
        (f"{by_hand}, and run  " if by_hand else "")
        + f"python jobs/reprocess.py convert --archive {summary['archive']} "
        f"--source {shlex.quote(source or summary['source'])} --store {shlex.quote(store)}"
        + (" --repair" if len(problems) > len(strays) else "")
    )
