"""A trained forecaster in one folder: weights and JSON, read with PyTorch, NumPy and safetensors.

``weights.safetensors``  the weights, and the static fields on the grid that the model was made for,
                         and the normals of a model of anomalies
``model.json``           model and options, normalisation, variables, window, versions, and the
                         size and sha256 of the weights

Nothing in it is executed when it is read.
"""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gmg_model.errors import ConfigurationError
from gmg_model.normals import Normals, moments

if TYPE_CHECKING:
    import torch

FORMAT = 1
RECORD = "model.json"
WEIGHTS = "weights.safetensors"
FORM: dict[str, Any] = {
    "model": {"name": str, "overrides": dict},
    "normalisation": {"labels": list, "offset": list, "scale": list},
    "grid": list,
    "window": {"input_frames": int, "horizon": int},
    "weights": {"sha256": str},
}
"""what every ``model.json`` holds, part by part, with the type of each"""


class ExportedForecaster:
    """``forecaster(frames, horizon)`` from physical units to physical units.

    Attributes
    ----------
    record:
        What ``model.json`` says: ``variables``, ``window``, ``versions``, ``frame_seconds`` (the
        time between frames, those given and those forecast; None of clips), ...
    labels:
        (C,) names of the channels, in the order in which frames hold them.
    static:
        (S,) names of the static fields that the model reads besides; the folder holds them.
    normals:
        In words, what is usual at a time, of a model that forecasts departures from it and has to
        be told the time of the newest frame; None of others.
    """

    def __init__(self, record: dict[str, Any], tensors: dict[str, torch.Tensor]):
        import torch

        from gmg_model.models.static_inputs import parameters_of, saved_fields
        from gmg_model.registry import create_model

        self.record = record
        normalisation = record["normalisation"]
        self.labels: tuple[str, ...] = tuple(normalisation["labels"])
        shape = (len(self.labels), 1, 1)
        self._offset = np.asarray(normalisation["offset"], np.float32).reshape(shape)
        self._scale = np.asarray(normalisation["scale"], np.float32).reshape(shape)
        known = normalisation.get("normals")
        self.normals: str | None = known and known.get("definition", "")
        self._normals: Normals | None = None
        if known:
            self._normals = Normals.saved(known, tensors)
        choice = record["model"]
        overrides = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in choice["overrides"].items()
        }
        model: Any = create_model(choice["name"], **overrides)
        model.load_state_dict(parameters_of(tensors))
        self.static: tuple[str, ...] = tuple(record.get("static", {}).get("labels", ()))
        if self.static:
            model.bind_static(saved_fields(tensors, self.static))
        self._model = model.eval()
        self._device = torch.device("cpu")

    def to(self, device: str | torch.device) -> ExportedForecaster:
        """Move the model, to ``"cuda"`` for example; returns itself."""
        import torch

        self._device = torch.device(device)
        self._model.to(self._device)
        return self

    def __call__(
        self, frames: np.ndarray, horizon: int | None = None, newest: Any = None
    ) -> np.ndarray:
        """Forecast the frames after some observed ones.

        Parameters
        ----------
        frames:
            (T, C, H, W) or (B, T, C, H, W) in physical units, ``record["frame_seconds"]`` apart;
            the last is the newest. Missing pixels are NaN: the model sees the mean (or minimum) of
            the train period there, of anomalies what is usual, as in training; one that no frame
            has is NaN in the forecast too. At least as many as it was trained with.
        horizon:
            Frames to forecast, 1 or more; None: as many as it was trained for.
        newest:
            Time of the newest frame, UTC (of traffic the clocks there), or (B,) such times; only a
            model with `normals` reads it.

        Returns
        -------
        np.ndarray
            (horizon, C, H, W) or (B, horizon, C, H, W) float32 in the same units.

        Raises
        ------
        ConfigurationError
            The frames have another shape than those that it was trained on, are too few, hold
            infinite pixels or no value at all, there is no such horizon, or no time of the newest
            frame where one is wanted.
        """
        import torch

        frames = np.asarray(frames)
        wanted = (len(self.labels), *self.record["grid"])
        if frames.ndim not in (4, 5) or frames.shape[-3:] != wanted:
            raise ConfigurationError(
                f"frames have shape {frames.shape}; give (T, C, H, W) or (B, T, C, H, W) with "
                f"C, H, W = {wanted}: {', '.join(self.labels)} on the grid it was trained on"
            )
        count, needed = frames.shape[-4], self.record["window"]["input_frames"]
        if count < needed:
            raise ConfigurationError(
                f"{count} frames, and it was trained to forecast from {needed}"
            )
        steps = _whole_number(self.record["window"]["horizon"] if horizon is None else horizon)
        single = frames.ndim == 4
        btchw = frames[None] if single else frames
        missing = np.isnan(btchw)
        empty = np.flatnonzero(missing.all(axis=(1, 2, 3, 4)))
        if empty.size:
            which = "the frames have" if single else f"sample {empty[0]} of the batch has"
            raise ConfigurationError(f"{which} no value: there is nothing to forecast from")
        normalised = np.subtract(btchw, self._offset, dtype=np.float32, casting="same_kind")
        normalised = np.multiply(normalised, np.float32(1) / self._scale)
        infinite = np.isinf(normalised).sum()
        if infinite:
            raise ConfigurationError(f"infinite pixels ({infinite}): mark missing ones with NaN")
        usual = None
        if self._normals is not None:
            size = len(normalised), count, steps
            usual = self._normals.at(moments(newest, *size, self.record["frame_seconds"]))
            normalised -= usual[:, :count]
        normalised = np.nan_to_num(normalised)
        with torch.inference_mode():
            given = torch.from_numpy(normalised).to(self._device)
            forecast = self._model(given, steps).float().cpu().numpy()
        if usual is not None:
            forecast += usual[:, count:]
        physical = np.add(np.multiply(forecast, self._scale), self._offset)
        unseen = missing.all(axis=1, keepdims=True)
        physical[np.broadcast_to(unseen, physical.shape)] = np.nan
        return physical[0] if single else physical


