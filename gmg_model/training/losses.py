"""Losses by name. Each returns one number per sample: a mean over frames, channels and pixels.

A loss is a mean per sample and not per batch, so that a trainer can weigh samples, average over a
global batch, and report each sample. Axes: b sample, t frame, c channel, h row, w column.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gmg_model.errors import ConfigurationError, nearest

Loss = Callable[[Tensor, Tensor], Tensor]
"""`loss(prediction (B, T, C, H, W), truth (B, T, C, H, W)) -> (B,)`, in float32 or better"""


def mse(pred_btchw: Tensor, true_btchw: Tensor) -> Tensor:
    """Return the mean square error, in squared units of the frames: (B,).

    Examples
    --------
    >>> mse(torch.zeros(1, 1, 1, 1, 2), torch.tensor([1.0, 2.0]).view(1, 1, 1, 1, 2))
    tensor([2.5000])
    """
    return _mean((pred_btchw - true_btchw).square())


def l1(pred_btchw: Tensor, true_btchw: Tensor) -> Tensor:
    """Return the mean absolute error, in units of the frames: (B,)."""
    return _mean((pred_btchw - true_btchw).abs())


def l1_and_l2(pred_btchw: Tensor, true_btchw: Tensor) -> Tensor:
    """Return mean absolute error + mean square error: GMG's loss (Section IV-A of the paper)."""
    error = pred_btchw - true_btchw
    return _mean(error.abs() + error.square())


def bce(pred_btchw: Tensor, true_btchw: Tensor) -> Tensor:
    """Return the binary cross-entropy of values in [0, 1], in nats (SRVP's loss): (B,).

    Predictions outside [0, 1] count as 0 or 1. Logarithms are bounded below by -100.
    """
    inside = pred_btchw.clamp(0, 1)
    return _mean(F.binary_cross_entropy(inside, true_btchw, reduction="none"))


def gdl(pred_btchw: Tensor, true_btchw: Tensor) -> Tensor:
    """Return the gradient difference loss, in units of the frames: (B,).

    It is the mean along rows plus the mean along columns of `| |grad true| - |grad pred| |`
    (Mathieu et al. 2016, with exponent 1), where `grad` is the difference of neighbouring pixels.
    """
    parts = []
    for axis in (-2, -1):
        steps = [frames.diff(dim=axis).abs() for frames in (true_btchw, pred_btchw)]
        parts.append(_mean((steps[0] - steps[1]).abs()))
    return parts[0] + parts[1]


def l1_l2_and_gdl(pred_btchw: Tensor, true_btchw: Tensor) -> Tensor:
    """Return GMG's loss plus the gradient difference, for sharper frames at some cost in MSE."""
    return l1_and_l2(pred_btchw, true_btchw) + gdl(pred_btchw, true_btchw)


HKO7_THRESHOLDS = (0.4624, 0.5511, 0.6181, 0.7245)
"""rain of 2, 5, 10 and 30 mm/h (Shi et al. 2017) on frames in [0, 1] that stand for -10 to 60 dBZ,
by HKO-7's relation dBZ = 10 log10(58.53) + 15.6 log10(mm/h)"""
BALANCED_WEIGHTS = (1.0, 2.0, 5.0, 10.0, 30.0)
"""weights of rain below the first threshold, between the first and the second, ..."""


def balanced(
    pred_btchw: Tensor,
    true_btchw: Tensor,
    *,
    squared: float,
    absolute: float,
    thresholds: Sequence[float] = HKO7_THRESHOLDS,
    weights: Sequence[float] = BALANCED_WEIGHTS,
) -> Tensor:
    """Return B-MSE and B-MAE (Shi et al. 2017): errors weigh more where the truth is strong: (B,).

    It is the mean of `w(true) * (squared * error^2 + absolute * |error|)`, not divided by the mean
    weight. The forecast with the least B-MSE is not the expected value but E[w y] / E[w], which is
    larger if weights grow with y. So forecasts of strong events gain hits, while the plain MSE and
    the bias get worse: report these beside the scores of events.

    Parameters
    ----------
    squared, absolute:
        Shares of the square error and the absolute error.
    thresholds:
        Values at which the weight changes, rising, in units of the frames that the model is given.
    weights:
        One more than thresholds: a true value from thresholds[i - 1] to below thresholds[i] has
        weights[i].
    """
    bounds = true_btchw.new_tensor(thresholds)
    steps = true_btchw.new_tensor(weights)
    weight = steps[torch.bucketize(true_btchw.contiguous(), bounds, right=True)]
    error = pred_btchw - true_btchw
    return _mean(weight * (squared * error.square() + absolute * error.abs()))


