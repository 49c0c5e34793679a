"""Checkpoints: weights and optimiser as safetensors, everything else as JSON. Nothing is unpickled.

A checkpoint is a folder `<run>/step_<n>`:

`weights.safetensors`   the weights to forecast with (the moving average if one is kept), the
                        normalised static fields that the model reads, as `static/<name>`, and the
                        normals of a model of anomalies, as `normals/table`
`training.safetensors`  the optimiser's moments, and the raw weights beside an average
`checkpoint.json`       step, options, normalisation, fingerprint of the store's statistics, and
                        the size and xxh3-128 checksum of the files beside it

The folder is complete when `checkpoint.json` is there and the sizes that it names fit, whatever
the order in which the storage received the files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from gmg_model.errors import ConfigurationError
from gmg_model.normals import TABLE, normals_table
from pipelines.errors import StoreError
from pipelines.inputs.normalisation import Normalisation
from pipelines.storage import places
from pipelines.stores.recipe import Recipe
from pipelines.stream.windows import WindowSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pipelines.inputs.static_fields import StaticFields

FORMAT = 1
RECORD = "checkpoint.json"
WEIGHTS = "weights.safetensors"
TRAINING = "training.safetensors"
PREFIX = "step_"
UNVALIDATED = "_unvalidated"
"""ends the name of a checkpoint that was written during the validation of its step"""


def directory_name(step: int, validating: bool = False) -> str:
    """Return the name of a checkpoint's folder in its run.

    Examples
    --------
    >>> directory_name(1200), directory_name(1200, validating=True)
    ('step_000001200', 'step_000001200_unvalidated')
    """
    return f"{PREFIX}{step:09d}{UNVALIDATED if validating else ''}"


def _age(name: str) -> tuple[str, bool]:
    """Return the key that sorts names of checkpoints, the latest last."""
    return name.removesuffix(UNVALIDATED), not name.endswith(UNVALIDATED)


@dataclass(frozen=True)
class Checkpoint:
    """A model, what it was trained on, and how its channels are normalised."""

    uri: str
    """URI of its folder"""
    record: dict[str, Any]
    """content of its `checkpoint.json`"""

    @property
    def step(self) -> int:
        """Optimisation steps done."""
        return self.record["step"]

    @property
    def epoch(self) -> int:
        """Whole epochs done."""
        return self.record["epoch"]

    @property
    def finished(self) -> bool:
        """Whether its training was finished."""
        return self.record["finished"]

    @property
    def validating(self) -> bool:
        """Whether it was written during a validation, which a resumed run does first."""
        return self.record.get("validating", False)

    @property
    def configuration(self) -> dict[str, Any]:
        """The resolved options of the run."""
        return self.record["options"]

    @property
    def variables(self) -> tuple[str, ...]:
        """Variables of the store, in the order of the model's channels."""
        return tuple(self.record["variables"])

    @property
    def window(self) -> WindowSpec:
        """Input frames, horizon and stride."""
        return WindowSpec(**self.record["window"])

    @cached_property
    def normalisation(self) -> Normalisation:
        """How frames are normalised. For a model of anomalies it reads the normals' table."""
        known = self.record["normalisation"]
        if "normals" not in known:
            return Normalisation.from_dict(known)
        try:
            table = normals_table(known["normals"], self.saved_tensors())
        except ConfigurationError as error:
            raise StoreError(
                str(error), where=self.uri, remedy="name another checkpoint, or export again"
            ) from None
        return Normalisation.from_dict(known, table)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the statistics of the store that it was trained on."""
        return self.record["statistics_fingerprint"]

    @property
    def recipe(self) -> Recipe | None:
        """How its frames were made from an archive; None if an earlier version wrote it."""
        known = self.record.get("store", {}).get("recipe")
        return Recipe(**known) if known else None

    @property
    def selection(self) -> dict[str, Any]:
        """Best validation so far, see `jobs.training.worker.validation.Selection`."""
        return self.record.get("selection", {})

    @property
    def skipped(self) -> int:
        """Steps left out so far because their loss or gradient was not finite."""
        return self.record.get("skipped", {}).get("total", 0)

    @property
    def validation_loss(self) -> float:
        """Loss of free-running forecasts on the validation split; NaN if not measured."""
        loss = self.record["validation_loss"]
        return math.nan if loss is None else loss

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The weights to forecast with, checked against their checksum."""
        from gmg_model.models.static_inputs import parameters_of

        return parameters_of(self.saved_tensors())

    def saved_tensors(self) -> dict[str, Tensor]:
        """Return the weights, the static fields and the normals, as in `weights.safetensors`."""
        from safetensors.torch import load

        return load(self.weights_file())

    def weights_file(self) -> bytes:
        """Return the bytes of `weights.safetensors`, checked against their checksum."""
        return self._sound(WEIGHTS)

    @property
    def static_names(self) -> tuple[str, ...]:
        """Static fields that the model reads beside every frame."""
        return tuple(self.record.get("static", {}).get("labels", ()))

    @property
    def training_tensors(self) -> dict[str, Tensor]:
        """The optimiser's state, checked against its checksum."""
        from safetensors.torch import load

        return load(self._sound(TRAINING))

    def model(self) -> nn.Module:
        """Return the model with its weights and static fields, in evaluation mode, on the CPU.

        Raises
        ------
        StoreError
            The files are damaged, or this version does not know the model.
        """
        from gmg_model import create_model
        from gmg_model.models.static_inputs import parameters_of, saved_fields

        choice = self.record["model"]
        overrides = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in choice["overrides"].items()
        }
        saved = self.saved_tensors()
        try:
            model: Any = create_model(choice["name"], **overrides)
            model.load_state_dict(parameters_of(saved))
        except (ConfigurationError, RuntimeError) as error:
            known = isinstance(error, ConfigurationError)
            raise StoreError(
                f"the model cannot be made: {error if known else 'these are not its weights'}",
                where=self.uri,
                remedy="use the version of the project that the record names; an exported folder "
                "can be exported again",
            ) from error
        if self.static_names:
            model.bind_static(saved_fields(saved, self.static_names))
        return model.eval()

    def damage(self) -> str | None:
        """Return the name of a file whose checksum is wrong, or None if all are sound."""
        return next((name for name in self.record["files"] if self._checked(name) is None), None)

    def _sound(self, name: str) -> bytes:
        """Return the bytes of a file, or raise StoreError if its checksum is wrong."""
        data = self._checked(name)
        if data is None:
            raise StoreError(
                f"'{name}' is damaged: its checksum is not the one recorded",
                where=self.uri,
                remedy="name another checkpoint; the training itself goes back to the one before",
            )
        return data

    def _checked(self, name: str) -> bytes | None:
        """Return the bytes of a file, or None if its checksum is wrong."""
        data = places.read_bytes(places.join(self.uri, name))
        expected = self.record["files"][name]["xxh3_128"]
        return data if xxhash.xxh3_128_hexdigest(data) == expected else None


