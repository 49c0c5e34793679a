"""The Kubernetes manifests have fields that the operator knows, limits, and token authentication.

The operator's own schema is not available offline. The schema below has the fields that these
manifests use, with their types in `ray.io/v1` and in the core of Kubernetes, and the further rules
of the operator. It refuses every unknown field, so that it finds misspelt ones.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import pytest
import yaml

from tests.conftest import ROOT

FOLDER = ROOT / "infra" / "kuberay"


def closed(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the JSON schema of an object with these fields and no others."""
    return {
        "type": "object",
        "properties": required | (optional or {}),
        "required": list(required),
        "additionalProperties": False,
    }


def some(items: dict[str, Any], most: int = 20) -> dict[str, Any]:
    """Return the JSON schema of a list of 1 to `most` items."""
    return {"type": "array", "items": items, "minItems": 1, "maxItems": most}


def word(pattern: str, most: int = 253) -> dict[str, Any]:
    """Return the JSON schema of a string that matches a pattern from its start to its end."""
    return {"type": "string", "pattern": f"^({pattern})$", "maxLength": most}


TEXT = {"type": "string", "minLength": 1}
COUNT = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
LABEL = word("[a-z0-9]([-a-z0-9]*[a-z0-9])?", 63)
# The operator derives longer names of services and pods from these names, hence the lower limit.
NAME = word("[a-z]([-a-z0-9]*[a-z0-9])?", 47)
LABELS = {
    "type": "object",
    "propertyNames": {"pattern": "^app.kubernetes.io/(name|part-of|component)$"},
    "additionalProperties": LABEL,
}
METADATA = closed({"name": NAME}, {"labels": LABELS})
AMOUNTS = closed(
    {"cpu": word("[1-9][0-9]*m?"), "memory": word("[1-9][0-9]*[MG]i")},
    {"nvidia.com/gpu": word("[1-9]")},
)
RESOURCES = closed({"requests": AMOUNTS, "limits": AMOUNTS})
PORT = closed({"containerPort": COUNT | {"minimum": 1, "maximum": 65535}, "name": LABEL})
SECRET = closed({"secretRef": closed({"name": LABEL, "optional": {"type": "boolean"}})})
CONTAINER = closed(
    {
        "name": LABEL,
        "image": word(r"[a-z0-9./-]+:[0-9]+(\.[0-9]+)*"),
        "resources": RESOURCES,
        "envFrom": some(SECRET),
    },
    {
        "ports": some(PORT),
        "volumeMounts": some(closed({"name": LABEL, "mountPath": word("/[a-z/]+")})),
    },
)
TOLERATION = closed(
    {
        "key": {"const": "nvidia.com/gpu"},
        "operator": {"enum": ["Exists"]},
        "effect": {"enum": ["NoSchedule"]},
    }
)
MEMORY = closed({"medium": {"const": "Memory"}, "sizeLimit": word("[1-9][0-9]*[MG]i")})
POD = closed(
    {
        "serviceAccountName": LABEL,
        "securityContext": closed({"runAsNonRoot": {"const": True}, "runAsUser": {"const": 1000}}),
        "containers": some(CONTAINER, most=1),
    },
    {
        "tolerations": some(TOLERATION),
        "volumes": some(closed({"name": LABEL, "emptyDir": MEMORY})),
        "terminationGracePeriodSeconds": COUNT,
    },
)
TEMPLATE = closed({"spec": POD})
# The options of `ray start`, without dashes, as a map of strings.
PARAMETERS = {
    "type": "object",
    "propertyNames": {"enum": ["num-cpus"]},
    "additionalProperties": word("[0-9]+"),
}
GROUP = closed(
    {
        "groupName": NAME,
        "replicas": COUNT,
        "minReplicas": COUNT,
        "maxReplicas": COUNT,
        "rayStartParams": PARAMETERS,
        "template": TEMPLATE,
    }
)
CLUSTER_SPEC = closed(
    {
        "rayVersion": word(r"[0-9]+\.[0-9]+\.[0-9]+"),
        "authOptions": closed({"mode": {"const": "token"}}),
        "enableInTreeAutoscaling": {"const": True},
        "autoscalerOptions": closed(
            {
                "version": {"const": "v2"},
                "resources": RESOURCES,
                "idleTimeoutSeconds": COUNT | {"minimum": 60},
                "upscalingMode": {"enum": ["Default", "Aggressive", "Conservative"]},
            }
        ),
        "headGroupSpec": closed({"rayStartParams": PARAMETERS, "template": TEMPLATE}),
        "workerGroupSpecs": some(GROUP),
    }
)
JOB_SPEC = closed(
    {
        "entrypoint": TEXT,
        # The fourth mode, InteractiveMode, submits no job and does not accept backoffLimit.
        "submissionMode": {"enum": ["K8sJobMode", "HTTPMode", "SidecarMode"]},
        "backoffLimit": COUNT,
        "shutdownAfterJobFinishes": {"const": True},
        "ttlSecondsAfterFinished": COUNT,
        "rayClusterSpec": CLUSTER_SPEC,
    }
)


def manifest(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of a manifest."""
    head = {"apiVersion": {"const": "ray.io/v1"}, "kind": {"const": kind}}
    return closed(head | {"metadata": METADATA, "spec": spec})


SCHEMAS = {
    "cluster.yaml": manifest("RayCluster", CLUSTER_SPEC),
    "train-job.yaml": manifest("RayJob", JOB_SPEC),
}


class Strict(yaml.SafeLoader):
    """A YAML loader that refuses duplicate keys, as the API server does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"twice: {twice}", node.start_mark)
        return super().construct_mapping(node, deep)


