"""The policy for one bucket grants all that the platform does there, and nothing more."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from pipelines.archives.sources.finding import find_files
from pipelines.errors import PlatformError
from pipelines.storage import lease, places
from pipelines.storage.writable import check_writable
from tests.conftest import ROOT
from tests.support.servers.moto_server import moto
from tests.support.servers.object_storage import S3Server, client_environment, in_environment

__all__ = ["moto"]

POLICY: dict[str, Any] = json.loads((ROOT / "infra" / "aws-bucket-policy.json").read_text())
BUCKET = "arn:aws:s3:::YOUR-BUCKET"


def test_it_grants_what_the_page_says_on_one_bucket() -> None:
    assert POLICY.keys() == {"Version", "Statement"}
    assert POLICY["Version"] == "2012-10-17"
    granted = {}
    for statement in POLICY["Statement"]:
        assert statement.keys() == {"Sid", "Effect", "Action", "Resource"}
        assert statement["Effect"] == "Allow"
        granted |= dict.fromkeys(statement["Action"], statement["Resource"])
    # The policy has actions on the bucket itself, and actions on the objects in it.
    assert granted == {
        "s3:ListBucket": BUCKET,
        "s3:GetObject": f"{BUCKET}/*",
        "s3:PutObject": f"{BUCKET}/*",
        "s3:DeleteObject": f"{BUCKET}/*",
        "s3:AbortMultipartUpload": f"{BUCKET}/*",
    }
    page = (ROOT / "docs" / "cluster.md").read_text()
    assert all(f"`{action}`" in page for action in granted)


@contextmanager
def someone_with(server: S3Server, policy: dict[str, Any], bucket: str) -> Iterator[None]:
    """Run the block as a user of the server who has only the permissions of a policy."""
    import uuid

    import botocore.session

    name = uuid.uuid4().hex
    iam = botocore.session.get_session().create_client(
        "iam", region_name="us-east-1", endpoint_url=server.endpoint
    )
    iam.create_user(UserName=name)
    text = json.dumps(policy).replace("YOUR-BUCKET", bucket.removeprefix("s3://"))
    iam.put_user_policy(UserName=name, PolicyName="bucket", PolicyDocument=text)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    with in_environment(
        client_environment(server.endpoint, key["AccessKeyId"], key["SecretAccessKey"])
    ):
        yield


def without(action: str) -> dict[str, Any]:
    """Return the policy without one action."""
    policy = copy.deepcopy(POLICY)
    for statement in policy["Statement"]:
        statement["Action"] = [item for item in statement["Action"] if item != action]
    policy["Statement"] = [item for item in policy["Statement"] if item["Action"]]
    assert policy != POLICY
    return policy


def everything(bucket: str) -> None:
    """Make every kind of request that conversions, trainings and forecasts make to a bucket."""
    check_writable(f"{bucket}/run", "run")
    content = np.random.default_rng(0).bytes(2**16)
    places.write_bytes(f"{bucket}/store/c/0", content)
    places.write_bytes(f"{bucket}/store/c/1", [content] * 1024)  # 64 MiB: uploaded in parts
    assert places.read_bytes(f"{bucket}/store/c/0") == content
    assert places.read_range(f"{bucket}/store/c/1", -16) == content[-16:]
    assert sorted(places.names(f"{bucket}/store/c")) == ["0", "1"]
    assert places.exists(f"{bucket}/store/c/0")
    with lease.hold(f"{bucket}/store", lambda line: None):
        places.delete(f"{bucket}/store/c/0")
    assert not places.exists(f"{bucket}/store/c/0")
    assert find_files(f"{bucket}/store/c", ("1",), "weatherbench")


def test_it_is_enough(moto: S3Server) -> None:
    bucket = moto.bucket()
    with someone_with(moto, POLICY, bucket):
        everything(bucket)


@pytest.mark.parametrize(
    "action", ["s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"]
)
def test_nothing_can_be_left_out(moto: S3Server, action: str) -> None:
    bucket = moto.bucket()
    with someone_with(moto, without(action), bucket), pytest.raises((PlatformError, OSError)):
        everything(bucket)


@pytest.mark.parametrize(
    "touch",
    [
        lambda uri: places.read_bytes(f"{uri}/there"),
        lambda uri: places.write_bytes(f"{uri}/new", b"x"),
        lambda uri: places.delete(f"{uri}/there"),
        lambda uri: places.names(uri),
    ],
    ids=["read", "write", "delete", "list"],
)
def test_another_bucket_stays_closed(moto: S3Server, touch: Callable[[str], object]) -> None:
    own, other = moto.bucket(), moto.bucket()
    places.write_bytes(f"{other}/there", b"content")
    with (
        someone_with(moto, POLICY, own),
        pytest.raises((PlatformError, OSError), match=r"(?i)denied|forbidden|refuse|permission"),
    ):
        touch(other)
    assert places.names(other) == ["there"]
