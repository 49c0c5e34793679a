"""Count the windows of a store, and list them in a file."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np

from pipelines.errors import UsageError
from pipelines.storage import places
from pipelines.stores.store import Store
from pipelines.stream.windows import Counting, WindowSpec, split_starts

_ENDINGS = (".csv", ".json")


def window_counts(store: Store, spec: WindowSpec, counting: Counting = "every") -> dict[str, int]:
    """Return the number of windows in each split; 0 if none fits."""
    return {split: len(starts) for split, starts in _starts(store, spec, counting).items()}


def write_manifest(
    store: Store, spec: WindowSpec, target: str, counting: Counting = "every"
) -> dict[str, int]:
    """List every window of every split in a CSV or JSON file; return the number in each split.

    A line has the split, the first frame as an index into the store's frames, and the times of the
    first frame, the last input frame and the last frame; of clips their names and frames.

    Raises
    ------
    UsageError
        `target` ends in neither `.csv` nor `.json`.
    """
    ending = target[target.rfind(".") :].lower()
    if ending not in _ENDINGS:
        raise UsageError(
            f"the name of a manifest must end in {' or '.join(_ENDINGS)}",
            where=target,
            remedy=f"name it for example {target}.csv",
        )
    starts = _starts(store, spec, counting)
    rows = [
        {
            "split": split,
            "start": int(start),
            "first": store.label(int(start)),
            "last_input": store.label(int(start) + (spec.input_frames - 1) * spec.stride),
            "last": store.label(int(start) + spec.span - 1),
        }
        for split, found in starts.items()
        for start in found
    ]
    places.write_bytes(target, _as_csv(rows) if ending == ".csv" else _as_json(store, spec, rows))
    return {split: len(found) for split, found in starts.items()}


def _starts(store: Store, spec: WindowSpec, counting: Counting) -> dict[str, np.ndarray]:
    starts = {}
    for split in store.splits:
        try:
            starts[split] = split_starts(store, split, spec, counting)
        except UsageError:
            starts[split] = np.empty(0, np.int64)
    return starts


def _as_csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    names: list[str] = ["split", "start", "first", "last_input", "last"]
    table = csv.DictWriter(text, names, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue().encode()


def _as_json(store: Store, spec: WindowSpec, rows: list[dict[str, Any]]) -> bytes:
    window = {name: getattr(spec, name) for name in ("input_frames", "horizon", "stride")}
    record = {"store": store.uri, "statistics_fingerprint": store.fingerprint, "window": window}
    return json.dumps(record | {"windows": rows}, indent=1).encode()
