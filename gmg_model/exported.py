"""A trained forecaster in one folder: weights and JSON, read with PyTorch, NumPy and safetensors.

`weights.safetensors`  the weights; static fields on the grid that the model was made for; and the
                       normals of a model that forecasts anomalies
`model.json`           model and options, normalisation, variables, window, versions, and the
                       size and sha256 of the weights

Reading the folder executes nothing in it: neither file can hold code.

Axes: b sample, t frame, c channel, h row, w column.
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
from gmg_model.normals import Normals, frame_times

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
"""the required parts of `model.json`, each with its type"""


class ExportedForecaster:
    """`forecaster(frames, horizon)` from physical units to physical units.

    Attributes
    ----------
    record:
        The content of `model.json`: `variables`, `window`, `versions`, `frame_seconds`
        (seconds between frames, both observed and forecast; None for clips), ...
    labels:
        (C,) names of the channels, in the order in which frames hold them.
    static:
        (S,) names of the static fields that the model reads beside the frames. Their values are in
        the folder.
    normals:
        Definition, in words, of the climatological normals of a model that forecasts departures
        from them; such a model needs the time of the newest frame. None for other models.
    """

    def __init__(self, record: dict[str, Any], tensors: dict[str, torch.Tensor]):
        import torch

        from gmg_model.models.static_inputs import parameters_of, saved_fields
        from gmg_model.registry import create_model

        self.record = record
        normalisation = record["normalisation"]
        self.labels: tuple[str, ...] = tuple(normalisation["labels"])
        shape = (len(self.labels), 1, 1)
        self._offset_c11 = np.asarray(normalisation["offset"], np.float32).reshape(shape)
        self._scale_c11 = np.asarray(normalisation["scale"], np.float32).reshape(shape)
        known = normalisation.get("normals")
        self.normals: str | None = known and known.get("definition", "")
        self._normals: Normals | None = Normals.saved(known, tensors) if known else None
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
        """Move the model to a device, `"cuda"` for example, and return this forecaster."""
        import torch

        self._device = torch.device(device)
        self._model.to(self._device)
        return self

    def __call__(
        self, frames: np.ndarray, horizon: int | None = None, newest: Any = None
    ) -> np.ndarray:
        """Forecast the frames that follow some observed ones.

        Parameters
        ----------
        frames:
            (T, C, H, W) or (B, T, C, H, W) in physical units, `record["frame_seconds"]` apart,
            the newest last; T is at least the number of input frames in training. Missing pixels
            are NaN. The model sees the mean (or minimum) of the train period in their place, or the
            normal if it has `normals`, as in training. A pixel that is missing in all T frames is
            NaN in the forecast too.
        horizon:
            Number of frames to forecast, 1 or more. None: as many as in training.
        newest:
            Time of the newest frame, in UTC (for traffic: local time), or (B,) such times. Only a
            model with `normals` reads it.

        Returns
        -------
        np.ndarray
            (horizon, C, H, W) or (B, horizon, C, H, W) float32 in the same units.

        Raises
        ------
        ConfigurationError
            The frames have another shape than in training, are too few, hold infinite pixels or no
            value at all; `horizon` is not a whole number of 1 or more; or the model needs
            `newest` and it is missing or not a time.
        """
        import torch

        frames = np.asarray(frames)
        self._check_shape(frames)
        steps = _whole_number(self.record["window"]["horizon"] if horizon is None else horizon)
        single = frames.ndim == 4
        frames_btchw = frames[None] if single else frames
        missing_btchw = np.isnan(frames_btchw)
        _check_has_values(missing_btchw, single)
        normalised_btchw = self._normalised(frames_btchw)
        samples, observed = normalised_btchw.shape[:2]
        usual_btchw = self._usual(newest, samples, observed, steps)
        if usual_btchw is not None:
            normalised_btchw -= usual_btchw[:, :observed]
        normalised_btchw = np.nan_to_num(normalised_btchw)
        with torch.inference_mode():
            given = torch.from_numpy(normalised_btchw).to(self._device)
            forecast_btchw = self._model(given, steps).float().cpu().numpy()
        if usual_btchw is not None:
            forecast_btchw += usual_btchw[:, observed:]
        physical = np.add(np.multiply(forecast_btchw, self._scale_c11), self._offset_c11)
        never_seen = missing_btchw.all(axis=1, keepdims=True)
        physical[np.broadcast_to(never_seen, physical.shape)] = np.nan
        return physical[0] if single else physical

    def _check_shape(self, frames: np.ndarray) -> None:
        """Raise ConfigurationError unless the shape and the number of frames fit the model."""
        wanted = (len(self.labels), *self.record["grid"])
        if frames.ndim not in (4, 5) or frames.shape[-3:] != wanted:
            raise ConfigurationError(
                f"frames have shape {frames.shape}; give (T, C, H, W) or (B, T, C, H, W) with "
                f"C, H, W = {wanted}: {', '.join(self.labels)} on the grid of the training"
            )
        count, needed = frames.shape[-4], self.record["window"]["input_frames"]
        if count < needed:
            raise ConfigurationError(
                f"{count} frames, and the model was trained to forecast from {needed}: give "
                f"{needed} or more"
            )

    def _normalised(self, frames_btchw: np.ndarray) -> np.ndarray:
        """Return normalised frames (B, T, C, H, W) float32; raise ConfigurationError on infinity.

        The arithmetic is that of training, operation by operation, so that a forecast equals that
        of the checkpoint bit for bit.
        """
        shifted = np.subtract(frames_btchw, self._offset_c11, dtype=np.float32, casting="same_kind")
        normalised = np.multiply(shifted, np.float32(1) / self._scale_c11)
        infinite = np.isinf(normalised).sum()
        if infinite:
            raise ConfigurationError(f"infinite pixels ({infinite}): mark missing ones with NaN")
        return normalised

    def _usual(self, newest: Any, samples: int, observed: int, steps: int) -> np.ndarray | None:
        """Return the normals of all frames, (B, T + horizon, C, H, W), if the model has normals."""
        if self._normals is None:
            return None
        seconds = self.record["frame_seconds"]
        return self._normals.at(frame_times(newest, samples, observed, steps, seconds))


def _check_has_values(missing_btchw: np.ndarray, single: bool) -> None:
    """Raise ConfigurationError if all pixels of a sample are missing."""
    empty = np.flatnonzero(missing_btchw.all(axis=(1, 2, 3, 4)))
    if empty.size:
        which = "the frames have" if single else f"sample {empty[0]} of the batch has"
        raise ConfigurationError(f"{which} no value: there is nothing to forecast from")


def _whole_number(horizon: Any) -> int:
    """Return a horizon as an int; raise ConfigurationError unless it is a whole number from 1."""
    try:
        steps = operator.index(horizon)
    except TypeError:
        steps = 0
    if steps < 1:
        raise ConfigurationError(f"horizon={horizon!r}: give a whole number of 1 or more")
    return steps


def load_exported(folder: str | Path) -> ExportedForecaster:
    """Read a folder that `jobs/export.py` wrote and return its forecaster.

    >>> forecaster = load_exported("exported")  # doctest: +SKIP
    >>> forecast = forecaster(frames_in_kelvin, horizon=12)  # doctest: +SKIP

    Raises
    ------
    ConfigurationError
        The folder is incomplete, damaged or of another format, or this version cannot make the
        model.
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
        raise ConfigurationError(f"cannot make the model of {folder}: {error}") from error


