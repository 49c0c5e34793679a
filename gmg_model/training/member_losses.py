"""Losses over the members of an ensemble, which teach a model to use its noise.

A loss of single forecasts is least if the model ignores its noise. A loss over members is least, on
average, if the members are draws from the distribution of the truth given the input. Axes:
b sample, m member, t frame, c channel, h row, w column.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from gmg_model.errors import ConfigurationError, nearest
from gmg_model.training.losses import Loss, in_float32


def crps(pred_bmtchw: Tensor, true_btchw: Tensor, *, fairness: float = 1.0) -> Tensor:
    """Return the continuous ranked probability score, a mean over pixels, in frame units: (B,).

    `mean |x_i - y| - s * mean over pairs i != j of |x_i - x_j| / 2` with
    `s = 1 - (1 - fairness) / M` for M members.

    Parameters
    ----------
    pred_bmtchw:
        (B, M, T, C, H, W), M at least 2.
    fairness:
        1: the fair score (Ferro 2014), unbiased by the number of members. It does not see one
        member that drifts while all others equal the truth. 0: the score of the M members as they
        are, which is better if they are closer together. Between: the almost fair score (Lang et
        al. 2024, with 0.95).

    Examples
    --------
    >>> members = torch.tensor([0.0, 2.0]).view(1, 2, 1, 1, 1, 1)
    >>> crps(members, torch.ones(1, 1, 1, 1, 1))
    tensor([0.])
    """
    count = pred_bmtchw.shape[1]
    distance = (pred_bmtchw - true_btchw[:, None]).abs().mean(1)
    # With members sorted, the sum over pairs i < j of x_j - x_i counts each by its place.
    place = 2.0 * torch.arange(count, device=pred_bmtchw.device) - (count - 1)
    ordered = pred_bmtchw.sort(dim=1).values
    pairs = (place.to(ordered).view(-1, 1, 1, 1, 1) * ordered).sum(1)
    share = 1 - (1 - fairness) / count
    return (distance - share * pairs / (count * (count - 1))).flatten(1).mean(1)


_MEMBER_LOSSES = {"crps": crps}


def list_member_losses() -> tuple[str, ...]:
    """Return the names that `create_member_loss` knows, sorted."""
    return tuple(sorted(_MEMBER_LOSSES))


def create_member_loss(name: str, **options: Any) -> Loss:
    """Return the loss called `name`: prediction (B, M, T, C, H, W), truth (B, T, C, H, W) -> (B,).

    Parameters
    ----------
    options:
        Of crps: `fairness`, see `crps`.

    Raises
    ------
    ConfigurationError
        The name is unknown, or an option does not fit. The loss itself raises it for shapes that do
        not fit.
    """
    if name not in _MEMBER_LOSSES:
        raise ConfigurationError(
            f"no loss over members is called {name!r}: {nearest(name, list_member_losses())}"
        )
    _check(name, **options)
    measure = partial(_MEMBER_LOSSES[name], **options)

    def loss(pred_bmtchw: Tensor, true_btchw: Tensor) -> Tensor:
        shape = tuple(pred_bmtchw.shape)
        if len(shape) != 6 or (shape[0], *shape[2:]) != tuple(true_btchw.shape) or shape[1] < 2:
            raise ConfigurationError(
                f"members {shape} and truth {tuple(true_btchw.shape)} must be (B, M, T, C, H, W), "
                "M at least 2, and (B, T, C, H, W)"
            )
        return in_float32(measure, pred_bmtchw, true_btchw)

    return loss


def _check(name: str, fairness: float = 1.0, **others: Any) -> None:
    if others:
        raise ConfigurationError(f"loss {name} has no option {next(iter(others))!r}: fairness")
    if not 0 <= fairness <= 1:
        raise ConfigurationError(f"fairness={fairness}: give a number from 0 to 1")