def fits(document: Any, name: str) -> bool:
    """Return whether the schema for the file `name` accepts a manifest."""
    return jsonschema.Draft202012Validator(SCHEMAS[name]).is_valid(document)


def load(name: str) -> dict[str, Any]:
    return yaml.load((FOLDER / name).read_text(), Loader=Strict)  # safe: Strict is a SafeLoader


@pytest.fixture
def cluster() -> dict[str, Any]:
    """Return the specification of the RayCluster."""
    return load("cluster.yaml")["spec"]


def pods(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield spec["headGroupSpec"]["template"]["spec"]
    for group in spec["workerGroupSpecs"]:
        yield group["template"]["spec"]


def test_every_manifest_fits_its_schema() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(SCHEMAS)
    for name, schema in SCHEMAS.items():
        jsonschema.validate(load(name), schema)


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every field and item of a manifest."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def changed(document: Any, path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Any:
    """Return a copy of a manifest in which `change(parent, key)` changed the item at `path`."""
    copied = parent = copy.deepcopy(document)
    for key in path[:-1]:
        parent = parent[key]
    change(parent, path[-1])
    return copied


def _misspell(parent: dict[str, Any], key: str) -> None:
    parent[f"{key[:-1]}{'y' if key[-1] == 'x' else 'x'}"] = parent.pop(key)


def _double_a_letter(parent: dict[str, Any], key: str) -> None:
    parent[key[:3] + key[2:]] = parent.pop(key)


def _give_another_type(parent: Any, key: Any) -> None:
    value = parent[key]
    swapped = {str: 1, int: str(value), bool: str(value), dict: [value], list: {"0": value}}
    parent[key] = swapped[type(value)]


def _give_nothing(parent: Any, key: Any) -> None:
    parent[key] = None


@pytest.mark.parametrize("name", SCHEMAS)
def test_no_misspelt_field_and_no_value_of_another_type_passes(name: str) -> None:
    document = load(name)
    paths = list(places(document))
    assert len(paths) > 100
    passed = [
        (change.__name__, path)
        for path in paths
        for change in (_misspell, _double_a_letter, _give_another_type, _give_nothing)
        if not (isinstance(path[-1], int) and change in (_misspell, _double_a_letter))
        and fits(changed(document, path, change), name)
    ]
    assert passed == []


def test_a_field_that_stands_twice_does_not_pass() -> None:
    with pytest.raises(yaml.YAMLError, match=r"twice: .*replicas"):
        yaml.load("spec: {replicas: 1, groupName: a, replicas: 2}", Loader=Strict)


def _no_limits(spec: dict[str, Any]) -> None:
    del spec["headGroupSpec"]["template"]["spec"]["containers"][0]["resources"]["limits"]


def _open_door(spec: dict[str, Any]) -> None:
    spec["authOptions"]["mode"] = "disabled"


def _root(spec: dict[str, Any]) -> None:
    spec["headGroupSpec"]["template"]["spec"]["securityContext"]["runAsNonRoot"] = False


def _restarted_pods(spec: dict[str, Any]) -> None:
    """Let pods be restarted in place, which version 2 of the autoscaler does not support."""
    spec["workerGroupSpecs"][0]["template"]["spec"]["restartPolicy"] = "Always"


def _resources_said_twice(spec: dict[str, Any]) -> None:
    """Set resources twice: the operator takes rayStartParams or `resources`, but not both."""
    spec["headGroupSpec"]["resources"] = {"CPU": "0"}


def _number_for_text(spec: dict[str, Any]) -> None:
    spec["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0


BREAKS = [_no_limits, _open_door, _root, _restarted_pods, _resources_said_twice, _number_for_text]


@pytest.mark.parametrize("break_it", BREAKS)
def test_a_broken_manifest_does_not_fit(break_it: Callable[[dict[str, Any]], None]) -> None:
    broken = copy.deepcopy(load("cluster.yaml"))
    assert fits(broken, "cluster.yaml")
    break_it(broken["spec"])
    assert not fits(broken, "cluster.yaml")


def test_what_is_mounted_is_a_volume_of_the_pod_and_names_are_used_once(
    cluster: dict[str, Any],
) -> None:
    groups = [group["groupName"] for group in cluster["workerGroupSpecs"]]
    assert len(groups) == len(set(groups))
    for pod in pods(cluster):
        (container,) = pod["containers"]
        volumes = [volume["name"] for volume in pod.get("volumes", [])]
        assert [mount["name"] for mount in container.get("volumeMounts", [])] == volumes
        ports = container.get("ports", [])
        for key in ("name", "containerPort"):
            assert len({port[key] for port in ports}) == len(ports)


def test_parameters_of_ray_start_are_ones_that_it_has(cluster: dict[str, Any]) -> None:
    from ray.scripts.scripts import start

    known = {option.removeprefix("--") for item in start.params for option in item.opts}
    assert "num-cpus" in known
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert set(group["rayStartParams"]) <= known


def test_ray_knows_the_token_mode(cluster: dict[str, Any]) -> None:
    """The operator refuses the token mode for versions of Ray before 2.52."""
    major, minor, _ = map(int, cluster["rayVersion"].split("."))
    assert (major, minor) >= (2, 52)


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
        assert group["template"]["spec"]["terminationGracePeriodSeconds"] >= 30
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
