"""A store against its ledger, and its sources against what was read; what mends either."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.archives import load_archive
from pipelines.archives.contents import SourceFile
from pipelines.archives.series.static_variables import find_static
from pipelines.audit.suspicious_frames import Anomaly, find_suspicious_frames
from pipelines.conversion.resume import object_sizes
from pipelines.conversion.shard_task import checksum
from pipelines.errors import StoreError
from pipelines.inputs.kept_climatology import FOLDER as CLIMATOLOGY_FOLDER
from pipelines.progress import Progress, ignore
from pipelines.storage import places
from pipelines.stores.ledger import FOLDER, Ledger
from pipelines.stores.moments import MomentsTable
from pipelines.stores.store import open_store


@dataclass(frozen=True)
class Problem:
    """One thing that is not as recorded."""

    kind: str
    """of the store: missing, altered, extra or unrecorded; of a source: missing, changed or new"""
    place: str
    """object in the store, or source file"""
    frames: str = ""
    """which frames of which variable it holds"""


@dataclass(frozen=True)
class Verification:
    """What :func:`verify` found."""

    store: str
    objects: int
    bytes: int
    problems: tuple[Problem, ...]
    source_problems: tuple[Problem, ...]
    """sources that are not as they were when the store was made"""
    remedy: str
    """the command that mends it; empty where nothing is wrong"""
    anomalies: tuple[Anomaly, ...] = ()
    """frames that are as recorded and look wrong all the same; no problem of the store"""

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return not self.problems and not self.source_problems

    def as_dict(self) -> dict[str, Any]:
        """A plain dictionary."""
        return asdict(self) | {"ok": self.ok}


def verify(store: str, source: str | None = None, progress: Progress = ignore) -> Verification:
    """Read every object of the store and compare it with the ledger.

    Parameters
    ----------
    source:
        Also compare the archive's files with the versions that were read.

    Raises
    ------
    StoreError
        Nothing was ever converted at ``store``.
    """
    ledger = Ledger(store)
    summary = ledger.read_plan()
    if summary is None:
        raise StoreError(
            "there is no store with a ledger",
            where=store,
            remedy="make it with  python jobs/reprocess.py convert --archive ARCHIVE --source "
            f"SOURCE --store {shlex.quote(store)}",
        )
    names: list[str] = summary["configuration"]["variables"]
    shard_frames: int = summary["configuration"]["shard_frames"]
    shards = -(-summary["frames"] // shard_frames)
    expected = dict(summary.get("objects", {}))
    labels: dict[str, str] = {}
    problems: list[Problem] = []
    anomalies: list[Anomaly] = []
    frame_label = _frame_label(store)

    def frames_of(name: str, shard: int) -> str:
        first, end = shard * shard_frames, min((shard + 1) * shard_frames, summary["frames"])
        return f"{name}, frames {first} to {end - 1}"

    for name in names:
        table, recorded = None, set[int]()
        for record in ledger.read(name, range(shards)):
            expected[record.object_name] = record.checksum
            labels[record.object_name] = frames_of(name, record.shard)
            recorded.add(record.shard)
            if table is None:
                table = MomentsTable(record.moments.shape[1])
            table.write(record.start, record.moments)
        for shard in sorted(set(range(shards)) - recorded):
            place = f"{FOLDER}/{name}/{shard:06d}.json"
            problems.append(Problem("unrecorded", place, frames_of(name, shard)))
        if table is not None and len(recorded) == shards:
            anomalies += find_suspicious_frames(name, table, summary["frames"], frame_label)
    for name, _ in summary["configuration"].get("static_fields", ()):
        label = f"static field {name}"
        for record in ledger.read(name, range(1)):
            expected[record.object_name] = record.checksum
            labels[record.object_name] = label
        if label not in labels.values():
            problems.append(Problem("unrecorded", f"{FOLDER}/{name}/{0:06d}.json", label))
    present = object_sizes(store, "")
    total_bytes = 0
    for done, (name, sum_recorded) in enumerate(sorted(expected.items())):
        progress(done, len(expected))
        data = _read_or_none(places.join(store, *name.split("/")))
        if data is None:
            problems.append(Problem("missing", name, labels.get(name, "")))
            continue
        total_bytes += len(data)
        if checksum(data) != sum_recorded:
            problems.append(Problem("altered", name, labels.get(name, "")))
    progress(len(expected), len(expected))
    unrecorded = {p.frames for p in problems if p.kind == "unrecorded"}
    problems.extend(
        Problem("extra", name)
        for name in sorted(present)
        if name not in expected and not name.startswith((f"{FOLDER}/", f"{CLIMATOLOGY_FOLDER}/"))
    )
    if summary.get("state") != "complete" and not unrecorded:
        problems.append(Problem("missing", "zarr.json", "the conversion did not end"))
    sources = tuple(_source_problems(summary, source)) if source else ()
    return Verification(
        store=places.absolute(store),
        objects=len(expected),
        bytes=total_bytes,
        problems=tuple(problems),
        source_problems=sources,
        remedy=_remedy(store, summary, source, problems, sources),
        anomalies=tuple(anomalies),
    )


def _frame_label(store: str) -> Callable[[int], str]:
    """What a frame is called in warnings: its time, or its number where the store does not open."""
    try:
        return open_store(store).label
    except Exception:
        # Whatever keeps the store from opening is among the problems.
        return lambda frame: f"frame {frame}"


def _source_problems(summary: dict[str, Any], source: str) -> Iterable[Problem]:
    archive = load_archive(summary["archive"])
    found = {file.name: file for file in archive.find(source)}
    recorded = {file.name: file for file in (SourceFile(**s) for s in summary["sources"])}
    yield from _gone_or_changed(recorded, found)
    yield from (Problem("new", found[name].uri) for name in sorted(found.keys() - recorded.keys()))
    static = summary.get("static", {})
    if static.get("source"):
        # Other files may lie there, of which none of the fields was read.
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
    # Nobody knows what else a user keeps there, so that a repair leaves it alone.
    by_hand = f"remove by hand what is no part of the store ({', '.join(strays)})" if strays else ""
    if len(strays) == len(problems) and not sources:
        return by_hand
    return (
        (f"{by_hand}, and run  " if by_hand else "")
        + f"python jobs/reprocess.py convert --archive {summary['archive']} "
        f"--source {shlex.quote(source or summary['source'])} --store {shlex.quote(store)}"
        + (" --repair" if len(problems) > len(strays) else "")
    )


def _read_or_none(uri: str) -> bytes | None:
    try:
        return places.read_bytes(uri)
    except (FileNotFoundError, IsADirectoryError):
        return None
