"""Static fields: maps that do not change with time (land and sea, orography).

A model made with `static_channels=S` reads S more channels beside each frame that it is fed,
including its own outputs, and does not forecast them. They are the same at all steps of a rollout.
The caller passes them once, either with a call or for all calls. Axes: b sample, t frame, s static
field, c channel, h row, w column; p is the patch size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from gmg_model.errors import ConfigurationError
from gmg_model.layers.patches import GridPadding, patchify

PREFIX = "static/"
"""Prefix of a static field's name in a file of weights, where it lies beside the parameters."""


def saved_fields(tensors: Mapping[str, Tensor], names: Iterable[str]) -> Tensor:
    """Return the static fields in a file of weights, (S, H, W), in the order of `names`."""
    return torch.stack([tensors[PREFIX + name] for name in names])


def parameters_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict in a file of weights: all but `static/...` and `normals/...`."""
    return {name: value for name, value in tensors.items() if "/" not in name}


class StaticInputs:
    """The static fields of one model.

    Parameters
    ----------
    channels:
        Their number S; 0: the model reads none.
    """

    def __init__(self, channels: int = 0):
        self.channels = channels
        self._bound: Tensor | None = None

    def bind(self, fields_shw: Tensor) -> None:
        """Set the fields (S, H, W) of every call that passes none."""
        if fields_shw.ndim != 3:
            raise ConfigurationError(
                f"static fields have shape {tuple(fields_shw.shape)}: give (fields, height, width)"
            )
        self._check(fields_shw.shape[0], tuple(fields_shw.shape))
        self._bound = fields_shw.detach()

    def patches(
        self, frames_btchw: Tensor, given: Tensor | None, padding: GridPadding, patch_size: int
    ) -> Tensor | None:
        """Return the fields as a step reads them, (B, p*p*S, h, w); None if the model reads none.

        Parameters
        ----------
        frames_btchw:
            Frames of the rollout. The fields must have their grid; they are cast to their type and
            moved to their device.
        given:
            (S, H, W) for all samples or (B, S, H, W); None: those of `bind`.

        Raises
        ------
        ConfigurationError
            The fields are missing, or do not fit the model or the frames.
        """
        if not self.channels and given is None:
            return None
        fields = self._on(frames_btchw) if given is None else given.to(frames_btchw)
        shape = tuple(fields.shape)
        if fields.ndim not in (3, 4):
            raise ConfigurationError(
                f"static fields have shape {shape}: give (fields, height, width) or (samples, "
                "fields, height, width)"
            )
        self._check(shape[-3], shape)
        batch, size = len(frames_btchw), tuple(frames_btchw.shape[-2:])
        if shape[-2:] != size or (fields.ndim == 4 and shape[0] != batch):
            raise ConfigurationError(
                f"static fields of {shape[-2]} x {shape[-1]} (shape {shape}) do not fit {batch} "
                f"samples of {size[0]} x {size[1]}"
            )
        fields = fields if fields.ndim == 4 else fields[None]
        patches = patchify(padding.pad(fields), patch_size)
        return patches.expand(batch, -1, -1, -1)

    def _on(self, frames_btchw: Tensor) -> Tensor:
        if self._bound is None:
            raise ConfigurationError(
                f"this model reads static_channels={self.channels} beside its frames: call it with "
                "static=(fields, height, width), or set them for all calls with bind_static"
            )
        # The copy on the frames' device is kept, so that the fields are moved only once. It is made
        # outside of inference mode, because training cannot use tensors that were made inside.
        with torch.inference_mode(False):
            self._bound = self._bound.to(device=frames_btchw.device, dtype=frames_btchw.dtype)
        return self._bound

    def _check(self, fields: int, shape: tuple[int, ...]) -> None:
        if fields != self.channels:
            raise ConfigurationError(
                f"{fields} static fields (shape {shape}) for a model that was made with "
                f"static_channels={self.channels}"
            )


def beside_frames(static_bchw: Tensor | None, noise_btchw: Tensor) -> Tensor:
    """Return what each step reads beside its patch frame, fields, then noise: (B, T, c, h, w)."""
    if static_bchw is None:
        return noise_btchw
    static_btchw = static_bchw[:, None].expand(-1, noise_btchw.shape[1], -1, -1, -1)
    if not noise_btchw.shape[2]:
        return static_btchw
    return torch.cat([static_btchw, noise_btchw], dim=2)
