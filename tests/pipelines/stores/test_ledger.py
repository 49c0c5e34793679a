"""Ledger records are read as they were written."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipelines.stores.ledger import Ledger, ShardRecord


def record(shard: int = 3) -> ShardRecord:
    moments = np.random.default_rng(shard).normal(size=(5, 2, 6))
    moments[2, 0, 4] = np.nan
    return ShardRecord(
        variable="t2m",
        shard=shard,
        start=0,
        stop=5,
        key="k",
        object_name="t2m/c/3/0/0",
        bytes=9,
        checksum="0f",
        sources=({"uri": "/a.nc", "size": 3, "etag": "e"},),
        moments=moments,
        converter_version="1",
        owner="ada",
        written_at="2020-01-01T00:00:00+00:00",
    )


def test_a_record_is_read_as_it_was_written(tmp_path: Path):
    ledger = Ledger(str(tmp_path))
    ledger.commit(record())
    [found] = ledger.read("t2m", range(10))
    assert found.shard == 3
    np.testing.assert_array_equal(found.moments, record().moments)
    assert found.sources == record().sources
    assert found.to_bytes() == record().to_bytes()


def test_records_come_in_the_order_asked_for_also_if_there_are_many(tmp_path: Path):
    ledger = Ledger(str(tmp_path))
    for shard in reversed(range(80)):
        ledger.commit(record(shard))
    assert [found.shard for found in ledger.read("t2m", range(100))] == list(range(80))


def test_an_outline_leaves_out_what_grows_with_the_number_of_frames():
    outline = record().outline()
    assert (outline.moments.shape, outline.sources) == ((0, 2, 6), ())
    assert (outline.key, outline.bytes, outline.checksum) == ("k", 9, "0f")


def test_a_damaged_record_counts_as_missing(tmp_path: Path):
    ledger = Ledger(str(tmp_path))
    for shard in (0, 1, 2):
        ledger.commit(record(shard))
    folder = tmp_path / ".ledger" / "t2m"
    (folder / "000001.json").write_bytes((folder / "000001.json").read_bytes()[:100])
    (folder / "000002.json").write_text("{}")
    assert [found.shard for found in ledger.read("t2m", range(3))] == [0]


def test_an_empty_ledger_has_no_plan(tmp_path: Path):
    assert Ledger(str(tmp_path)).read_plan() is None
