"""A trained model in either of its forms: a run with checkpoints, or an exported folder."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

from gmg_model.exported import FORM, RECORD, WEIGHTS, problem_of
from jobs.training.run.checkpoints import Checkpoint, load_checkpoint
from jobs.training.run.run_folder import read_history, run_of
from pipelines.errors import StoreError
from pipelines.storage import places
from pipelines.stores.recipe import Recipe

_FORM = {
    **FORM,
    "variables": list,
    "step": int,
    "trained_on": {"statistics_fingerprint": str},
}
"""the parts of `model.json` that are read here, beside those that `gmg_model` reads"""


class Exported(Checkpoint):
    """A folder that `jobs/export.py` wrote, with the interface of the checkpoint it came from."""

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the statistics of the store that it was trained on."""
        return self.record["trained_on"]["statistics_fingerprint"]

    @property
    def recipe(self) -> Recipe | None:
        """How its frames were made out of an archive; None if an earlier version exported it."""
        known = self.record.get("recipe")
        return Recipe(**known) if known else None

    @property
    def configuration(self) -> dict[str, Any]:
        """The options of the run; empty if the folder does not hold them."""
        return self.record.get("options", {})

    def weights_file(self) -> bytes:
        """Return the content of the file with the weights, checked against its checksum."""
        try:
            data = places.read_bytes(places.join(self.uri, WEIGHTS))
        except FileNotFoundError:
            raise StoreError(
                f"'{WEIGHTS}' is missing", where=self.uri, remedy="export the model again"
            ) from None
        if hashlib.sha256(data).hexdigest() != self.record["weights"]["sha256"]:
            raise StoreError(
                f"'{WEIGHTS}' is damaged: its checksum is not the one recorded",
                where=self.uri,
                remedy="export the model again",
            )
        return data


def load_trained(uri: str) -> Checkpoint:
    """Read the best checkpoint of a run, a single checkpoint, or an exported folder.

    Raises
    ------
    StoreError
        The place holds none of them, or the exported folder cannot be read.
    """
    try:
        record = json.loads(places.read_bytes(places.join(uri, RECORD)))
    except (FileNotFoundError, NotADirectoryError):
        return load_checkpoint(uri)
    except ValueError:
        raise StoreError(
            f"'{RECORD}' is damaged", where=uri, remedy="export the model again"
        ) from None
    if problem := problem_of(record, _FORM):
        raise StoreError(
            f"not an exported model: {problem}",
            where=uri,
            remedy="export the model again",
        )
    return Exported(places.absolute(uri), record)


def export_record(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what `model.json` of an exported folder says of a checkpoint."""
    known = checkpoint.record
    record = {key: known[key] for key in ("model", "normalisation", "variables", "window", "grid")}
    record |= {key: known[key] for key in ("static",) if key in known}
    store = known.get("store", {})
    cadence = store.get("cadence_seconds")
    return record | {
        "frame_seconds": cadence and cadence * checkpoint.window.stride,
        "recipe": store.get("recipe"),
        "trained_on": {
            "title": store.get("title"),
            "period": store.get("train_period"),
            "statistics_fingerprint": checkpoint.fingerprint,
        },
        "step": checkpoint.step,
        "epoch": checkpoint.epoch,
        "options": checkpoint.configuration,
        "validation_period": known.get("validation_period"),
        "validation_loss": known["validation_loss"],
        "versions": known.get("versions", {}),
    }


def selection_notes(trained: Checkpoint, split: str) -> list[str]:
    """Return notes if scores of a split may flatter the model, because its windows chose it.

    A run without validation keeps its latest checkpoint, so that no window chose it. A folder that
    an earlier version exported does not hold the validation period.
    """
    if split == "validation" and not math.isnan(trained.validation_loss):
        return [
            "the validation split has chosen this checkpoint among those of its run: its scores "
            "flatter the model, those of --split test do not"
        ]
    if not isinstance(trained, Exported) or "validation_period" in trained.record:
        return []
    return [
        "the exported model does not say which period chose its checkpoint: scores of that period "
        "would flatter it; export it again, or check that the periods differ"
    ]


def training_history(trained: Checkpoint) -> list[dict[str, Any]]:
    """Return the record of every step of the run; an exported folder has none."""
    return [] if isinstance(trained, Exported) else read_history(run_of(trained.uri))


def weights_checksum(trained: Checkpoint) -> str:
    """Return a checksum of the weights, with the name of its algorithm."""
    if isinstance(trained, Exported):
        return f"sha256:{trained.record['weights']['sha256']}"
    return f"xxh3_128:{trained.record['files'][WEIGHTS]['xxh3_128']}"
