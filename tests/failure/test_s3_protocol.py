"""Requests to S3 servers, among them one that checks the protocol strictly, and their refusals."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator

import pytest

from pipelines.archives.sources.finding import find_files
from pipelines.errors import BusyError, SourceError, UsageError
from pipelines.storage import lease, places
from pipelines.storage.writable import check_writable
from pipelines.stores.store import open_store
from tests.support.servers import latency_proxy
from tests.support.servers.latency_proxy import LatencyProxy
from tests.support.servers.moto_server import moto
from tests.support.servers.object_storage import S3Server, in_environment, s3_server

__all__ = ["moto", "s3_server"]


@pytest.fixture(params=["moto", "s3_server"])
def bucket(request: pytest.FixtureRequest) -> Iterator[str]:
    """Create a bucket on each of the two servers in turn."""
    server: S3Server = request.getfixturevalue(request.param)
    with in_environment(server.environment):
        yield server.bucket()


def test_ranges_of_an_object_are_read_from_both_ends(bucket: str):
    content = bytes(range(256)) * 400
    places.write_bytes(f"{bucket}/object", content)
    assert places.read_range(f"{bucket}/object", 1000, 1010) == content[1000:1010]
    assert places.read_range(f"{bucket}/object", -68) == content[-68:]
    assert places.read_bytes(f"{bucket}/object") == content


def test_an_object_of_several_parts_is_one_object(bucket: str):
    content = uuid.uuid4().bytes * (7 * 2**20)  # 112 MiB: too much for one request
    places.write_bytes(f"{bucket}/large", [content[:5], content[5:]])
    assert places.read_range(f"{bucket}/large", -16) == content[-16:]
    assert places.names(bucket) == ["large"]
    assert places.read_range(f"{bucket}/large", 0, 16) == content[:16]


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_a_wrong_key_is_refused_by_every_entrance_with_what_to_check(bucket: str, name: str):
    places.write_bytes(f"{bucket}/archive/a.nc", b"content")
    wrong = uuid.uuid4().hex
    entrances = (
        (UsageError, lambda: check_writable(f"{bucket}/run", "run")),
        (UsageError, lambda: lease.acquire(f"{bucket}/store", print)),
        (UsageError, lambda: open_store(f"{bucket}/store")),
        (UsageError, lambda: places.read_bytes(f"{bucket}/archive/a.nc")),
        (SourceError, lambda: find_files(f"{bucket}/archive", (".nc",), "weatherbench")),
    )
    with in_environment({name: wrong}):
        for expected, enter in entrances:
            with pytest.raises(expected) as refused:
                enter()
            assert bucket in str(refused.value.where)
            assert "AWS_SECRET_ACCESS_KEY" in str(refused.value.remedy)
            assert wrong not in str(refused.value)


def test_an_object_is_created_once_where_the_storage_knows_conditions(moto: S3Server):
    with in_environment(moto.environment):
        place = f"{moto.bucket()}/object"
        assert places.create_bytes(place, b"first")
        assert not places.create_bytes(place, b"second")
        assert places.read_bytes(place) == b"first"


class WithoutConditions(LatencyProxy):
    """A relay that answers conditional requests like a storage that does not implement them."""

    def _drops(self, head: bytes) -> bool:
        self.conditional = b"if-none-match" in head.lower()
        return False

    def _is_one_too_many(self) -> bool:
        return self.conditional


def test_an_object_is_created_where_the_storage_refuses_conditions(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
):
    answer = b"<Error><Code>NotImplemented</Code><Message>no such header</Message></Error>"
    head = f"HTTP/1.1 501 Not Implemented\r\nContent-Length: {len(answer)}\r\nConnection: close"
    monkeypatch.setattr(latency_proxy, "_SLOW_DOWN", head.encode() + b"\r\n\r\n" + answer)
    place = f"{s3_server.bucket()}/object"
    relay = WithoutConditions(s3_server.port, 0.0)
    try:
        with in_environment({"AWS_ENDPOINT_URL": relay.endpoint}):
            assert places.create_bytes(place, b"first")
    finally:
        relay.close()
    assert relay.counts()["PUT"] >= 2
    assert places.read_bytes(place) == b"first"


@pytest.fixture
def taken_meanwhile(monkeypatch: pytest.MonkeyPatch) -> list[lease.Lease]:
    """Make another writer take the lease while this process looks for it; return that lease."""
    read, others = lease._read, []
    looked = iter([False])

    def look(uri: str) -> lease.LeaseRecord | None:
        seen = read(uri)
        if not next(looked, True):
            others.append(lease.acquire(uri))
        return seen

    monkeypatch.setattr(lease, "_read", look)
    return others


def test_of_two_who_find_no_lease_the_second_to_write_is_refused(
    moto: S3Server, taken_meanwhile: list[lease.Lease]
):
    with in_environment(moto.environment):
        store = f"{moto.bucket()}/store"
        with pytest.raises(BusyError, match="another process writes"):
            lease.acquire(store)
        [other] = taken_meanwhile
        other.check()
        other.release()


def test_where_conditions_are_ignored_the_first_to_write_notices(
    s3_server: S3Server, taken_meanwhile: list[lease.Lease]
):
    with lease.hold(f"{s3_server.bucket()}/store") as held:
        [first] = taken_meanwhile
        with pytest.raises(BusyError, match="took the store over"):
            first.check()
        first.release()
        held.check()


def test_a_lease_that_cannot_be_read_is_replaced(bucket: str):
    places.write_bytes(f"{bucket}/.ledger/lease.json", b"{")
    with lease.hold(bucket) as held:
        held.check()


def leave(store: str, record: lease.LeaseRecord) -> None:
    content = json.dumps(dataclasses.asdict(record)).encode()
    places.write_bytes(f"{store}/.ledger/lease.json", content)


def elsewhere(heartbeat: float) -> lease.LeaseRecord:
    here = lease.this_process()
    return dataclasses.replace(here, host="elsewhere/1", token="other", heartbeat=heartbeat)


def test_another_hosts_old_lease_is_taken_over_at_once(bucket: str):
    leave(bucket, elsewhere(time.time() - lease.STALE_SECONDS - 1))
    said: list[str] = []
    with lease.hold(bucket, said.append) as held:
        held.check()
    assert said == []
    assert not places.exists(f"{bucket}/.ledger/lease.json")


def test_another_hosts_lease_that_beats_no_more_is_waited_for_and_taken_over(
    bucket: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lease, "STALE_SECONDS", 1.5)
    leave(bucket, elsewhere(time.time() + 3600))  # the other host's clock is an hour ahead
    said: list[str] = []
    with lease.hold(bucket, said.append) as held:
        held.check()
    assert len(said) == 1
    assert "@elsewhere" in said[0]


def test_another_host_that_goes_on_writing_is_not_disturbed(
    bucket: str, monkeypatch: pytest.MonkeyPatch
):
    alive = elsewhere(time.time())
    leave(bucket, alive)

    def beat(seconds: float) -> None:
        leave(bucket, dataclasses.replace(alive, heartbeat=alive.heartbeat + 1))

    monkeypatch.setattr(lease.time, "sleep", beat)
    with pytest.raises(BusyError, match="@elsewhere"):
        lease.acquire(bucket)


def test_a_writer_that_was_killed_a_moment_ago_does_not_stop_the_next_one(bucket: str):
    script = "import sys, time; from pipelines.storage import lease; lease.acquire(sys.argv[1]); "
    script += "print('held', flush=True); time.sleep(600)"
    command = [sys.executable, "-c", script, bucket]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "held\n"
        with pytest.raises(BusyError):
            lease.acquire(bucket)
        writer.kill()
    said: list[str] = []
    with lease.hold(bucket, said.append) as held:
        held.check()
    assert said == []
