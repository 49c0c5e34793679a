"""Check that a place is writable before work begins, and remove partial files of killed runs."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable

from pipelines.errors import UsageError, reason
from pipelines.storage import places
from pipelines.storage.lease import LEDGER_FOLDER


def check_store_folder(store: str) -> None:
    """Raise UsageError if the folder cannot hold a store or the storage is read-only.

    An object storage is not written to: taking the lease, which happens before this check, shows
    that it is writable. `check_no_other_objects` then checks what is there.
    """
    if not places.is_local(store):
        if why := _read_only(store):
            raise _not_writable(store, "store", why)
        return
    check_writable(store, "store")
    path = places.local_path(store)
    entries = set(os.listdir(path)) if os.path.isdir(path) else set()
    if entries and not entries & {"zarr.json", LEDGER_FOLDER}:
        raise _not_a_store(store)


def check_no_other_objects(store: str, entries: Iterable[str], own: Iterable[str]) -> None:
    """Raise UsageError if a prefix of an object storage holds something other than a store.

    Parameters
    ----------
    store:
        URI of the prefix.
    entries:
        Names directly below the prefix, listed while the lease was taken.
    own:
        Names of arrays that an earlier run may have begun before it wrote its plan.
    """
    found = set(entries)
    if "zarr.json" not in found and found - {LEDGER_FOLDER} - set(own):
        raise _not_a_store(store)


def _not_a_store(store: str) -> UsageError:
    return UsageError(
        "the folder holds something other than a store",
        where=store,
        remedy="give an empty or new folder as --store",
    )


def check_writable(folder: str, what: str) -> None:
    """Check that files can be written to a folder. The check leaves nothing behind.

    Parameters
    ----------
    folder:
        URI of a folder, which may not exist yet.
    what:
        What is to be written there, which is also the name of the option: store, run, report.

    Raises
    ------
    UsageError
        A file is in the place of the folder, or the storage denies writing.
    """
    local = places.is_local(folder)
    why = _local_obstacle(places.local_path(folder)) if local else _remote_obstacle(folder)
    if why:
        raise _not_writable(folder, what, why)


def is_folder(file: str) -> bool:
    """Return whether a local folder is in the place of a file.

    False for an object storage, where a folder and an object of one name can exist side by side.
    """
    return places.is_local(file) and os.path.isdir(places.local_path(file))


def _not_writable(folder: str, what: str, why: str) -> UsageError:
    local = places.is_local(folder)
    return UsageError(
        f"the {what} cannot be written: {why}",
        where=folder,
        remedy=f"give a --{what} that you may write to" if local else places.CHECK_ACCESS,
    )


def _read_only(folder: str) -> str | None:
    if folder.startswith(("http://", "https://")):
        return "HTTP is read-only: give a local path, s3:// or gs://"
    return None


def _local_obstacle(path: str) -> str | None:
    """Return why nothing can be written below a local path, or None."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    if not os.path.isdir(path):
        return f"{path} is not a folder"
    return None if os.access(path, os.W_OK | os.X_OK) else f"no permission to write in {path}"


def _remote_obstacle(folder: str) -> str | None:
    """Return why nothing can be written below a remote URI, or None; write and remove a probe."""
    if why := _read_only(folder):
        return why
    probe = places.join(folder, f"probe-{uuid.uuid4().hex}")
    fs, path = places.filesystem(probe)
    try:
        fs.pipe_file(path, b"")
        fs.rm_file(path)
    except Exception as error:  # each storage driver has errors of its own
        return reason(error)
    return None


def sweep_partial(store: str) -> None:
    """Remove the unfinished files of a killed run. The caller must hold the store's lease."""
    if not places.is_local(store):
        return
    for folder, _, names in os.walk(places.local_path(store)):
        for name in names:
            if name.endswith(".partial"):
                os.unlink(os.path.join(folder, name))
