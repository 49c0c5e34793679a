"""A store's climatology, kept beside its shards: made once, and again when the shards change.

It is one object, ``.climatology/<variables>.npz``, which knows the shards that it was made of by
their sizes and versions: after a repair, an append or a copy of the store it is made anew. It can
be removed at any time.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Sequence

import numpy as np

from pipelines.errors import PlatformError
from pipelines.inputs.climatology import SMOOTHING_DAYS, Climatology, climatology
from pipelines.storage import places
from pipelines.stores.store import Store

FOLDER = ".climatology"

_log = logging.getLogger(__name__)
_VERSION = 1
"""of how a climatology is made; another one makes all of them anew"""


def kept_climatology(
    store: Store, variables: Sequence[str], most_bytes: int | None = None
) -> Climatology:
    """The climatology of a store's train period, from beside the store where it is sound.

    What was made of other shards, another period or another version is made again and replaced.
    Where nothing can be written beside the store it is made and not kept, and a line says so.
    Parameters are those of :func:`pipelines.inputs.climatology.climatology`.

    Raises
    ------
    UsageError, StoreError
        As :func:`pipelines.inputs.climatology.climatology`.
    """
    place = places.join(store.uri, FOLDER, f"{_name(variables)}.npz")
    source = _source(store, variables)
    kept = _read(place, source)
    if kept is not None and (most_bytes is None or kept.table.nbytes <= most_bytes):
        return kept
    made = climatology(store, variables, most_bytes)
    try:
        places.write_bytes(place, _to_bytes(made, source))
    except (OSError, PlatformError) as error:
        _log.warning("the climatology is not kept beside the store: %s", error)
    return made


def _name(variables: Sequence[str]) -> str:
    """A file name of bounded length; the content says the rest.

    >>> _name(["t2m", "z"])
    't2m-z-afc16ab5'
    """
    names = "-".join(variables)
    return f"{names[:60]}-{hashlib.sha256(json.dumps(list(variables)).encode()).hexdigest()[:8]}"


def _source(store: Store, variables: Sequence[str]) -> str:
    """A digest of all that a climatology depends on."""
    shards = [[name, *shard] for name in variables for shard in _shards(store, name)]
    period = [str(moment) for moment in store.splits.get("train", ())]
    times = np.ascontiguousarray(store.times.astype("datetime64[s]").astype(np.int64))
    digest = hashlib.sha256(times.tobytes() + np.ascontiguousarray(store.available).tobytes())
    facts = [_VERSION, SMOOTHING_DAYS, list(variables), period, digest.hexdigest(), shards]
    facts += [str(store.attributes["archive"]), str(store.cadence)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _shards(store: Store, name: str) -> list[tuple[str, int, str]]:
    """Place, size and version of each shard of a variable."""
    found = places.objects(places.join(store.uri, name, "c"))
    return [(place, info["size"], places.etag(info)) for place, info in found.items()]


def _to_bytes(made: Climatology, source: str) -> bytes:
    about = {**made.as_dict(), "source": source}
    content = io.BytesIO()
    np.savez(content, table=made.table, about=np.array(json.dumps(about)))
    return content.getvalue()


def _read(place: str, source: str) -> Climatology | None:
    """What stands there, if it was made of this source and is whole: zip files have checksums."""
    try:
        content = places.read_bytes(place)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            if about["source"] != source:
                return None
            known = about["cycle"], about["slot_seconds"], about["definition"]
            return Climatology(file["table"], *known)
    except Exception:  # NumPy, zip files and tokens of a header have errors of their own
        _log.warning("%s is damaged: the climatology is made again", place)
        return None
