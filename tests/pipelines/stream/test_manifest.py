"""Counts and lists of the windows of each split."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import UsageError
from pipelines.stores.store import Store
from pipelines.stream.manifest import window_counts, write_manifest
from pipelines.stream.windows import WindowSpec, split_starts

SPLITS = {
    "train": ("2015-01-01T00", "2015-01-01T19"),
    "validation": ("2015-01-01T20", "2015-01-02T05"),
    "test": ("2015-01-02T06", "2015-01-02T15"),
}


@pytest.fixture
def store(tmp_path: Path, write_store: Callable[..., Store]) -> Store:
    """A store of forty hours, one of them missing."""
    available = np.zeros(40, "u1")
    available[15] = 1
    values = np.ones((40, 2, 2), "f4")
    return write_store(tmp_path / "s", {"t2m": values}, available=available, splits=SPLITS)


def test_a_split_without_a_window_counts_zero(store: Store):
    assert window_counts(store, WindowSpec(2, 2)) == {"train": 13, "validation": 7, "test": 7}
    assert window_counts(store, WindowSpec(8, 3)) == {"train": 5, "validation": 0, "test": 0}


def test_a_csv_manifest_lists_every_window(store: Store, tmp_path: Path):
    spec = WindowSpec(2, 1, stride=2)
    counts = write_manifest(store, spec, str(tmp_path / "windows.csv"))
    with (tmp_path / "windows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(counts.values()) > 0
    for split in SPLITS:
        listed = [int(row["start"]) for row in rows if row["split"] == split]
        assert listed == split_starts(store, split, spec).tolist()
    assert rows[0] == {
        "split": "train",
        "start": "0",
        "first": "2015-01-01T00:00",
        "last_input": "2015-01-01T02:00",
        "last": "2015-01-01T04:00",
    }


def test_a_json_manifest_names_store_and_window(store: Store, tmp_path: Path):
    write_manifest(store, WindowSpec(2, 2), str(tmp_path / "windows.json"), counting="openstl")
    record = json.loads((tmp_path / "windows.json").read_text())
    assert record["statistics_fingerprint"] == store.fingerprint
    assert record["window"] == {"input_frames": 2, "horizon": 2, "stride": 1}
    assert len(record["windows"]) == 13 + 7 + 7 - 3 * 2


def test_a_manifest_that_is_neither_csv_nor_json_raises(store: Store, tmp_path: Path):
    with pytest.raises(UsageError, match=r"\.csv or \.json"):
        write_manifest(store, WindowSpec(2, 2), str(tmp_path / "windows.xlsx"))
