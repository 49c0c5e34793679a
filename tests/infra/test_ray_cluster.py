"""`ray up` accepts the cluster file, and Ray's own check refuses broken ones."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT


@pytest.fixture
def cluster() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())


def check(config: dict[str, Any]) -> dict[str, Any]:
    """Check and complete a cluster file as `ray up` does before its first request to the cloud."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def test_ray_accepts_the_cluster_file(cluster: dict[str, Any]) -> None:
    prepared = check(cluster)
    assert prepared["provider"]["type"] == "aws"
    assert prepared["idle_timeout_minutes"] == 5


def test_both_worker_groups_are_spot_instances_that_start_at_zero(cluster: dict[str, Any]) -> None:
    groups = dict(cluster["available_node_types"])
    head = groups.pop(cluster["head_node_type"])
    assert head["resources"] == {"CPU": 0}
    assert {name: group["resources"].get("GPU", 0) for name, group in groups.items()} == {
        "reprocess_cpu": 0,
        "train_gpu": 1,
    }
    for group in groups.values():
        assert group["min_workers"] == 0 < group["max_workers"]
        assert group["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}


def test_nodes_install_the_project_with_its_constraints(cluster: dict[str, Any]) -> None:
    constraints = (ROOT / "constraints.txt").read_text().splitlines()
    ray_version = next(line for line in constraints if line.startswith("ray==")).split("==")[1]
    assert cluster["docker"]["image"].startswith(f"rayproject/ray:{ray_version}-")
    (mounted,) = [place for place, source in cluster["file_mounts"].items() if source == "."]
    installs = [command for command in cluster["setup_commands"] if "--editable" in command]
    assert len(installs) == 1
    assert mounted in installs[0]
    assert f"{mounted}/constraints.txt" in installs[0]


def test_no_port_is_opened_and_every_node_wants_the_token(cluster: dict[str, Any]) -> None:
    commands = cluster["head_start_ray_commands"] + cluster["worker_start_ray_commands"]
    starts = [command for command in commands if "ray start" in command]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert cluster["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    assert "dashboard-host=127.0.0.1" in starts[0]
    assert "0.0.0.0" not in (ROOT / "ray_cluster.yaml").read_text()


def _misspelt_key(config: dict[str, Any]) -> None:
    config["idle_timeout_minute"] = config.pop("idle_timeout_minutes")


def _misspelt_group_key(config: dict[str, Any]) -> None:
    config["available_node_types"]["train_gpu"]["min_worker"] = 0


def _more_least_than_most(config: dict[str, Any]) -> None:
    config["available_node_types"]["train_gpu"]["min_workers"] = 25


def _head_that_is_not_there(config: dict[str, Any]) -> None:
    config["head_node_type"] = "heads"


@pytest.mark.parametrize(
    ("break_it", "complaint"),
    [
        (_misspelt_key, "idle_timeout_minute"),
        (_misspelt_group_key, "min_worker"),
        (_more_least_than_most, "max_workers"),
        (_head_that_is_not_there, "head_node_type"),
    ],
)
def test_a_broken_cluster_file_is_refused(
    cluster: dict[str, Any], break_it: Callable[[dict[str, Any]], None], complaint: str
) -> None:
    break_it(cluster)
    with pytest.raises(Exception, match=complaint):
        check(cluster)
