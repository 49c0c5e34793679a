"""Requests to a storage that run in parallel."""

from __future__ import annotations

import threading

import pytest

from pipelines.storage import places
from pipelines.storage.retry import Retry, call_with_retry, retrying

STORE = "s3://bucket/store"


def test_requests_to_a_remote_storage_run_in_parallel():
    together = threading.Barrier(4)
    assert places.in_parallel(STORE, [lambda: together.wait(20) >= 0] * 4) == [True] * 4


def test_results_are_in_the_order_of_the_requests():
    assert places.in_parallel(STORE, [lambda n=n: n for n in range(30)]) == list(range(30))


def test_requests_are_retried_as_the_enclosing_block_allows():
    faults = [ConnectionResetError(), ConnectionResetError()]

    def request() -> str:
        if faults:
            raise faults.pop()
        return "done"

    with retrying(Retry(20.0)):
        answers = places.in_parallel(
            STORE, [lambda: call_with_retry("asking", request), lambda: "other"]
        )
    assert answers == ["done", "other"]


def test_an_error_is_raised_after_all_requests_have_ended():
    ended = threading.Event()

    def fails() -> None:
        raise PermissionError("refused")

    with pytest.raises(PermissionError, match="refused"):
        places.in_parallel(STORE, [fails, ended.set])
    assert ended.is_set()


def test_on_a_local_disk_requests_run_one_after_the_other():
    threads: list[int] = []
    places.in_parallel("/store", [lambda: threads.append(threading.get_ident())] * 3)
    assert set(threads) == {threading.get_ident()}