def data_tensors(normalisation: Normalisation, fields: StaticFields | None) -> dict[str, Tensor]:
    """Return the tensors that a model needs besides its weights: normals and static fields."""
    import torch

    from gmg_model.models.static_inputs import PREFIX as FIELD_PREFIX

    found = {}
    if normalisation.normals is not None:
        found[TABLE] = torch.from_numpy(normalisation.normals.table)
    if fields is not None:
        named = zip(fields.names, fields.values_shw, strict=True)
        found |= {FIELD_PREFIX + name: torch.from_numpy(values_hw) for name, values_hw in named}
    return found


def write(
    folder: Path,
    record: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    training: Mapping[str, Tensor],
) -> None:
    """Write a checkpoint's files into a local folder, the record last."""
    from safetensors.torch import save

    files = {}
    for name, tensors in ((WEIGHTS, weights), (TRAINING, training)):
        data = save({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
        (folder / name).write_bytes(data)
        files[name] = {"bytes": len(data), "xxh3_128": xxhash.xxh3_128_hexdigest(data)}
    text = json.dumps({"format": FORMAT, **record, "files": files}, indent=1)
    (folder / RECORD).write_text(text)


def publish(folder: Path, uri: str) -> None:
    """Copy a checkpoint from a local folder to its place, the record last.

    The record of an earlier upload is deleted first. With other tensors beside it, the checkpoint
    would look complete.
    """
    places.delete(places.join(uri, RECORD))
    for name in (WEIGHTS, TRAINING, RECORD):
        places.write_bytes(places.join(uri, name), (folder / name).read_bytes())


def read(uri: str) -> Checkpoint | None:
    """Return the checkpoint in this folder, or None if it is missing or not complete."""
    try:
        record = json.loads(places.read_bytes(places.join(uri, RECORD)))
        fs, path = places.filesystem(uri)
        for name, file in record["files"].items():
            if fs.info(f"{path}/{name}")["size"] != file["bytes"]:
                return None
        version = record["format"]
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None
    if version != FORMAT:
        raise StoreError(
            f"a checkpoint of format {version}; this version reads format {FORMAT}",
            where=uri,
            remedy="use the version of the project that the record names",
        )
    return Checkpoint(places.absolute(uri), record)


def list_checkpoints(run: str) -> list[Checkpoint]:
    """Return the complete checkpoints of a run, by step."""
    found = (read(places.join(places.absolute(run), name)) for name in _names(run))
    return [item for item in found if item]


def _names(run: str) -> list[str]:
    """Return the names of the checkpoints' folders, complete or not, the latest last."""
    return sorted((name for name in places.names(run) if name.startswith(PREFIX)), key=_age)


def newest_sound(run: str, report: Callable[[str], None]) -> Checkpoint | None:
    """Return the newest checkpoint whose checksums are right; None if the run has no checkpoint.

    Damaged checkpoints that are newer are set aside: their record is renamed to
    `checkpoint.json.damaged`, and the training goes on from the one before as if they had not been
    written. Only the process that holds the run's lease may call this.

    Parameters
    ----------
    report:
        Called with a line for the user about each checkpoint that is set aside.

    Raises
    ------
    StoreError
        Every checkpoint of the run is damaged.
    """
    damaged: list[str] = []
    for name in reversed(_names(run)):
        uri = places.join(places.absolute(run), name)
        if not places.exists(places.join(uri, RECORD)):
            continue  # its upload did not end, or it was set aside before
        checkpoint = read(uri)
        if checkpoint and not checkpoint.damage():
            for other in damaged:
                report(f"{other} is damaged: set aside; going on from step {checkpoint.step}")
                _set_aside(other)
            return checkpoint
        damaged.append(uri)
    if damaged:
        raise StoreError(
            f"every checkpoint of this run is damaged ({len(damaged)})",
            where=run,
            remedy="restore one from a copy, or begin again with another --run",
        )
    return None


def _set_aside(uri: str) -> None:
    record = places.join(uri, RECORD)
    places.write_bytes(f"{record}.damaged", places.read_bytes(record))
    places.delete(record)


def load_checkpoint(uri: str) -> Checkpoint:
    """Return the checkpoint at `uri`, or the best of the run at `uri`.

    If no checkpoint of the run was validated, it is the latest.

    Raises
    ------
    StoreError
        There is no complete checkpoint.
    """
    checkpoint = read(uri)
    if checkpoint:
        return checkpoint
    found = list_checkpoints(uri)
    if not found:
        raise StoreError(
            "no complete checkpoint here",
            where=uri,
            remedy="give the --run of a training job that has written one, or its step_... folder",
        )
    validated = [item for item in found if not math.isnan(item.validation_loss)]
    return min(validated, key=lambda item: item.validation_loss) if validated else found[-1]
