"""Climatologies are means of available train frames, and are kept beside the store."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import StoreError, UsageError
from pipelines.inputs import climatology as module
from pipelines.inputs.climatology import (
    FOLDER,
    SMOOTHING_DAYS,
    Climatology,
    climatology,
    kept_climatology,
)
from pipelines.storage import places
from pipelines.stores.store import Store, open_store
from tests.support.servers.failing_relay import FailingRelay
from tests.support.servers.object_storage import S3Server, bucket, in_environment, s3_server, upload

__all__ = ["s3_server"]

HEIGHT, WIDTH = 2, 3


def series(first: str, last: str, cadence: int) -> np.ndarray:
    return np.arange(np.datetime64(first, "s"), np.datetime64(last, "s"), cadence)


def frames_of(values: np.ndarray) -> np.ndarray:
    """(T,) -> (T, H, W), each pixel one kelvin warmer than the one before."""
    pixels = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    return (values[:, None, None] + pixels).astype("f4")


def seconds(times: np.ndarray) -> np.ndarray:
    return times.astype("datetime64[s]").astype(np.int64)


def test_short_train_periods_give_the_mean_by_hour_of_day(
    tmp_path: Path, write_store: Callable[..., Store]
):
    times = series("2015-01-01", "2015-02-01", 3600)
    hour = seconds(times) // 3600 % 24
    noise = np.random.default_rng(0).normal(0, 1, len(times))
    values = 280.0 + hour + noise
    store = write_store(tmp_path / "s", {"t2m": frames_of(values)}, times=times)
    usual = climatology(store, ("t2m",))
    asked = series("2016-07-04T05", "2016-07-05T05", 3600)
    expected = np.array([values[hour == h].mean() for h in seconds(asked) // 3600 % 24])
    np.testing.assert_allclose(usual.at(asked)[:, 0], frames_of(expected), rtol=1e-6)
    assert usual.cycle == "day"
    assert usual.definition == (
        "mean by hour of day, of 744 train frames from 2015-01-01T00:00 to 2015-01-31T23:00"
    )


def test_two_train_years_give_day_of_year_and_hour_smoothed_over_days(
    tmp_path: Path, write_store: Callable[..., Store]
):
    times = series("2015-01-01", "2018-01-01", 6 * 3600)
    day = seconds(times) / 86400.0
    values = 280 + 12 * np.cos(2 * np.pi * day / 365.2425) + 3 * np.cos(2 * np.pi * day)
    values += np.random.default_rng(0).normal(0, 1.0, len(times))
    splits = {"train": ("2015-01-01", "2016-12-31T18"), "test": ("2017-01-01", "2017-12-31T18")}
    store = write_store(
        tmp_path / "s",
        {"t2m": frames_of(values)},
        times=times,
        cadence=6 * 3600,
        splits=splits,
        chunk_frames=64,
        shard_frames=512,
    )
    usual = climatology(store, ("t2m",))
    assert usual.cycle == "year"
    assert f"smoothed over {SMOOTHING_DAYS} days" in usual.definition
    assert "to 2016-12-31T18:00" in usual.definition
    for asked in ("2017-01-01T06", "2017-02-28T00", "2016-02-29T12", "2017-07-15T18"):
        time = np.array([np.datetime64(asked, "s")])
        # By hand: all train frames of this hour whose day of year is within half the window.
        train = times < np.datetime64("2017-01-01")
        half = SMOOTHING_DAYS // 2
        near = [
            value
            for moment, value in zip(times[train], values[train], strict=True)
            if (seconds(time)[0] - seconds(moment)) % 86400 == 0
            and days_apart(moment, time[0]) <= half
        ]
        assert len(near) >= 2 * SMOOTHING_DAYS - 2
        np.testing.assert_allclose(usual.at(time)[0, 0, 0, 0], np.mean(near), rtol=1e-6)


def days_apart(one: np.datetime64, other: np.datetime64) -> int:
    """Return the days between two dates of one leap year, the shorter way around the year."""

    def place(time: np.datetime64) -> int:
        in_leap_year = np.datetime64("2016" + str(time.astype("datetime64[D]"))[4:])
        return int((in_leap_year - np.datetime64("2016-01-01")).astype(int))

    apart = abs(place(one) - place(other))
    return min(apart, 366 - apart)


def test_traffic_repeats_with_the_week(tmp_path: Path, write_store: Callable[..., Store]):
    times = series("2015-03-01", "2015-03-29", 1800)
    slot = seconds(times) // 1800 % 336
    flow = np.stack([frames_of(slot * 1.0), frames_of(slot * 2.0)], axis=1)
    store = write_store(
        tmp_path / "s",
        {"flow": flow},
        extra_dims={"flow": ("channel",)},
        times=times,
        cadence=1800,
        archive="taxibj",
    )
    usual = climatology(store, ("flow",))
    later = series("2015-06-10", "2015-06-12", 1800)
    expected = seconds(later) // 1800 % 336
    assert usual.at(later).shape == (96, 2, HEIGHT, WIDTH)
    np.testing.assert_array_equal(usual.at(later)[:, 0], frames_of(expected * 1.0))
    np.testing.assert_array_equal(usual.at(later)[:, 1], frames_of(expected * 2.0))
    assert "30 min slot of the week" in usual.definition


def test_frames_outside_train_and_unavailable_frames_are_not_averaged(
    tmp_path: Path, write_store: Callable[..., Store]
):
    times = series("2015-01-01", "2015-01-11", 3600)
    values = frames_of(np.full(len(times), 280.0))
    available = np.zeros(len(times), "u1")
    available[30:40] = 2
    values[30:40] = 999.0
    values[5 * 24 :] = 500.0
    store = write_store(
        tmp_path / "s",
        {"t2m": values},
        times=times,
        available=available,
        splits={"train": ("2015-01-01", "2015-01-05T23")},
    )
    usual = climatology(store, ("t2m",))
    np.testing.assert_array_equal(usual.at(times)[:, 0], frames_of(np.full(len(times), 280.0)))
    assert "of 110 train frames" in usual.definition


def test_missing_pixels_are_left_out_of_the_mean(tmp_path: Path, write_store: Callable[..., Store]):
    times = series("2015-01-01", "2015-01-05", 3600)
    values = frames_of(np.repeat([1.0, 2.0, 3.0, 10.0], 24))
    values[72:, 0, 0] = np.nan
    values[:, 1, 1] = np.nan
    values[::24, 1, 2] = np.nan
    table = climatology(write_store(tmp_path / "s", {"t2m": values}, times=times), ("t2m",)).table
    assert table[3, 0, 0, 0] == pytest.approx(2.0)
    assert table[3, 0, 0, 1] == pytest.approx(5.0)
    assert np.isnan(table[:, 0, 1, 1]).all()
    # An hour without a value takes the mean of all hours.
    assert table[0, 0, 1, 2] == pytest.approx(table[3, 0, 1, 2])


def test_a_train_period_without_available_frames_is_an_error(
    tmp_path: Path, write_store: Callable[..., Store]
):
    times = series("2015-01-01", "2015-01-02", 3600)
    store = write_store(
        tmp_path / "s",
        {"t2m": frames_of(np.ones(24))},
        times=times,
        available=np.ones(24, "u1"),
    )
    with pytest.raises(UsageError, match="no available frame"):
        climatology(store, ("t2m",))


def test_a_cadence_that_does_not_divide_a_day_is_an_error(
    tmp_path: Path, write_store: Callable[..., Store]
):
    store = write_store(tmp_path / "s", {"t2m": frames_of(np.ones(40))}, cadence=7 * 3600)
    with pytest.raises(UsageError, match="does not divide a day"):
        climatology(store, ("t2m",))


def test_a_lost_shard_is_an_error_instead_of_a_mean_of_fewer_frames(
    tmp_path: Path, write_store: Callable[..., Store]
):
    times = series("2015-01-01", "2015-02-01", 3600)
    values = frames_of(np.linspace(270, 290, len(times)))
    store = write_store(tmp_path / "s", {"z": values, "t2m": values}, times=times)
    lost = next(iter((tmp_path / "s" / "t2m" / "c").iterdir()))
    shutil.rmtree(lost)
    with pytest.raises(StoreError, match="hold no value") as refused:
        climatology(store, ("z", "t2m"))
    assert f"in t2m/c/{lost.name}/0/0" in str(refused.value)
    assert climatology(store, ("z",)).table.shape == (24, 1, HEIGHT, WIDTH)


def overwrite_the_middle(shard: bytes) -> bytes:
    quarter = len(shard) // 4
    return shard[:quarter] + b"\xff" * (2 * quarter) + shard[3 * quarter :]


@pytest.mark.parametrize("damage", [overwrite_the_middle, lambda shard: shard[:-20]])
def test_a_damaged_shard_is_an_error_that_names_it_and_the_repair(
    tmp_path: Path, write_store: Callable[..., Store], damage: Callable[[bytes], bytes]
):
    times = series("2015-01-01", "2015-02-01", 3600)
    values = frames_of(np.linspace(270, 290, len(times)))
    store = write_store(tmp_path / "s", {"z": values, "t2m": values}, times=times)
    shard = tmp_path / "s" / "t2m" / "c" / "0" / "0" / "0"
    shard.write_bytes(damage(shard.read_bytes()))
    with pytest.raises(StoreError, match="cannot read 't2m'") as refused:
        climatology(store, ("z", "t2m"))
    assert f"{store.uri}, t2m, frames 0 to " in str(refused.value)
    assert "in t2m/c/0/0/0" in str(refused.value)
    assert "--repair" in str(refused.value)
    assert climatology(store, ("z",)).table.shape == (24, 1, HEIGHT, WIDTH)


def test_a_climatology_waits_while_the_storage_is_away_for_a_moment(
    s3_server: S3Server,
    tmp_path: Path,
    write_store: Callable[..., Store],
    caplog: pytest.LogCaptureFixture,
):
    times = series("2015-01-01", "2015-01-09", 3600)
    local = write_store(tmp_path / "s", {"t2m": frames_of(np.arange(192.0))}, times=times)
    relay = FailingRelay(s3_server.port)
    with in_environment({"AWS_ENDPOINT_URL": relay.endpoint, "AWS_MAX_ATTEMPTS": "1"}):
        place = f"{bucket()}/s.zarr"
        upload(f"{local.uri}/", place)
        remote = open_store(place)
        with relay.outage(r"^GET .*/t2m/c/", 3, until=lambda: "trying again" in caplog.text):
            found = climatology(remote, ("t2m",))
    relay.close()
    np.testing.assert_array_equal(found.table, climatology(local, ("t2m",)).table)


TIMES = np.arange(np.datetime64("2015-01-01", "s"), np.datetime64("2015-01-05", "s"), 3600)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stores that a climatology was made from, one entry per time."""
    stores: list[str] = []

    def counted(
        store: Store, variables: tuple[str, ...], most_bytes: int | None = None
    ) -> Climatology:
        stores.append(store.uri)
        return climatology(store, variables, most_bytes)

    monkeypatch.setattr(module, "climatology", counted)
    return stores


