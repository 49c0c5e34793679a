"""The Kubernetes manifests: fields that the operator requires, limits, tokens, and no open door.

The operator's own schema is not at hand offline; what is checked here is the part of it that these
manifests use (RayCluster and RayJob of ray.io/v1), so a misspelt field is refused.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "infra" / "kuberay"


def closed(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    """A JSON schema of an object with these fields and no others."""
    return {
        "type": "object",
        "properties": required | (optional or {}),
        "required": list(required),
        "additionalProperties": False,
    }


TEXT = {"type": "string", "minLength": 1}
COUNT = {"type": "integer", "minimum": 0}
ANY = {"type": "object"}
LIST = {"type": "array", "minItems": 1}
METADATA = closed({"name": TEXT}, {"labels": ANY})
AMOUNTS = closed({"cpu": TEXT, "memory": TEXT}, {"nvidia.com/gpu": TEXT})
RESOURCES = closed({"requests": AMOUNTS, "limits": AMOUNTS})
CONTAINER = closed(
    {"name": TEXT, "image": TEXT, "resources": RESOURCES},
    {"envFrom": LIST, "ports": LIST, "volumeMounts": LIST},
)
POD = closed(
    {
        "serviceAccountName": TEXT,
        "securityContext": closed({"runAsNonRoot": {"const": True}, "runAsUser": COUNT}),
        "containers": {"type": "array", "items": CONTAINER, "minItems": 1, "maxItems": 1},
    },
    {"tolerations": LIST, "volumes": LIST, "terminationGracePeriodSeconds": COUNT},
)
TEMPLATE = closed({"spec": POD})
GROUP = closed(
    {
        "groupName": {"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$"},
        "replicas": COUNT,
        "minReplicas": COUNT,
        "maxReplicas": COUNT,
        "rayStartParams": ANY,
        "template": TEMPLATE,
    }
)
CLUSTER_SPEC = closed(
    {
        "rayVersion": TEXT,
        "authOptions": closed({"mode": {"const": "token"}}),
        "enableInTreeAutoscaling": {"const": True},
        "autoscalerOptions": closed(
            {"version": {"const": "v2"}, "resources": RESOURCES},
            {
                "idleTimeoutSeconds": COUNT,
                "upscalingMode": {"enum": ["Default", "Aggressive", "Conservative"]},
            },
        ),
        "headGroupSpec": closed({"rayStartParams": ANY, "template": TEMPLATE}),
        "workerGroupSpecs": {"type": "array", "items": GROUP, "minItems": 1},
    }
)
JOB_SPEC = closed(
    {
        "entrypoint": TEXT,
        "submissionMode": {"enum": ["K8sJobMode", "HTTPMode", "SidecarMode"]},
        "backoffLimit": COUNT,
        "shutdownAfterJobFinishes": {"const": True},
        "ttlSecondsAfterFinished": COUNT,
        "rayClusterSpec": CLUSTER_SPEC,
    }
)


def manifest(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Schema of a manifest."""
    head = {"apiVersion": {"const": "ray.io/v1"}, "kind": {"const": kind}}
    return closed(head | {"metadata": METADATA, "spec": spec})


SCHEMAS = {
    "cluster.yaml": manifest("RayCluster", CLUSTER_SPEC),
    "train-job.yaml": manifest("RayJob", JOB_SPEC),
}


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / name).read_text())


@pytest.fixture
def cluster() -> dict[str, Any]:
    """The RayCluster's specification."""
    return load("cluster.yaml")["spec"]


def pods(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield spec["headGroupSpec"]["template"]["spec"]
    for group in spec["workerGroupSpecs"]:
        yield group["template"]["spec"]


def test_every_manifest_fits_its_schema() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(SCHEMAS)
    for name, schema in SCHEMAS.items():
        jsonschema.validate(load(name), schema)


def _misspelt(spec: dict[str, Any]) -> None:
    spec["workerGroupSpecs"][0]["minReplica"] = spec["workerGroupSpecs"][0].pop("minReplicas")


def _no_limits(spec: dict[str, Any]) -> None:
    del spec["headGroupSpec"]["template"]["spec"]["containers"][0]["resources"]["limits"]


def _open_door(spec: dict[str, Any]) -> None:
    spec["authOptions"]["mode"] = "disabled"


def _root(spec: dict[str, Any]) -> None:
    spec["headGroupSpec"]["template"]["spec"]["securityContext"]["runAsNonRoot"] = False


@pytest.mark.parametrize("break_it", [_misspelt, _no_limits, _open_door, _root])
def test_a_broken_manifest_does_not_fit(break_it: Callable[[dict[str, Any]], None]) -> None:
    broken = copy.deepcopy(load("cluster.yaml"))
    break_it(broken["spec"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, SCHEMAS["cluster.yaml"])


def test_the_job_starts_the_cluster_that_stands_in_the_other_file(cluster: dict[str, Any]) -> None:
    assert load("train-job.yaml")["spec"]["rayClusterSpec"] == cluster


def test_containers_ask_for_exactly_what_they_may_use(cluster: dict[str, Any]) -> None:
    for pod in pods(cluster):
        resources = pod["containers"][0]["resources"]
        assert resources["requests"] == resources["limits"]


def test_groups_scale_from_zero_and_the_head_computes_nothing(cluster: dict[str, Any]) -> None:
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    assert set(groups) == {"reprocess-cpu", "train-gpu"}
    for group in groups.values():
        assert group["minReplicas"] == group["replicas"] == 0 < group["maxReplicas"]
    asked = {
        name: group["template"]["spec"]["containers"][0]["resources"]["limits"]
        for name, group in groups.items()
    }
    assert "nvidia.com/gpu" not in asked["reprocess-cpu"]
    assert asked["train-gpu"]["nvidia.com/gpu"] == "1"
    assert cluster["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}


def test_the_jobs_workers_fit_on_their_nodes(cluster: dict[str, Any]) -> None:
    words = load("train-job.yaml")["spec"]["entrypoint"].split()
    workers, cpus = (
        int(words[words.index(name) + 1]) for name in ("--workers", "--cpus_per_worker")
    )
    (group,) = [item for item in cluster["workerGroupSpecs"] if item["groupName"] == "train-gpu"]
    assert workers <= group["maxReplicas"]
    assert cpus <= int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    assert (ROOT / words[1]).exists()


def test_the_ray_version_is_the_one_that_is_installed(cluster: dict[str, Any]) -> None:
    assert f"ray=={cluster['rayVersion']}" in (ROOT / "constraints.txt").read_text().splitlines()


def test_the_page_on_clusters_names_the_files_and_the_groups(cluster: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "cluster.md").read_text()
    for name in ("gcp_cluster.yaml", "local_cluster.yaml", "Dockerfile", "gcs-permissions.md"):
        assert (ROOT / "infra" / name).exists()
        assert f"infra/{name}" in page
    for name in SCHEMAS:
        assert f"infra/kuberay/{name}" in page
    for group in cluster["workerGroupSpecs"]:
        assert f"`{group['groupName']}`" in page
