"""One writer at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pipelines.errors import BusyError, UsageError
from pipelines.storage import lease


def leave(store: Path, record: lease.LeaseRecord) -> None:
    folder = store / ".ledger"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lease.json").write_text(json.dumps(asdict(record)))


def held(store: Path) -> bool:
    return (store / ".ledger" / "lease.json").exists()


def test_a_lease_is_released_even_after_an_error(tmp_path: Path):
    def fail_while_writing() -> None:
        with lease.hold(str(tmp_path)):
            assert held(tmp_path)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_while_writing()
    assert not held(tmp_path)


def test_a_second_writer_gets_an_error_with_the_owner_and_the_heartbeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lease.time, "time", lambda: 1.8e9)
    with lease.hold(str(tmp_path)):
        with pytest.raises(BusyError) as raised:
            lease.acquire(str(tmp_path))
        assert raised.value.exit_code == 1
        assert f"process {os.getpid()}" in raised.value.what
        assert "last heartbeat 0 s ago" in raised.value.what


def test_the_lease_of_a_killed_writer_is_taken_over_at_once(tmp_path: Path):
    script = "import sys, time; from pipelines.storage import lease; lease.acquire(sys.argv[1]); "
    script += "print('held', flush=True); time.sleep(600)"
    writer = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "held\n"
    with pytest.raises(BusyError):
        lease.acquire(str(tmp_path))
    writer.kill()
    writer.wait()
    said: list[str] = []
    with lease.hold(str(tmp_path), said.append):
        assert held(tmp_path)
    assert said == []


def test_a_later_process_with_the_same_number_is_not_the_owner(tmp_path: Path):
    leave(tmp_path, replace(lease.this_process(), started="1", token="old"))
    with lease.hold(str(tmp_path)):
        assert held(tmp_path)


def test_the_lease_of_another_host_is_taken_over_if_its_heartbeat_is_old(tmp_path: Path):
    old = replace(lease.this_process(), host="elsewhere/1", heartbeat=time.time() - 31, token="o")
    leave(tmp_path, old)
    with lease.hold(str(tmp_path)):
        assert held(tmp_path)


def test_the_lease_of_another_host_is_watched_if_its_heartbeat_is_fresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lease, "STALE_SECONDS", 1.5)
    ahead = time.time() + 3600
    leave(tmp_path, replace(lease.this_process(), host="elsewhere/1", heartbeat=ahead, token="o"))
    said: list[str] = []
    with lease.hold(str(tmp_path), said.append):
        assert held(tmp_path)
    assert len(said) == 1
    assert "waiting" in said[0]
    assert "@elsewhere" in said[0]


def test_the_lease_of_another_host_that_still_writes_raises_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    alive = replace(lease.this_process(), host="elsewhere/1", token="o")
    leave(tmp_path, alive)

    def beat(seconds: float) -> None:
        leave(tmp_path, replace(alive, heartbeat=alive.heartbeat + 1))

    monkeypatch.setattr(lease.time, "sleep", beat)
    with pytest.raises(BusyError, match="@elsewhere"):
        lease.acquire(str(tmp_path))


def test_a_writer_gets_an_error_after_its_lease_was_taken_over(tmp_path: Path):
    mine = lease.acquire(str(tmp_path))
    mine.check()
    leave(tmp_path, replace(lease.this_process(), host="elsewhere/1", token="other"))
    with pytest.raises(BusyError, match="took the store over"):
        mine.check()
    mine.release()
    assert held(tmp_path)


def test_a_store_below_a_file_raises_an_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        lease.acquire(str(tmp_path / "file" / "store"))
