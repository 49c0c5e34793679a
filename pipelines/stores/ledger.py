"""The ledger of a store: one record per shard, written after the shard itself.

Resuming, appending, filling gaps, statistics and verification all work from these records. They lie
in `<store>/.ledger/<variable>/<shard>.json`, where Zarr readers do not look.
"""

from __future__ import annotations

import base64
import datetime
import json
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from pipelines.errors import StoreError
from pipelines.storage import places
from pipelines.storage.lease import LEDGER_FOLDER

PLAN = "plan.json"
_AT_A_TIME = 32
"""records that are read at once: bounds the memory that a long ledger takes"""


@dataclass(frozen=True, eq=False)
class ShardRecord:
    """What is known about one shard that was written."""

    variable: str
    shard: int
    start: int
    stop: int
    """frames [start, stop) of the time axis"""
    key: str
    """`pipelines.conversion.plan.ShardTask.key` at the time of writing"""
    object_name: str
    """name of the shard in the store, such as `t2m/c/0/0/0`"""
    bytes: int
    """size of the object"""
    checksum: str
    """`checksum` of the object"""
    sources: tuple[dict[str, Any], ...]
    """`uri`, `size` and `etag` of every file that was read"""
    moments: np.ndarray
    """float64 (stop - start, channels, 6), see `pipelines.stores.moments.MOMENTS`"""
    converter_version: str
    """`pipelines.stores.shards.CONVERTER_VERSION` at the time of writing"""
    owner: str
    """user, host and process that wrote the shard"""
    written_at: str
    """time in UTC, ISO 8601"""
    unreadable: tuple[dict[str, Any], ...] = ()
    """runs of frames that could not be read, each with `frame` (the first, counted from `start`),
    `frames` (how many), `file` and `reason`"""

    def unreadable_frames(self) -> np.ndarray:
        """Return the frames of the time axis that could not be read, int64 (n,)."""
        runs = [
            self.start + np.arange(run["frame"], run["frame"] + run["frames"], dtype=np.int64)
            for run in self.unreadable
        ]
        return np.concatenate([np.empty(0, np.int64), *runs])

    def outline(self) -> ShardRecord:
        """Return the record without moments and sources, whose size grows with the frames."""
        return replace(self, sources=(), moments=self.moments[:0].copy())

    def to_bytes(self) -> bytes:
        """Return the record as JSON."""
        data = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return json.dumps(data | {"moments": _pack(self.moments)}, indent=1).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> ShardRecord:
        """Return the record that `to_bytes` wrote; raise ValueError if `data` is not a record."""
        content = json.loads(data)
        try:
            content["moments"] = _unpack(content["moments"])
            content["sources"] = tuple(content["sources"])
            content["unreadable"] = tuple(content.get("unreadable", ()))
            return cls(**content)
        except (TypeError, KeyError, zlib.error) as error:
            raise ValueError(f"not a ledger record: {error}") from None


@dataclass(frozen=True)
class Ledger:
    """The ledger of one store."""

    store: str

    def read(self, variable: str, shards: Iterable[int]) -> Iterator[ShardRecord]:
        """Yield the records of `shards` that exist, in the given order.

        A damaged record counts as missing. The records are read a few at a time, so that memory
        does not grow with the number of shards.
        """
        left = iter(shards)
        while some := list(islice(left, _AT_A_TIME)):
            yield from self._read_some(variable, some)

    def _read_some(self, variable: str, shards: Sequence[int]) -> Iterator[ShardRecord]:
        uri = places.join(self.store, LEDGER_FOLDER, variable)
        fs, folder = places.filesystem(uri)
        paths = [f"{folder}/{shard:06d}.json" for shard in shards]

        def read() -> dict[str, Any]:
            fs.invalidate_cache()
            answers: Any = fs.cat(paths, on_error="return", **places.one_request(fs))
            for answer in answers.values():
                if isinstance(answer, Exception) and not isinstance(answer, FileNotFoundError):
                    raise answer
            return answers

        found = places.ask(uri, "reading", read)
        for path in paths:
            content = found.pop(path)
            if isinstance(content, FileNotFoundError):
                continue
            try:
                record = ShardRecord.from_bytes(content)
            except ValueError:
                continue
            yield record

    def commit(self, record: ShardRecord) -> None:
        """Write one record. Its shard must have been written before."""
        name = f"{record.shard:06d}.json"
        place = places.join(self.store, LEDGER_FOLDER, record.variable, name)
        places.write_bytes(place, record.to_bytes(), durable=False)

    def read_plan(self) -> dict[str, Any] | None:
        """Return the summary of the last plan, or None if no conversion was begun."""
        try:
            return json.loads(places.read_bytes(places.join(self.store, LEDGER_FOLDER, PLAN)))
        except FileNotFoundError:
            return None
        except ValueError:
            raise StoreError(
                "the plan summary of the store is damaged",
                where=places.join(self.store, LEDGER_FOLDER, PLAN),
                remedy="remove the store and convert again",
            ) from None

    def write_plan(self, summary: Mapping[str, Any]) -> None:
        """Replace the summary of the plan."""
        places.write_bytes(
            places.join(self.store, LEDGER_FOLDER, PLAN), json.dumps(summary, indent=1).encode()
        )


def _pack(moments: np.ndarray) -> dict[str, Any]:
    data = zlib.compress(np.ascontiguousarray(moments, "<f8").tobytes(), 1)
    return {"shape": list(moments.shape), "zlib_float64": base64.b64encode(data).decode()}


def _unpack(packed: Mapping[str, Any]) -> np.ndarray:
    data = zlib.decompress(base64.b64decode(packed["zlib_float64"]))
    return np.frombuffer(data, "<f8").reshape(packed["shape"])


def checksum(*pieces: bytes) -> str:
    """Return the xxh3-128 of the concatenated pieces, in hexadecimal."""
    import xxhash

    digest = xxhash.xxh3_128()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def utc_now() -> str:
    """Return the time now, for records only: nothing else may depend on it."""
    return datetime.datetime.fromtimestamp(time.time(), datetime.UTC).isoformat("T", "seconds")


def object_sizes(store: str, variable: str = "") -> dict[str, int]:
    """Return the size in bytes of every object of one variable, by its name in the store.

    Parameters
    ----------
    store
        URI of the store.
    variable
        Name of the variable, or a folder below it. Empty: all objects of the store.
    """
    above = f"{variable}/" if variable else ""
    found = places.objects(places.join(store, *variable.split("/")) if variable else store)
    return {f"{above}{name}": int(info["size"]) for name, info in found.items()}


def read_or_none(uri: str) -> bytes | None:
    """Return the bytes of an object; None if it is missing, or if a folder has its name."""
    try:
        return places.read_bytes(uri)
    except (FileNotFoundError, IsADirectoryError):
        return None
