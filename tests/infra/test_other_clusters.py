"""`ray up` accepts the cluster files for Google Cloud and for machines that the user owns."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.infra.test_ray_cluster import check

FILES = ["ray_cluster.yaml", "infra/gcp_cluster.yaml", "infra/local_cluster.yaml"]


def load(file: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / file).read_text())


@pytest.mark.parametrize(
    ("file", "provider"), zip(FILES, ["aws", "gcp", "local"], strict=True), ids=FILES
)
def test_ray_accepts_the_file(file: str, provider: str) -> None:
    assert check(load(file))["provider"]["type"] == provider


@pytest.mark.parametrize("file", FILES)
def test_the_dashboard_stays_on_the_head_and_every_node_wants_the_token(file: str) -> None:
    config = load(file)
    commands = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    starts = [command for command in commands if "ray start" in command]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert "0.0.0.0" not in (ROOT / file).read_text()
    (token,) = [place for place in config["file_mounts"] if place.endswith(".ray/auth_token")]
    assert config["file_mounts"][token] == "~/.ray/auth_token"


@pytest.mark.parametrize("file", FILES)
def test_nodes_install_the_project_with_its_constraints(file: str) -> None:
    installs = [command for command in load(file)["setup_commands"] if "--editable" in command]
    assert len(installs) == 1
    assert "/constraints.txt" in installs[0]


def test_google_cloud_has_the_groups_of_aws_on_spot_machines() -> None:
    amazon, google = load(FILES[0]), load(FILES[1])
    groups = google["available_node_types"]
    assert groups.keys() == amazon["available_node_types"].keys()
    for name, group in groups.items():
        assert group["resources"] == amazon["available_node_types"][name]["resources"]
        spot = group["node_config"].get("scheduling", {}).get("provisioningModel")
        assert spot == (None if name == google["head_node_type"] else "SPOT")
        assert group["min_workers"] == 0
    assert google["docker"]["image"] == amazon["docker"]["image"]


def test_machines_of_ones_own_are_all_used() -> None:
    config = load(FILES[2])
    assert config["min_workers"] == config["max_workers"] == len(config["provider"]["worker_ips"])
