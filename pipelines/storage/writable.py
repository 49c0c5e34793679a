"""Whether a place can be written, asked before any work; what a killed run left."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable

from pipelines.errors import UsageError
from pipelines.storage import places
from pipelines.storage.lease import LEDGER_FOLDER


def check_store_folder(store: str) -> None:
    """UsageError where a local folder cannot hold a store, and for places that only give.

    An object storage is not asked: the lease, which comes first, says whether it takes anything,
    and :func:`check_no_other_objects` sees what is there.
    """
    if not places.is_local(store):
        if reason := _gives_only(store):
            raise _unwritable(store, "store", reason)
        return
    check_writable(store, "store")
    path = places.local_path(store)
    entries = set(os.listdir(path)) if os.path.isdir(path) else set()
    if entries and not entries & {"zarr.json", LEDGER_FOLDER}:
        raise _other(store)


def check_no_other_objects(store: str, entries: Iterable[str], own: Iterable[str]) -> None:
    """UsageError where a prefix of an object storage holds something else than a store.

    Parameters
    ----------
    entries:
        What is there, seen while the lease was taken.
    own:
        Arrays that a run may have begun before it could write its plan.
    """
    found = set(entries)
    if "zarr.json" not in found and found - {LEDGER_FOLDER} - set(own):
        raise _other(store)


def _other(store: str) -> UsageError:
    return UsageError(
        "the folder holds something else than a store",
        where=store,
        remedy="give an empty or new folder as --store",
    )


def check_writable(folder: str, what: str) -> None:
    """Refuse a folder that nothing can be written to; leaves nothing behind.

    Parameters
    ----------
    folder:
        URI of a folder that may not exist yet.
    what:
        What is to stand there, which is also the name of the option: store, run, report.

    Raises
    ------
    UsageError
        A file stands where a folder is needed, or the storage refuses.
    """
    local = places.is_local(folder)
    reason = _refusal_here(places.local_path(folder)) if local else _refusal(folder)
    if reason:
        raise _unwritable(folder, what, reason)


def is_folder(file: str) -> bool:
    """Whether a folder stands where a file is to go; an object storage has room for both."""
    return places.is_local(file) and os.path.isdir(places.local_path(file))


def _unwritable(folder: str, what: str, reason: str) -> UsageError:
    local = places.is_local(folder)
    return UsageError(
        f"the {what} cannot be written: {reason}",
        where=folder,
        remedy=f"give a --{what} that you may write to" if local else places.CHECK_ACCESS,
    )


def _gives_only(folder: str) -> str | None:
    if folder.startswith(("http://", "https://")):
        return "nothing can be written over HTTP: give a local path, s3:// or gs://"
    return None


def _refusal_here(path: str) -> str | None:
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    if not os.path.isdir(path):
        return f"{path} is no folder"
    return None if os.access(path, os.W_OK | os.X_OK) else f"no permission to write in {path}"


def _refusal(folder: str) -> str | None:
    if reason := _gives_only(folder):
        return reason
    probe = places.join(folder, f"probe-{uuid.uuid4().hex}")
    fs, path = places.filesystem(probe)
    try:
        fs.pipe_file(path, b"")
        fs.rm_file(path)
    except Exception as error:  # each storage driver has errors of its own
        return f"{type(error).__name__}: {error}"
    return None


def sweep_partial(store: str) -> None:
    """Remove the unfinished files of a run that was killed; the store's lease must be held."""
    if not places.is_local(store):
        return
    for folder, _, names in os.walk(places.local_path(store)):
        for name in names:
            if name.endswith(".partial"):
                os.unlink(os.path.join(folder, name))
