"""A training keeps its loss curve when its nodes, with one worker each, end and are replaced."""

from __future__ import annotations

import dataclasses
import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.training.driver.job import train
from jobs.training.options import CheckpointOptions, TrainOptions
from jobs.training.run import checkpoints, run_folder
from jobs.training.run_options import ElasticOptions
from pipelines.errors import UsageError
from tests.support.processes import shared_ray
from tests.support.processes.gated_training import Gate, Gates
from tests.support.processes.training_runs import has_checkpoint, losses, wait_until

NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 * 1024**2}


class Nodes:
    """A head that stays, and one other node at a time, with one CPU each."""

    def __init__(self, cluster: Any):
        self._cluster = cluster
        self._node: Any = None

    def add(self) -> None:
        """Start another node."""
        self._node = self._cluster.add_node(**NODE)

    def replace(self) -> None:
        """Kill the node without notice, and start another one."""
        self.kill()
        self.add()

    def kill(self) -> None:
        """Kill the node without notice."""
        self._cluster.remove_node(self._node, allow_graceful=False)

    def drain(self) -> None:
        """Announce that the node will be taken away in ten minutes."""
        from ray._raylet import GcsClient  # pyright: ignore[reportAttributeAccessIssue]
        from ray.core.generated import autoscaler_pb2

        reasons: Any = autoscaler_pb2.DrainNodeReason  # pyright: ignore[reportAttributeAccessIssue]
        accepted, why = GcsClient(address=self._cluster.address).drain_node(
            self._node.node_id,
            reasons.Value("DRAIN_NODE_REASON_PREEMPTION"),
            "spot",
            int((time.time() + 600) * 1000),
        )
        assert accepted, why


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """Start two nodes of one CPU, so that two workers need both."""
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        # Seconds to reserve CPUs on nodes; processes start later. After a failure Ray tries again,
        # any number of times.
        patch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "5")
        patch.setenv("RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S", "0.2")
        shared_ray.end()
        cluster = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
        try:
            nodes = Nodes(cluster)
            nodes.add()
            ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
            yield nodes
        finally:
            ray.shutdown()
            cluster.shutdown()


@pytest.fixture
def options(finished_run: TrainOptions, tmp_path: Path) -> TrainOptions:
    """Return the options of the finished run with a new folder."""
    return dataclasses.replace(
        finished_run,
        run=str(tmp_path / "run"),
        shared_paths=True,
        checkpoints=CheckpointOptions(every_steps=6, keep=20, max_failures=1),
        elastic=ElasticOptions(resize_every=1, max_preemptions=1),
    )


def play(
    options: TrainOptions, gates: Gates, script: Callable[[], None], patch: pytest.MonkeyPatch
) -> str:
    """Train with gates while `script` runs, and return the messages on standard error."""
    patch.setattr("jobs.training.worker.loop.train_worker", gates.entry())
    errors: list[BaseException] = []

    def training() -> None:
        try:
            train(options)
        except BaseException as error:
            errors.append(error)

    # Nodes must be started from the main thread. The training runs in a daemon thread, so that the
    # test ends if the script fails.
    thread = threading.Thread(target=training, daemon=True)
    with redirect_stderr(io.StringIO()) as said:
        thread.start()
        script()
        thread.join(timeout=600)
    if errors:
        raise errors[0]
    assert not thread.is_alive(), said.getvalue()
    return said.getvalue()


def column(run_uri: str, field: str) -> list[Any]:
    """Return one field of the record of every step."""
    return [record[field] for record in run_folder.read_history(run_uri)]


@pytest.mark.usefixtures("nodes")
def test_a_local_path_is_refused_on_several_nodes_unless_declared_shared(
    options: TrainOptions,
) -> None:
    with pytest.raises(UsageError, match="local path, but the cluster has up to 2 nodes"):
        train(dataclasses.replace(options, shared_paths=False))


@pytest.mark.usefixtures("nodes")
def test_more_workers_than_the_cluster_has_room_for_are_refused(options: TrainOptions) -> None:
    with pytest.raises(UsageError, match=r"3 x 1 CPU, .* room for 2 "):
        train(dataclasses.replace(options, workers=3))


def test_one_worker_goes_on_when_a_node_dies_and_two_when_one_comes_back(
    nodes: Nodes,
    options: TrainOptions,
    finished_run: TrainOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gates = Gates(
        tmp_path / "gates", Gate(10, 2, "opened"), Gate(15, 1, "requested"), Gate(16, 1, "never")
    )

    def script() -> None:
        gates.wait_for(10, 2)
        wait_until(lambda: has_checkpoint(options.run, 6), "the first checkpoint", 300)
        nodes.kill()
        gates.wait_for(15, 1)
        nodes.add()

    said = play(dataclasses.replace(options, workers="1:2"), gates, script, monkeypatch)

    once, twice, alone = range(6), range(6, 10), range(6, 16)
    expected = [*((step, 2) for step in (*once, *twice)), *((step, 1) for step in alone)]
    assert gates.trained() == [*expected, *((step, 2) for step in range(16, 48))]
    assert column(options.run, "workers") == [2] * 6 + [1] * 10 + [2] * 32
    assert column(options.run, "windows") == column(finished_run.run, "windows")
    np.testing.assert_allclose(losses(options.run), losses(finished_run.run), rtol=1e-9)
    assert "failure 1 of at most 1: worker " in said
    assert "training from step 6 on 1 worker(s)" in said
    assert "room for 2 worker(s): going on with so many after a checkpoint" in said
    assert "training from step 16 on 2 worker(s)" in said


def test_a_killed_node_and_one_taken_after_a_notice_leave_the_curve_the_same_bit_for_bit(
    nodes: Nodes,
    options: TrainOptions,
    finished_run: TrainOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gates = Gates(
        tmp_path / "gates",
        *(Gate(10, 2, "opened"), Gate(15, 2, "preempted")),
        *(Gate(16, 2, "requested"), Gate(17, 2, "opened")),
    )

    def script() -> None:
        gates.wait_for(10, 2)
        wait_until(lambda: has_checkpoint(options.run, 6), "the first checkpoint", 300)
        nodes.replace()
        gates.open(10)
        gates.wait_for(15, 2)
        nodes.drain()
        wait_until(lambda: has_checkpoint(options.run, 17), "the last call", 300)
        nodes.replace()
        gates.open(17)

    said = play(options, gates, script, monkeypatch)

    assert losses(options.run) == losses(finished_run.run)
    assert column(options.run, "windows") == column(finished_run.run, "windows")
    steps = [checkpoint.step for checkpoint in checkpoints.list_checkpoints(options.run)]
    assert steps == sorted({*range(6, 49, 6), 16, 17}), "one at the notice and one before the end"
    trained = [step for step, _ in gates.trained()]
    assert trained.count(17) <= 2  # twice if the node ended during this step
    assert (trained.count(15), trained.count(16)) == (1, 1)
    assert said.count("failure 1 of at most 1: worker ") == 1
    assert "is to be taken away in" in said
    assert "a node is gone as announced (it was taken away): no failure counted" in said
    assert "training from step 17 on 2 worker(s)" in said