def problem_of(record: Any, form: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the content of a `model.json`, or None if it has the form.

    >>> problem_of({"format": 2}, FORM)
    'it has format 2; this version reads format 1'
    >>> problem_of({"format": 1, "grid": [4, 4]}, {"grid": list, "window": {"horizon": int}})
    "'model.json' has no 'window'"
    """
    if not isinstance(record, dict):
        return f"'{RECORD}' is not a JSON object"
    if record.get("format") != FORMAT:
        return f"it has format {record.get('format')}; this version reads format {FORMAT}"
    part = _missing_part(record, form)
    return f"'{RECORD}' has no '{part}'" if part else None


def _missing_part(
    record: Mapping[str, Any], form: Mapping[str, Any], parent: str = ""
) -> str | None:
    """Return the first part of a form that is missing in a record or has another type."""
    for name, kind in form.items():
        held: Any = record.get(name)
        if not isinstance(held, dict if isinstance(kind, Mapping) else kind):
            return parent + name
        if isinstance(kind, Mapping):
            part = _missing_part(held, kind, f"{parent}{name}.")
            if part:
                return part
    return None


def write_exported(folder: str | Path, record: dict[str, Any], weights: bytes) -> None:
    """Write the folder that `load_exported` reads, without PyTorch.

    `model.json` is written last, so that an interrupted export has none.

    Parameters
    ----------
    record:
        `model` (name, overrides), `normalisation` (labels, offset, scale), `grid` (H, W),
        `window` (input_frames, horizon, stride); `static` (labels, ...) if the weights have
        static fields, named `static/<label>`; `frame_seconds`, and `normals` in the
        normalisation, if the weights have `normals/table`; further parts as wanted.
    weights:
        The content of a safetensors file with the model's parameters by name.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(weights)
    sum_of = {"bytes": len(weights), "sha256": hashlib.sha256(weights).hexdigest()}
    text = json.dumps({"format": FORMAT, **record, "weights": sum_of}, indent=1)
    (folder / RECORD).write_text(text + "\n")
