"""The sums by day that scores are made of, kept beside them: what a paired comparison needs.

Two models that were scored on the same windows differ by what their scores differ by on the SAME
days drawn anew, which no interval of either alone can tell. The file is an npz without pickles:
an index as JSON, the units of the bootstrap, and one array (D, T, P) for each quantity, protocol
and forecast; the scores know its checksum. Legend: D days (or clips, or runs of them), T lead
times, P sums.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gmg_model.metrics import create_metrics
from jobs.forecasts.scoring.sums import GroupedSums, UnitSums, WindowGroups
from pipelines.storage import places

FORMAT = 1
_INDEX, _UNITS = "index", "units"


@dataclass(frozen=True, eq=False)
class DailySums:
    """The sums of one evaluation."""

    unit: str
    """what the units are, for people"""
    units: np.ndarray
    """(D,) int64: days since 1970, or numbers of runs of clips"""
    sums: dict[str, dict[str, dict[str, UnitSums]]]
    """[variable or level][protocol][forecast]"""
    options: dict[str, dict[str, dict[str, Any]]]
    """[variable or level][protocol]: options of the accumulators"""

    @classmethod
    def of(
        cls,
        groups: WindowGroups,
        labels: Sequence[str],
        options: Sequence[Mapping[str, Mapping[str, Any]]],
        sums: Sequence[Mapping[str, Mapping[str, GroupedSums]]],
        unit: str,
    ) -> DailySums:
        """Those of an evaluation, a variable or level after another."""
        return cls(
            unit,
            np.unique(groups.units),
            {
                label: {p: {s: x.by_unit() for s, x in by.items()} for p, by in found.items()}
                for label, found in zip(labels, sums, strict=True)
            },
            {
                label: {p: dict(given) for p, given in chosen.items()}
                for label, chosen in zip(labels, options, strict=True)
            },
        )

    @cached_property
    def content(self) -> bytes:
        """The file."""
        arrays: dict[str, np.ndarray] = {_UNITS: self.units}
        entries = []
        for label, protocols in self.sums.items():
            for protocol, systems in protocols.items():
                for system, found in systems.items():
                    entries.append([label, protocol, system, list(found.names)])
                    arrays[f"{len(entries) - 1}"] = found.packed_dtp
        index = {"format": FORMAT, "unit": self.unit, "options": self.options, "sums": entries}
        text = json.dumps(index, default=lambda values: np.asarray(values).tolist())
        arrays[_INDEX] = np.frombuffer(text.encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # pyright: ignore[reportArgumentType]
        return buffer.getvalue()

    @cached_property
    def sha256(self) -> str:
        """Of the file: by it scores know their own sums."""
        return hashlib.sha256(self.content).hexdigest()

    def write(self, uri: str) -> None:
        """Write the file."""
        places.write_bytes(uri, self.content)


def read_daily_sums(uri: str, sha256: str | None) -> DailySums | str:
    """Read the file, or say why nothing can be made of it.

    Parameters
    ----------
    sha256:
        Of the file that belongs to the scores; None: they do not say.
    """
    try:
        content = places.read_bytes(uri)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return "no sums by day"
    if sha256 is None:
        return "sums by day that an earlier version left, which may be another evaluation's,"
    if hashlib.sha256(content).hexdigest() != sha256:
        return "sums by day that are damaged or another evaluation's"
    with np.load(io.BytesIO(content), allow_pickle=False) as held:
        index = json.loads(held[_INDEX].tobytes())
        if index["format"] != FORMAT:
            return "sums by day of another version"
        options, sums = index["options"], {}
        for place, (label, protocol, system, names) in enumerate(index["sums"]):
            metrics = create_metrics(protocol, **options[label][protocol])
            found = UnitSums(metrics, tuple(names), held[f"{place}"])
            sums.setdefault(label, {}).setdefault(protocol, {})[system] = found
        return DailySums(index["unit"], held[_UNITS], sums, options)


def are_daily_sums(content: bytes, *, damaged: bool) -> bool:
    """Whether a file is one of sums by day, of whatever version.

    Parameters
    ----------
    damaged:
        The answer for what cannot be read.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as held:
            return {_INDEX, _UNITS} <= {*held.files}
    except Exception:  # NumPy and zip files have errors of their own
        return damaged
