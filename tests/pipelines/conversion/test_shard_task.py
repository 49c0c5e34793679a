"""Shards of a worker: when they may be written, and how often a source file is opened."""

from __future__ import annotations

import dataclasses
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pytest

from pipelines.conversion import shard_task
from pipelines.conversion.convert import plan_conversion
from pipelines.conversion.options import ConversionOptions, ConversionRequest
from pipelines.conversion.plan import Plan
from pipelines.conversion.shard_task import Destination, convert_shards
from pipelines.errors import BusyError
from pipelines.storage import lease, places
from pipelines.stores.ledger import ShardRecord
from tests.support.archives.small_archives import write_days

LIMIT = 120.0


@pytest.fixture
def remote() -> Iterator[str]:
    """Return the URI of a store that is not on the local disk."""
    store = f"memory://{uuid.uuid4().hex}/s"
    yield store
    fsspec.filesystem("memory").store.clear()


def planned(folder: Path, store: str, *days: int) -> Plan:
    source = write_days(folder / "a", *days)
    options = ConversionOptions(chunk_frames=4, shard_frames=8)
    return plan_conversion(ConversionRequest("weatherbench", str(source), store, options))


def destination(plan: Plan, store: str, permit: Any = None) -> Destination:
    return Destination(store, "weatherbench", "ada", plan.index.options, permit=permit)


def shards_of(store: str) -> list[str]:
    return places.names(f"{store}/t2m/c")


def test_no_shard_is_written_if_another_process_took_the_lease(tmp_path: Path, remote: str):
    plan = planned(tmp_path, remote, 1)
    mine, other = lease.this_process(), lease.this_process()
    content = lease.json.dumps(dataclasses.asdict(other)).encode()
    places.write_bytes(f"{remote}/.ledger/lease.json", content)
    permit = lease.Permit(remote, mine, "store", time.monotonic())
    outcomes = list(convert_shards(plan.tasks, destination(plan, remote, permit)))
    assert [type(outcome) for outcome in outcomes] == [BusyError] * 3
    assert shards_of(remote) == []
    assert places.names(f"{remote}/.ledger") == ["lease.json"]


def test_shards_are_decoded_before_the_lease_is_sure_but_written_after(
    tmp_path: Path, remote: str, monkeypatch: pytest.MonkeyPatch
):
    plan = planned(tmp_path, remote, 1)
    decoded, checksum = threading.Event(), shard_task.checksum
    too_early: list[str] = []

    def last_step_of_making_a_shard(*pieces: bytes) -> str:
        decoded.set()
        return checksum(*pieces)

    class Sure:
        def confirm(self) -> None:
            assert decoded.wait(LIMIT)
            too_early.extend(shards_of(remote))

    monkeypatch.setattr(shard_task, "checksum", last_step_of_making_a_shard)
    outcomes = list(convert_shards(plan.tasks, destination(plan, remote, Sure())))
    assert all(isinstance(outcome, ShardRecord) for outcome in outcomes)
    assert too_early == []
    assert shards_of(remote) == ["0", "1", "2"]


@pytest.mark.parametrize(("share", "most"), [(1.5, 1), (2.5, 2)])
def test_the_bytes_of_simultaneous_uploads_are_bounded(
    tmp_path: Path,
    remote: str,
    monkeypatch: pytest.MonkeyPatch,
    share: float,
    most: int,
):
    """`share` is the limit of bytes, as a multiple of the smallest shard."""
    plan = planned(tmp_path, remote, 1, 2)
    assert len(plan.tasks) > 3
    local = planned(tmp_path / "sizes", str(tmp_path / "store"), 1, 2)
    sizes = [
        outcome.bytes
        for outcome in convert_shards(local.tasks, destination(local, str(tmp_path / "store")))
        if isinstance(outcome, ShardRecord)
    ]
    monkeypatch.setattr(shard_task, "_UPLOAD_BYTES", share * min(sizes))
    asked, most_asked, upload = set[int](), [0], shard_task._upload

    def counted(*arguments: Any) -> Any:
        asked.add(id(arguments))
        most_asked[0] = max(most_asked[0], len(asked))
        try:
            time.sleep(0.05)  # as long as it takes: the bound holds however fast they are
            return upload(*arguments)
        finally:
            asked.discard(id(arguments))

    monkeypatch.setattr(shard_task, "_upload", counted)
    outcomes = list(convert_shards(plan.tasks, destination(plan, remote)))
    assert all(isinstance(outcome, ShardRecord) for outcome in outcomes)
    assert 1 <= most_asked[0] <= most


@pytest.mark.parametrize("days", [1, 2])
def test_a_file_is_opened_once_for_consecutive_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int
):
    store = str(tmp_path / "s")
    plan = planned(tmp_path, store, *range(1, days + 1))
    opened, closed = [], []
    load = shard_task.load_archive

    class Counting:
        def opener(self, options: Any) -> Any:
            decoder = load("weatherbench").opener(options)

            @contextmanager
            def counted(path: str, file: Any) -> Iterator[Any]:
                opened.append(file.name)
                with decoder(path, file) as decode:
                    yield decode
                closed.append(file.name)

            return counted

    monkeypatch.setattr(shard_task, "load_archive", lambda name: Counting())
    outcomes = list(convert_shards(plan.tasks, destination(plan, store)))
    assert len(outcomes) == 3 * days
    assert all(isinstance(outcome, ShardRecord) for outcome in outcomes)
    assert opened == closed == [file.name for file in plan.index.files]


def test_a_file_that_changes_between_two_shards_is_an_error_for_the_second(tmp_path: Path):
    store = str(tmp_path / "s")
    plan = planned(tmp_path, store, 1)
    outcomes = convert_shards(plan.tasks, destination(plan, store))
    assert isinstance(next(outcomes), ShardRecord)
    path = Path(plan.index.files[0].uri)
    path.write_bytes(path.read_bytes() + b"more")
    assert "changed" in str(next(outcomes))
    assert shards_of(store) == ["0"]
