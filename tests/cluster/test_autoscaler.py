"""Jobs on the project's cluster file, with Ray's autoscaler and without a cloud.

The file is `ray_cluster.yaml` in the form that `ray up` copies to a head. Its provider is replaced
by one that starts nodes as processes of this machine, with one CPU each. The idle timeout is a few
seconds.
"""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.training.options import TrainOptions
from pipelines.stores.store import open_store
from tests.infra.test_ray_cluster import check
from tests.support.archives.archives_made_here import write_traffic
from tests.support.processes.ray_head import Head, finished, ray_head
from tests.support.processes.training_runs import (
    ROOT,
    losses,
    small_options,
    wait_until,
    write_config,
    write_untrained_run,
)

HEAD_ID = "f" * 51 + "00000"
HEAD_TYPE = "ray.head.default"
"""name and identifier of a head in the provider"""
ALONE = 120
"""seconds within which Ray's processes must end after the head has ended"""
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"


def as_on_the_head(control_service: str) -> dict[str, Any]:
    """Return the cluster file for this machine, with the file's node types, limits and speed."""
    prepared = check(yaml.safe_load((ROOT / "ray_cluster.yaml").read_text()))
    types = prepared["available_node_types"]
    assert {name: kind["resources"]["CPU"] for name, kind in types.items()} == {
        "head": 0,
        "reprocess_cpu": 16,
        "train_gpu": 8,
    }
    for kind in types.values():
        kind["node_config"] = {}
        kind["resources"] |= {"CPU": min(1, kind["resources"]["CPU"])}
        kind["resources"] |= {"object_store_memory": 100 * 1024**2}
    types[HEAD_TYPE] = types.pop(prepared["head_node_type"])
    commands = {key: [] for key in prepared if key.endswith("_commands")}
    provider = {
        "type": "external",
        "module": PROVIDER,
        "head_node_id": HEAD_ID,
        "gcs_address": control_service,
        "launch_multiple": True,
        "disable_node_updaters": True,
    }
    here = {"head_node_type": HEAD_TYPE, "provider": provider, "idle_timeout_minutes": 0.1}
    return prepared | commands | here | {"docker": {}, "auth": {}, "file_mounts": {}}


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """Start a head without CPUs and with the autoscaler."""

    def prepare(folder: Path, port: int) -> tuple[str, ...]:
        from ray.util import get_node_ip_address

        config = folder / "cluster.yaml"
        config.write_text(yaml.safe_dump(as_on_the_head(f"{get_node_ip_address()}:{port}")))
        return "--autoscaling-config", str(config)

    environment = {
        "RAY_enable_autoscaler_v2": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    }
    with ray_head("--num-cpus", "0", environment=environment, prepare=prepare) as head:
        yield head
        head.stop()
        assert head.family.end(ALONE) == []


def worker_nodes(head: Head) -> list[dict[str, Any]]:
    """Return each present or former node except the head: `state`, ALIVE or DEAD, and `labels`."""
    answer = head.ask("/api/v0/nodes?detail=true&limit=1000")
    nodes = answer["data"]["result"]["result"]
    return [node for node in nodes if not node["is_head_node"]]


def training(head: Head, options: TrainOptions, folder: Path) -> subprocess.Popen[str]:
    folder.mkdir()
    config = write_config(options, folder)
    return head.submit("python", "jobs/train_taxibj.py", "--config", config)


def are_gone(head: Head) -> bool:
    """Return whether the head is the only node."""
    return all(node["state"] == "DEAD" for node in worker_nodes(head))


def test_a_conversion_gets_its_nodes_and_says_what_it_waits_for(head: Head, tmp_path: Path) -> None:
    write_traffic(tmp_path / "archive")
    assert worker_nodes(head) == []
    command = ["python", "jobs/reprocess.py", "convert", "--archive", "taxibj"]
    command += ["--source", str(tmp_path / "archive"), "--store", str(tmp_path / "store.zarr")]
    command += ["--chunk_frames", "32", "--shard_frames", "32", "--shared_paths", "true"]
    code, output = finished(head.submit(*command, "--workers", "2"))
    assert code == 0, output
    assert "waiting for nodes: asks for 2 x 1 CPU, the cluster has 0 CPU on 1 node(s)" in output
    assert len(open_store(str(tmp_path / "store.zarr")).times) == 480
    assert worker_nodes(head), "the head has no processor"


def test_a_training_gets_its_nodes_and_they_go_when_it_has_ended(
    head: Head, traffic_store: str, tmp_path: Path
) -> None:
    wait_until(lambda: are_gone(head), "the idle nodes of another job to be ended")
    before = len(worker_nodes(head))
    options = small_options(traffic_store, str(tmp_path / "run"), shared_paths=True)
    once = dataclasses.replace(options.training, epochs=1)
    options = dataclasses.replace(options, training=once)
    code, output = finished(training(head, options, tmp_path / "fits"))
    assert code == 0, output
    line = next(line for line in output.splitlines() if line.startswith("waiting for nodes"))
    assert "asks for 2 x 1 CPU, the cluster has 0 CPU on 1 node(s)" in line
    assert "trained 1 epochs" in output
    assert len(losses(options.run)) == 24
    nodes = worker_nodes(head)
    assert len(nodes) - before >= 2, (
        "two workers of one CPU each cannot have run on one node of one CPU"
    )
    assert not [node for node in nodes if "GPU" in node["resources_total"]], nodes

    # A training ends at once if a worker fits on no node, or if it exceeds the limits of the file.
    larger = dataclasses.replace(options, run=str(tmp_path / "larger"), cpus_per_worker=2)
    many = dataclasses.replace(options.training, global_batch=30)
    more = dataclasses.replace(options, run=str(tmp_path / "more"), workers=25, training=many)
    jobs = [training(head, larger, tmp_path / "a"), training(head, more, tmp_path / "b")]
    for job, asked in zip(jobs, ("2 x 2 CPU", "25 x 1 CPU"), strict=True):
        code, output = finished(job)
        assert code == 1, output
        assert f"error: the job asks for {asked}, which the cluster has no room for" in output
        assert "exit code 2" in output
    assert not (tmp_path / "larger" / "run.json").exists()

    wait_until(lambda: are_gone(head), "the idle nodes to be ended")
    assert len(head.family.named("raylet/raylet")) == 1, "the head's own is left"


def test_an_evaluation_gets_its_nodes_as_well(
    head: Head, traffic_store: str, tmp_path: Path
) -> None:
    wait_until(lambda: are_gone(head), "the idle nodes of another job to be ended")
    options = small_options(traffic_store, str(tmp_path / "run"), shared_paths=True)
    write_untrained_run(options)
    command = ["python", "jobs/evaluate.py", "--checkpoint", options.run, "--store", traffic_store]
    command += ["--report", str(tmp_path / "report"), "--max_windows", "8", "--resamples", "0"]
    code, output = finished(head.submit(*command, "--workers", "2", "--shared_paths", "true"))
    assert code == 0, output
    assert "waiting for nodes: asks for" in output
    assert (tmp_path / "report" / "scores.json").exists()


def test_a_local_path_is_refused_where_nodes_come_and_go(
    head: Head, traffic_store: str, tmp_path: Path
) -> None:
    options = small_options(traffic_store, str(tmp_path / "run"))
    code, output = finished(training(head, options, tmp_path / "options"))
    assert code == 1, output
    assert "--store is a local path, but the cluster gets nodes from its autoscaler" in output