def random_fields(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(280, 5, (len(TIMES), 2, 3)).astype("f4")


def same(one: Climatology, other: Climatology) -> bool:
    assert one.table.shape == other.table.shape
    about = [(each.cycle, each.slot_seconds, each.definition) for each in (one, other)]
    return about[0] == about[1] and np.array_equal(one.table, other.table, equal_nan=True)


def test_a_climatology_is_made_once_for_each_choice_of_variables(
    tmp_path: Path, write_store: Callable[..., Store], made: list[str]
):
    store = write_store(
        tmp_path / "s", {"t2m": random_fields(0), "d2m": random_fields(1)}, times=TIMES
    )
    for variables in (("t2m",), ("d2m",), ("t2m", "d2m"), ("d2m", "t2m")):
        first = kept_climatology(store, variables)
        again = kept_climatology(open_store(store.uri), variables)
        assert same(first, climatology(store, variables))
        assert same(again, first)
    assert len(made) == 4


def test_a_climatology_is_made_again_if_a_shard_changes_but_not_its_size(
    tmp_path: Path, write_store: Callable[..., Store], made: list[str]
):
    store = write_store(tmp_path / "s", {"t2m": random_fields(0)}, times=TIMES)
    other = write_store(tmp_path / "other", {"t2m": random_fields(0)[::-1]}, times=TIMES)
    before = kept_climatology(store, ("t2m",))
    shard = "t2m/c/0/0/0"
    places.write_bytes(f"{store.uri}/{shard}", places.read_bytes(f"{other.uri}/{shard}"))
    after = kept_climatology(open_store(store.uri), ("t2m",))
    assert len(made) == 2
    assert not same(after, before)
    assert same(after, climatology(open_store(store.uri), ("t2m",)))


def test_a_lost_shard_is_an_error_although_a_climatology_was_kept(
    tmp_path: Path, write_store: Callable[..., Store]
):
    store = write_store(tmp_path / "s", {"t2m": random_fields(0)}, times=TIMES)
    kept_climatology(store, ("t2m",))
    places.delete(f"{store.uri}/t2m/c/0/0/0")
    with pytest.raises(StoreError):
        kept_climatology(open_store(store.uri), ("t2m",))


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
def test_a_damaged_climatology_is_made_again(
    tmp_path: Path,
    write_store: Callable[..., Store],
    made: list[str],
    damage: Callable[[bytes], bytes],
):
    store = write_store(tmp_path / "s", {"t2m": random_fields(0)}, times=TIMES)
    first = kept_climatology(store, ("t2m",))
    (file,) = (tmp_path / "s" / FOLDER).iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert same(kept_climatology(store, ("t2m",)), first)
    assert same(kept_climatology(store, ("t2m",)), first)
    assert len(made) == 2


def test_a_climatology_that_cannot_be_kept_is_made_and_a_warning_says_so(
    tmp_path: Path,
    write_store: Callable[..., Store],
    caplog: pytest.LogCaptureFixture,
):
    store = write_store(tmp_path / "s", {"t2m": random_fields(0)}, times=TIMES)
    (tmp_path / "s" / FOLDER).write_text("a file where a folder is needed")
    assert same(kept_climatology(store, ("t2m",)), climatology(store, ("t2m",)))
    assert "not kept" in caplog.text


def test_a_climatology_is_kept_beside_a_store_on_object_storage(
    s3_server: S3Server, tmp_path: Path, write_store: Callable[..., Store], made: list[str]
):
    local = write_store(tmp_path / "s", {"t2m": random_fields(0)}, times=TIMES)
    remote = f"{s3_server.bucket()}/s.zarr"
    upload(f"{local.uri}/", remote)
    first, again = (kept_climatology(open_store(remote), ("t2m",)) for _ in range(2))
    assert made == [remote]
    assert same(first, again)
    assert same(first, climatology(local, ("t2m",)))