_LOSSES: dict[str, Loss] = {
    "l1": l1,
    "mse": mse,
    "l1+l2": l1_and_l2,
    "l1+l2+gdl": l1_l2_and_gdl,
    "gdl": gdl,
    "bce": bce,
}
_BALANCED: dict[str, Callable[..., Tensor]] = {
    "balanced-mse": partial(balanced, squared=1.0, absolute=0.0),
    "balanced-l1": partial(balanced, squared=0.0, absolute=1.0),
    "balanced-l1+l2": partial(balanced, squared=1.0, absolute=1.0),
}


def list_losses() -> tuple[str, ...]:
    """Return the names that `create_loss` knows, sorted."""
    return tuple(sorted([*_LOSSES, *_BALANCED]))


def create_loss(name: str, **options: Any) -> Loss:
    """Return the loss called `name`.

    Parameters
    ----------
    options:
        Of the balanced losses: `thresholds` and `weights`, see `balanced`.

    Raises
    ------
    ConfigurationError
        The name is unknown, or an option does not fit. The loss itself raises it if prediction and
        truth differ in shape.
    """
    if name in _BALANCED:
        _check_balanced(name, **options)
        measure: Loss = partial(_BALANCED[name], **options)
    elif name not in _LOSSES:
        raise ConfigurationError(f"no loss is called {name!r}: {nearest(name, list_losses())}")
    elif options:
        raise ConfigurationError(
            f"loss {name} has no options, and {', '.join(sorted(options))} was given: losses with "
            f"thresholds and weights are {', '.join(_BALANCED)}"
        )
    else:
        measure = _LOSSES[name]

    def loss(pred_btchw: Tensor, true_btchw: Tensor) -> Tensor:
        if pred_btchw.shape != true_btchw.shape:
            raise ConfigurationError(
                f"prediction {tuple(pred_btchw.shape)} and truth {tuple(true_btchw.shape)} "
                "must have one shape"
            )
        return in_float32(measure, pred_btchw, true_btchw)

    return loss


def in_float32(measure: Loss, pred: Tensor, true: Tensor) -> Tensor:
    """Return `measure` of prediction and truth in float32 or better.

    Sums over thousands of pixels need that precision, whatever autocast made of the prediction.
    """
    with torch.autocast(pred.device.type, enabled=False):
        wide = torch.promote_types(pred.dtype, torch.float32)
        return measure(pred.to(wide), true.to(wide))


def _check_balanced(
    name: str,
    thresholds: Sequence[float] = HKO7_THRESHOLDS,
    weights: Sequence[float] = BALANCED_WEIGHTS,
    **others: Any,
) -> None:
    if others:
        raise ConfigurationError(
            f"loss {name} has no option {next(iter(others))!r}: known: thresholds, weights"
        )
    if not thresholds or any(a >= b for a, b in pairwise(thresholds)):
        raise ConfigurationError(f"thresholds={tuple(thresholds)}: give one or more, rising")
    if len(weights) != len(thresholds) + 1 or min(weights) < 0 or not max(weights) > 0:
        raise ConfigurationError(
            f"weights={tuple(weights)} for {len(thresholds)} thresholds: give "
            f"{len(thresholds) + 1}, none below 0 and not all 0"
        )


def _mean(values_btchw: Tensor) -> Tensor:
    return values_btchw.flatten(1).mean(1)
