"""A training whose storage becomes unreachable waits, continues, and has the same losses."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
import pytest

from jobs.training.driver.job import train
from jobs.training.options import CheckpointOptions, TrainOptions
from jobs.training.plan import make_plan
from jobs.training.run import checkpoints
from jobs.training.worker.retrying import epoch_with_retry
from pipelines.errors import PlatformError, UsageError
from pipelines.inputs.normalisation import NormalisedReader
from pipelines.storage import lease
from pipelines.storage.retry import Retry, passes
from pipelines.stores.reader import FrameReader
from pipelines.stream.batches import Load
from pipelines.stream.order import Pool
from pipelines.stream.window_stream import DirectTransport, Transport, WindowStream
from tests.support.processes.barrier import Barrier, barrier
from tests.support.processes.training_runs import losses, small_options
from tests.support.servers.failing_relay import FailingRelay
from tests.support.servers.object_storage import (
    S3Server,
    bucket,
    in_environment,
    s3_server,
    upload,
)

__all__ = ["barrier", "s3_server"]


@pytest.fixture(scope="module")
def storage(
    s3_server: S3Server, barrier: Barrier, request: pytest.FixtureRequest
) -> Iterator[FailingRelay]:
    """Start a relay in front of a server; Ray's workers get it and the barrier by environment.

    The driver does not repeat requests, which would only make the tests longer.
    """
    relay = FailingRelay(s3_server.port)
    with in_environment({"AWS_ENDPOINT_URL": relay.endpoint, "AWS_MAX_ATTEMPTS": "1"}):
        request.getfixturevalue("ray_cluster")
        yield relay
    relay.close()


@pytest.fixture(scope="module")
def options(finished_run: TrainOptions, storage: FailingRelay) -> TrainOptions:
    """Return the options of the finished run with a run on S3 and no permitted worker failures."""
    place = bucket()
    upload(finished_run.store, f"{place}/stores/flow.zarr")
    return dataclasses.replace(
        finished_run,
        store=f"{place}/stores/flow.zarr",
        run=f"{place}/runs/small",
        checkpoints=CheckpointOptions(every_steps=4, keep=20, max_failures=0, storage_wait=90),
    )


def test_checkpoints_wait_for_a_storage_that_is_away(
    options: TrainOptions, finished_run: TrainOptions, storage: FailingRelay
) -> None:
    with (
        redirect_stderr(io.StringIO()) as said,
        storage.outage(
            r"^PUT .*/step_0*4/checkpoint.json$", 1, until=lambda: "trying again" in said.getvalue()
        ),
    ):
        train(options)
    assert losses(options.run) == losses(finished_run.run)
    assert "trying again for up to 90 s" in said.getvalue()
    assert "s of trying" in said.getvalue()
    found = checkpoints.list_checkpoints(options.run)
    assert [item.step for item in found] == [4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48]
    assert all(item.damage() is None for item in found)


class Flaky(DirectTransport):
    """A transport that reads the store and loses its connection twice."""

    def __init__(self, reader: NormalisedReader):
        super().__init__(reader)
        self.readers = 1
        self.loads = 0

    def loader(self, pools: Iterable[Pool]) -> Load:
        load = super().loader(pools)

        def flaky(pool: Pool, out_tchw: np.ndarray) -> None:
            self.loads += 1
            # The two faults are far enough apart that a batch is drawn between them in any case.
            if self.loads in (3, 10):
                raise ConnectionResetError("by peer")
            load(pool, out_tchw)

        return flaky


def test_a_stream_resumes_at_the_batch_where_a_fault_stopped_it(traffic_store: str) -> None:
    plan = make_plan(small_options(traffic_store, "run"))

    def stream(
        transport: Callable[[NormalisedReader], Transport] = DirectTransport,
    ) -> WindowStream:
        return WindowStream(
            store=plan.store,
            variables=plan.variables,
            spec=plan.window,
            starts=plan.train_starts,
            order=dataclasses.replace(plan.order, pool_bytes=1),
            normalisation=plan.normalisation,
            lanes=range(2),
            transport=transport,
        )

    expected = [batch.frames_btchw.copy() for batch in stream().epoch(1, 5)]
    said: list[str] = []
    transport = Flaky(NormalisedReader(FrameReader(plan.store, plan.variables), plan.normalisation))
    flaky = stream(lambda reader: transport)
    batches = epoch_with_retry(flaky, 1, 5, Retry(60, said.append))
    read = [batch.frames_btchw.copy() for batch in batches]
    assert transport.loads > 10
    assert "reading the store: by peer; trying again" in said[0]
    assert len(said) == 4
    assert len(read) == len(expected) > 10
    for one, other in zip(read, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_fault_is_retried_but_a_refusal_is_not() -> None:
    tries: list[int] = []

    def fails_twice() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionResetError("by peer")
        return "written"

    said: list[str] = []
    assert Retry(30, said.append)("writing", fails_twice) == "written"
    assert len(tries) == 3
    assert [line.split(":")[0] for line in said] == ["writing", "writing"]
    assert "by peer; trying again for up to 30 s" in said[0]
    assert not passes(UsageError("the storage denies access"))
    assert not passes(FileNotFoundError("gone"))
    assert not passes(ValueError("a fault of the program"))


def test_a_fault_that_lasts_is_raised_after_the_wait(tmp_path: Path) -> None:
    def fail() -> None:
        raise TimeoutError("no answer")

    with pytest.raises(TimeoutError, match="no answer"):
        Retry(0.6)("writing", fail)


def test_a_run_that_lost_its_lease_stops_and_writes_no_more(
    barrier: Barrier,
    storage: FailingRelay,
    finished_run: TrainOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # No heartbeat may replace the lease that the test writes.
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 3600.0)
    options = dataclasses.replace(finished_run, run=str(tmp_path / "run"), workers=1)

    def take_over(worker: int) -> None:
        other = dataclasses.replace(lease.this_process(), host="elsewhere/1", user="ada")
        record = dataclasses.asdict(other)
        (Path(options.run) / ".ledger" / "lease.json").write_text(json.dumps(record))

    with (
        pytest.raises(PlatformError, match="another process took the run over"),
        barrier.at(r"/step_0*12/checkpoint\.json$", take_over),
    ):
        train(options)
    # The second checkpoint had already begun when the lease was taken.
    assert [item.step for item in checkpoints.list_checkpoints(options.run)] == [6, 12]
