"""A climatology is made once, and again when anything that it was made of has changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import StoreError
from pipelines.inputs import kept_climatology as kept
from pipelines.inputs.climatology import Climatology, climatology
from pipelines.storage import places
from pipelines.stores.store import Store, open_store
from tests.support.servers.object_storage import S3Server, s3_server, upload

__all__ = ["s3_server"]

TIMES = np.arange(np.datetime64("2015-01-01", "s"), np.datetime64("2015-01-05", "s"), 3600)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stores that a climatology was really made of, as they come."""
    stores: list[str] = []

    def counted(
        store: Store, variables: tuple[str, ...], most_bytes: int | None = None
    ) -> Climatology:
        stores.append(store.uri)
        return climatology(store, variables, most_bytes)

    monkeypatch.setattr(kept, "climatology", counted)
    return stores


def values(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(280, 5, (len(TIMES), 2, 3)).astype("f4")


def same(one: Climatology, other: Climatology) -> bool:
    assert one.table.shape == other.table.shape
    about = [(each.cycle, each.slot_seconds, each.definition) for each in (one, other)]
    return about[0] == about[1] and np.array_equal(one.table, other.table, equal_nan=True)


def test_it_is_made_once_for_each_choice_of_variables(
    tmp_path: Path, write_store: Callable[..., Store], made: list[str]
):
    store = write_store(tmp_path / "s", {"t2m": values(0), "d2m": values(1)}, times=TIMES)
    for variables in (("t2m",), ("d2m",), ("t2m", "d2m"), ("d2m", "t2m")):
        first = kept.kept_climatology(store, variables)
        again = kept.kept_climatology(open_store(store.uri), variables)
        assert same(first, climatology(store, variables))
        assert same(again, first)
    assert len(made) == 4


def test_another_shard_of_the_same_size_makes_another_one(
    tmp_path: Path, write_store: Callable[..., Store], made: list[str]
):
    store = write_store(tmp_path / "s", {"t2m": values(0)}, times=TIMES)
    other = write_store(tmp_path / "other", {"t2m": values(0)[::-1]}, times=TIMES)
    before = kept.kept_climatology(store, ("t2m",))
    shard = "t2m/c/0/0/0"
    places.write_bytes(f"{store.uri}/{shard}", places.read_bytes(f"{other.uri}/{shard}"))
    after = kept.kept_climatology(open_store(store.uri), ("t2m",))
    assert len(made) == 2
    assert not same(after, before)
    assert same(after, climatology(open_store(store.uri), ("t2m",)))


def test_a_lost_shard_is_an_error_and_not_what_was_kept(
    tmp_path: Path, write_store: Callable[..., Store]
):
    store = write_store(tmp_path / "s", {"t2m": values(0)}, times=TIMES)
    kept.kept_climatology(store, ("t2m",))
    places.delete(f"{store.uri}/t2m/c/0/0/0")
    with pytest.raises(StoreError):
        kept.kept_climatology(open_store(store.uri), ("t2m",))


def with_an_unknown_compression(data: bytes) -> bytes:
    method = data.index(b"PK\x01\x02") + 10
    return data[:method] + b"\xee" + data[method + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-40],
        lambda data: b"",
        lambda data: b"PK",
        with_an_unknown_compression,
    ],
)
def test_a_damaged_one_is_made_again(
    tmp_path: Path,
    write_store: Callable[..., Store],
    made: list[str],
    damage: Callable[[bytes], bytes],
):
    store = write_store(tmp_path / "s", {"t2m": values(0)}, times=TIMES)
    first = kept.kept_climatology(store, ("t2m",))
    (file,) = (tmp_path / "s" / kept.FOLDER).iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert same(kept.kept_climatology(store, ("t2m",)), first)
    assert same(kept.kept_climatology(store, ("t2m",)), first)
    assert len(made) == 2


def test_a_place_that_takes_nothing_gets_a_line_and_the_scores_their_climatology(
    tmp_path: Path,
    write_store: Callable[..., Store],
    caplog: pytest.LogCaptureFixture,
):
    store = write_store(tmp_path / "s", {"t2m": values(0)}, times=TIMES)
    (tmp_path / "s" / kept.FOLDER).write_text("a file where a folder is needed")
    assert same(kept.kept_climatology(store, ("t2m",)), climatology(store, ("t2m",)))
    assert "not kept" in caplog.text


def test_it_is_kept_beside_a_store_on_object_storage(
    s3_server: S3Server, tmp_path: Path, write_store: Callable[..., Store], made: list[str]
):
    local = write_store(tmp_path / "s", {"t2m": values(0)}, times=TIMES)
    remote = f"{s3_server.bucket()}/s.zarr"
    upload(f"{local.uri}/", remote)
    first, again = (kept.kept_climatology(open_store(remote), ("t2m",)) for _ in range(2))
    assert made == [remote]
    assert same(first, again)
    assert same(first, climatology(local, ("t2m",)))
