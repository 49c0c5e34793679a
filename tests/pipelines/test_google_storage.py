"""``gs://``: its driver is an extra, and its places are named like those of any storage."""

from __future__ import annotations

import sys

import pytest

from pipelines import uri as places
from pipelines.errors import UsageError
from pipelines.patience import is_refusal, passes
from pipelines.store import open_store


def test_without_the_driver_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UsageError, match="no driver for 'gs://'") as refused:
        open_store("gs://bucket/store")
    assert refused.value.remedy == "pip install 'gmg-platform[gcs]'"


def test_places_are_joined_and_named_like_those_of_any_storage():
    assert places.absolute("gs://bucket/store/") == "gs://bucket/store"
    assert places.join("gs://bucket/store", "t2m", "zarr.json") == "gs://bucket/store/t2m/zarr.json"
    assert not places.is_local("gs://bucket/store")


def test_its_drivers_refusals_are_told_from_its_faults():
    retry = pytest.importorskip("gcsfs.retry")
    refusals = (OSError("Forbidden: bucket/object"), retry.HttpError({"code": 401}))
    for refusal in refusals:
        assert is_refusal(refusal)
        assert not passes(refusal)
    fault = retry.HttpError({"code": 503})
    assert not is_refusal(fault)
    assert passes(fault)
