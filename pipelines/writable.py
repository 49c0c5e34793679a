"""Whether a store's place can be written, asked before any work; what a killed run left."""

from __future__ import annotations

import os
import uuid

from pipelines import uri as places
from pipelines.errors import UsageError
from pipelines.ledger import FOLDER

_REMEDY = "give a --store that this user may write to"


def check_writable(store: str) -> None:
    """UsageError where nothing can be written at ``store``; leaves nothing behind."""
    if places.is_local(store):
        _check_local(places.local_path(store), store)
        return
    probe = places.join(store, FOLDER, f"probe-{uuid.uuid4().hex}")
    try:
        places.write_bytes(probe, b"")
        places.delete(probe)
    except Exception as error:
        raise UsageError(
            f"the store cannot be written: {type(error).__name__}: {error}",
            where=store,
            remedy="check the bucket's name, AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, and the permissions",
        ) from None


def _check_local(path: str, store: str) -> None:
    existing = path
    while not os.path.lexists(existing):
        existing = os.path.dirname(existing)
    if not os.path.isdir(existing):
        raise UsageError(
            "the store cannot be written: a file stands where a folder is needed",
            where=f"{store} ({existing} is no folder)",
            remedy=_REMEDY,
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UsageError(
            "the store cannot be written: permission denied", where=existing, remedy=_REMEDY
        )
    entries = set(os.listdir(path)) if existing == path else set()
    if entries and not entries & {"zarr.json", FOLDER}:
        raise UsageError(
            "the folder holds something else than a store",
            where=store,
            remedy="give an empty or new folder as --store",
        )


def sweep_partial(store: str) -> None:
    """Remove the unfinished files of a run that was killed; the store's lease must be held."""
    if not places.is_local(store):
        return
    for folder, _, names in os.walk(places.local_path(store)):
        for name in names:
            if name.endswith(".partial"):
                os.unlink(os.path.join(folder, name))
