"""Joining the Ray cluster that RAY_ADDRESS names."""

from __future__ import annotations

import pytest

from pipelines.cluster.session import ray_session
from pipelines.errors import UsageError
from tests.support.processes import shared_ray
from tests.support.processes.processes import nobody_listens


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_an_address_without_a_cluster_raises_an_error(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared_ray.end()
    with nobody_listens() as port:
        address = f"{scheme}127.0.0.1:{port}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with (
            pytest.raises(UsageError, match="no Ray cluster at RAY_ADDRESS") as raised,
            ray_session(),
        ):
            pass
    assert raised.value.where == address
