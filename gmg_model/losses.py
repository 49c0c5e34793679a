"""Losses by name: each returns one number a sample, a mean over frames, channels and pixels.

A mean per sample and not per batch, so that a trainer may weigh samples, average over a global
batch and report each on its own. Axes: b sample, t frame, c channel, h row, w column.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from gmg_model.errors import ConfigurationError, nearest

Loss = Callable[[Tensor, Tensor], Tensor]
"""``loss(prediction (B, T, C, H, W), truth, same shape) -> (B,)``, in float32 or better."""


def mse(pred_btchw: Tensor, true_btchw: Tensor) -> Tensor:
    """Mean square error, in squared units of the frames.

    >>> mse(torch.zeros(1, 1, 1, 1, 2), torch.tensor([1.0, 2.0]).view(1, 1, 1, 1, 2))
    tensor([2.5000])
    """
    return _mean((pred_btchw - true_btchw).square())


def l1(pred_btchw: Tensor, true_btchw: Tensor) -> Tensor:
    """Mean absolute error, in units of the frames."""
    return _mean((pred_btchw - true_btchw).abs())


def l1_and_l2(pred_btchw: Tensor, true_btchw: Tensor) -> Tensor:
    """Mean absolute error + mean square error: GMG's loss (Section IV-A of the paper)."""
    error = pred_btchw - true_btchw
    return _mean(error.abs() + error.square())


def bce(pred_btchw: Tensor, true_btchw: Tensor) -> Tensor:
    """Binary cross-entropy of values in [0, 1], in nats (SRVP's loss).

    Predictions outside [0, 1] count as 0 or 1, and a logarithm is held above -100.
    """
    inside = pred_btchw.clamp(0, 1)
    return _mean(F.binary_cross_entropy(inside, true_btchw, reduction="none"))


def gdl(pred_btchw: Tensor, true_btchw: Tensor) -> Tensor:
    """Gradient difference: how much the differences of neighbouring pixels differ, in frame units.

    The mean along rows plus the mean along columns of ``| |grad true| - |grad pred| |``
    (Mathieu et al., 2016, with exponent 1).
    """
    parts = []
    for axis in (-2, -1):
        steps = [frames.diff(dim=axis).abs() for frames in (true_btchw, pred_btchw)]
        parts.append(_mean((steps[0] - steps[1]).abs()))
    return parts[0] + parts[1]


def l1_l2_and_gdl(pred_btchw: Tensor, true_btchw: Tensor) -> Tensor:
    """GMG's loss plus the gradient difference, for sharper frames at some cost in MSE."""
    return l1_and_l2(pred_btchw, true_btchw) + gdl(pred_btchw, true_btchw)


_LOSSES: dict[str, Loss] = {
    "l1": l1,
    "mse": mse,
    "l1+l2": l1_and_l2,
    "l1+l2+gdl": l1_l2_and_gdl,
    "gdl": gdl,
    "bce": bce,
}


def list_losses() -> tuple[str, ...]:
    """The names that `create_loss` knows, sorted."""
    return tuple(sorted(_LOSSES))


def create_loss(name: str) -> Loss:
    """The loss called ``name``.

    Raises
    ------
    ConfigurationError
        If there is none; from the loss itself, if prediction and truth differ in shape.
    """
    if name not in _LOSSES:
        raise ConfigurationError(f"no loss is called {name!r}: {nearest(name, _LOSSES)}")
    measure = _LOSSES[name]

    def loss(pred_btchw: Tensor, true_btchw: Tensor) -> Tensor:
        if pred_btchw.shape != true_btchw.shape:
            raise ConfigurationError(
                f"prediction {tuple(pred_btchw.shape)} and truth {tuple(true_btchw.shape)} "
                "must have one shape"
            )
        # Sums over thousands of pixels want float32 whatever autocast made of the prediction.
        with torch.autocast(pred_btchw.device.type, enabled=False):
            wide = torch.promote_types(pred_btchw.dtype, torch.float32)
            return measure(pred_btchw.to(wide), true_btchw.to(wide))

    return loss


def _mean(values_btchw: Tensor) -> Tensor:
    return values_btchw.flatten(1).mean(1)
