"""The shard ledger: one record an output shard, written after the shard.

Resume, append, filling of gaps, statistics and verification are queries of these records. They lie
under ``<store>/.ledger/<variable>/<shard>.json``, out of sight of Zarr readers.
"""

from __future__ import annotations

import base64
import json
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
"""records that are read, and held, at once"""


@dataclass(frozen=True, eq=False)
class ShardRecord:
    """What is known of one shard that was written."""

    variable: str
    shard: int
    start: int
    stop: int
    """frames of the time axis, half open"""
    key: str
    """:attr:`pipelines.conversion.plan.ShardTask.key` at the time of writing"""
    object_name: str
    bytes: int
    checksum: str
    """xxh3-128 of the object's bytes, in hexadecimal"""
    sources: tuple[dict[str, Any], ...]
    """uri, size and etag of every file that was read"""
    moments: np.ndarray
    """float64 (stop - start, channels, 6), see :mod:`pipelines.stores.statistics`"""
    converter_version: str
    owner: str
    """user, host and process that wrote it"""
    written_at: str
    """UTC"""
    unreadable: tuple[dict[str, Any], ...] = ()
    """runs that could not be read: first frame of the shard, number of frames, file and reason"""

    def unreadable_frames(self) -> np.ndarray:
        """Frames of the time axis that could not be read, int64 (n,)."""
        runs = [
            self.start + np.arange(run["frame"], run["frame"] + run["frames"], dtype=np.int64)
            for run in self.unreadable
        ]
        return np.concatenate([np.empty(0, np.int64), *runs])

    def outline(self) -> ShardRecord:
        """The record without moments and sources: what a conversion remembers of a shard."""
        return replace(self, sources=(), moments=self.moments[:0].copy())

    def to_bytes(self) -> bytes:
        """The record as JSON."""
        data = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return json.dumps(data | {"moments": _pack(self.moments)}, indent=1).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> ShardRecord:
        """The inverse of :meth:`to_bytes`; ValueError where it is no record."""
        content = json.loads(data)
        try:
            content["moments"] = _unpack(content["moments"])
            content["sources"] = tuple(content["sources"])
            content["unreadable"] = tuple(content.get("unreadable", ()))
            return cls(**content)
        except (TypeError, KeyError, zlib.error) as error:
            raise ValueError(f"no ledger record: {error}") from None


@dataclass(frozen=True)
class Ledger:
    """The ledger of one store."""

    store: str

    def read(self, variable: str, shards: Iterable[int]) -> Iterator[ShardRecord]:
        """The records that exist, in the given order; a damaged record counts as absent.

        A few at a time are asked for, and held.
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
        """Write one record; its shard must already stand."""
        name = f"{record.shard:06d}.json"
        place = places.join(self.store, LEDGER_FOLDER, record.variable, name)
        places.write_bytes(place, record.to_bytes(), durable=False)

    def read_plan(self) -> dict[str, Any] | None:
        """The summary of the last plan; None where no conversion was begun."""
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
