"""Joining a Ray cluster that is named."""

from __future__ import annotations

import socket

import pytest

from pipelines.errors import UsageError
from pipelines.ray_session import ray_session


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_an_address_where_no_cluster_is_says_so(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"{scheme}127.0.0.1:{free_port()}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UsageError, match="no Ray cluster at RAY_ADDRESS") as refused, ray_session():
        pass
    assert refused.value.where == address
