"""A second S3 server for tests: moto, which checks ranges, conditions and signatures.

moto needs another version of botocore than this project. It therefore has an environment of its
own, which is made once under `build`. Objects are kept in memory.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import Request, urlopen

import pytest

from tests.support.processes import shared_ray
from tests.support.servers.object_storage import S3Server, client_environment, in_environment
from tests.support.servers.own_environment import python_of

# The extra "server" would install four times as much, for services other than S3.
PACKAGES = ("moto[s3]", "flask", "flask-cors")
_EVERYTHING = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
}


@contextmanager
def serve_moto() -> Iterator[S3Server]:
    """Start an S3 server that refuses wrong keys, and name it in the environment variables."""
    shared_ray.end()
    python = str(python_of("moto", PACKAGES))
    server = S3Server([python, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"])
    try:
        server.start()
        server.environment = client_environment(server.endpoint, *_new_key(server))
        _check_keys(server)
        with in_environment(server.environment):
            yield server
    finally:
        shared_ray.end()
        server.stop()


@pytest.fixture(scope="module")
def moto() -> Iterator[S3Server]:
    """Return the server for a test module; import this fixture where it is used."""
    with serve_moto() as server:
        yield server


def _new_key(server: S3Server) -> tuple[str, str]:
    """Create and return a key with all permissions."""
    import botocore.session

    iam = botocore.session.get_session().create_client(
        "iam",
        region_name="us-east-1",
        endpoint_url=server.endpoint,
        aws_access_key_id="first",
        aws_secret_access_key=uuid.uuid4().hex,
    )
    iam.create_user(UserName="tester")
    policy = json.dumps(_EVERYTHING)
    iam.put_user_policy(UserName="tester", PolicyName="everything", PolicyDocument=policy)
    key = iam.create_access_key(UserName="tester")["AccessKey"]
    return key["AccessKeyId"], key["SecretAccessKey"]


def _check_keys(server: S3Server) -> None:
    """Make the server refuse requests that are not signed with one of its keys."""
    place = f"{server.endpoint}/moto-api/reset-auth"
    with urlopen(Request(place, b"0", {"Content-Type": "text/plain"})) as answer:
        assert answer.status == 200