def _whole_number(horizon: Any) -> int:
    """A horizon; ConfigurationError unless it is a whole number of 1 or more."""
    try:
        steps = operator.index(horizon)
    except TypeError:
        steps = 0
    if steps < 1:
        raise ConfigurationError(f"horizon={horizon!r}: give a whole number of 1 or more")
    return steps


def load_exported(folder: str | Path) -> ExportedForecaster:
    """Read a folder that ``jobs/export.py`` wrote.

    >>> forecaster = load_exported("exported")  # doctest: +SKIP
    >>> forecast = forecaster(frames_in_kelvin, horizon=12)  # doctest: +SKIP

    Raises
    ------
    ConfigurationError
        The folder is incomplete, damaged or of another format, or this version has no such model.
    """
    from safetensors.torch import load

    folder = Path(folder)
    try:
        record = json.loads((folder / RECORD).read_text())
        data = (folder / WEIGHTS).read_bytes()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"no exported model in {folder}: {error}") from None
    if problem := problem_of(record, FORM):
        raise ConfigurationError(f"no exported model in {folder}: {problem}")
    if hashlib.sha256(data).hexdigest() != record["weights"]["sha256"]:
        raise ConfigurationError(f"{folder / WEIGHTS} is damaged: export the model again")
    try:
        return ExportedForecaster(record, load(data))
    except (ValueError, TypeError, RuntimeError) as error:
        raise ConfigurationError(f"no model can be made of {folder}: {error}") from error


def problem_of(record: Any, form: Mapping[str, Any]) -> str | None:
    """What keeps a ``model.json`` from being read, in words; None where it has the form.

    >>> problem_of({"format": 2}, FORM)
    'it has format 2; this version reads format 1'
    >>> problem_of({"format": 1, "grid": [4, 4]}, {"grid": list, "window": {"horizon": int}})
    "'model.json' has no 'window'"
    """
    if not isinstance(record, dict):
        return f"'{RECORD}' is no JSON object"
    if record.get("format") != FORMAT:
        return f"it has format {record.get('format')}; this version reads format {FORMAT}"
    lacking = _lacking(record, form)
    return f"'{RECORD}' has no '{lacking}'" if lacking else None


def _lacking(record: Mapping[str, Any], form: Mapping[str, Any], parent: str = "") -> str | None:
    """The first part of a form that a record lacks, or holds as something else."""
    for name, kind in form.items():
        held: Any = record.get(name)
        if not isinstance(held, dict if isinstance(kind, Mapping) else kind):
            return parent + name
        if isinstance(kind, Mapping) and (part := _lacking(held, kind, f"{parent}{name}.")):
            return part
    return None


def write_exported(folder: str | Path, record: dict[str, Any], weights: bytes) -> None:
    """Write the folder that `load_exported` reads; ``model.json`` last. Needs no PyTorch.

    Parameters
    ----------
    record:
        ``model`` (name, overrides), ``normalisation`` (labels, offset, scale), ``grid`` (H, W),
        ``window`` (input_frames, horizon, stride), ``static`` (labels, ...) where the weights have
        static fields, ``static/<label>``, ``frame_seconds`` and ``normals`` of the normalisation
        where they have ``normals/table``, and whatever else is worth knowing.
    weights:
        A file of safetensors with the model's parameters by name.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(weights)
    sum_of = {"bytes": len(weights), "sha256": hashlib.sha256(weights).hexdigest()}
    text = json.dumps({"format": FORMAT, **record, "weights": sum_of}, indent=1)
    (folder / RECORD).write_text(text + "\n")
