"""What scores are of: the model, its training and its store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.timeline.splits import split_text

if TYPE_CHECKING:
    from jobs.training.run.checkpoints import Checkpoint
    from pipelines.stores.store import Store


@dataclass(frozen=True)
class Provenance:
    """Which model was scored, on which store, and how it was trained."""

    store_uri: str
    title: str
    """title of the store"""
    archive: str
    synthetic: bool
    """whether a program made the data"""
    checkpoint_uri: str
    model: str
    """name of the model"""
    step: int
    """training steps of the checkpoint"""
    epoch: int | None
    """None if an exported folder does not say"""
    options: dict[str, Any]
    """options of the training"""
    train_period: tuple[str, str]
    """first and last time of the train split"""
    fingerprint: str
    """checksum of the statistics of the store"""
    normals: str | None = None
    """definition of the climatology that the anomalies depart from; None if the model does not
    forecast anomalies"""
    history: tuple[tuple[int, float], ...] = ()
    """(step, training loss) of the run that the checkpoint belongs to"""

    @classmethod
    def of(
        cls, checkpoint: Checkpoint, store: Store, history: Sequence[dict[str, Any]]
    ) -> Provenance:
        """Return that of a checkpoint, scored on a store, with the history of its run."""
        return cls(
            store_uri=store.uri,
            title=store.title,
            archive=str(store.attributes.get("archive", "")),
            synthetic=store.synthetic,
            checkpoint_uri=checkpoint.uri,
            model=checkpoint.record["model"]["name"],
            step=checkpoint.step,
            epoch=checkpoint.record.get("epoch"),
            options=checkpoint.configuration,
            train_period=split_text(store.statistics["period"]),
            fingerprint=store.fingerprint,
            normals=checkpoint.record["normalisation"].get("normals", {}).get("definition"),
            history=tuple((record["step"], record["loss"]) for record in history),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the history, as `scores.json` holds it."""
        return {key: value for key, value in vars(self).items() if key != "history"}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Provenance:
        """Return that of a `scores.json`; empty values for what only the page needs."""
        first, last = record.get("train_period") or ("", "")
        return cls(
            store_uri=record["store_uri"],
            title=record["title"],
            archive=record["archive"],
            synthetic=record["synthetic"],
            checkpoint_uri=record["checkpoint_uri"],
            model=record["model"],
            step=record["step"],
            epoch=record.get("epoch"),
            options=record.get("options", {}),
            train_period=(first, last),
            fingerprint=record["fingerprint"],
            normals=record.get("normals"),
        )
