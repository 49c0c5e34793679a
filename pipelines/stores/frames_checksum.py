"""Whether some frames of a store are those of before, without reading a value of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipelines.stores.ledger import Ledger

if TYPE_CHECKING:
    from pipelines.stores.store import Store


def frames_checksum(store: Store, variables: Sequence[str], frames: np.ndarray) -> str | None:
    """sha256 of the moments that the ledger has of these frames: other frames have others.

    A shard that is written again with more frames keeps the moments of the old ones, so that an
    append changes nothing here.

    Parameters
    ----------
    frames:
        int64 (n,) frames of the store, ascending.

    Returns
    -------
    str or None
        None where the ledger does not know all of the frames, as beside a store that was copied
        without it.
    """
    digest, ledger = hashlib.sha256(), Ledger(store.uri)
    for name in variables:
        of_frames = frames // store.variables[name].shard_frames
        shards = np.unique(of_frames).tolist()
        found = 0
        for record in ledger.read(name, shards):
            rows = frames[of_frames == record.shard] - record.start
            if rows[-1] >= len(record.moments):
                return None
            digest.update(np.ascontiguousarray(record.moments[rows]).tobytes())
            found += 1
        if found < len(shards):
            return None
    return digest.hexdigest()
