"""Ensembles whose members differ only by the noise that they read.

A model made with `noise=n` reads n channels of standard-normal noise beside each patch frame. It
learns to use them from a loss over members that rewards an honest spread, such as the continuous
ranked probability score or the energy score. A loss of single forecasts would teach it to ignore
them. Axes: b sample, m member, t frame, c channel, h row, w column; K numbers make a key.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from gmg_model.errors import ConfigurationError


def draw_noise(keys_bk: Tensor, steps: int, channels: int, height: int, width: int) -> Tensor:
    """Draw standard-normal noise (B, steps, channels, height, width), float32 on the CPU.

    Row i depends on `keys_bk[i]` alone: not on the rest of the batch, nor on the model's device.
    The noise of more steps begins with that of fewer steps.

    Parameters
    ----------
    keys_bk:
        (B, K) whole numbers from 0; each row is the seed of one stream of noise.
    """
    shape = (steps, channels, height, width)
    rows = [
        np.random.default_rng(key).standard_normal(shape, dtype=np.float32)
        for key in keys_bk.tolist()
    ]
    return torch.from_numpy(np.stack(rows))


def window_keys(seed: int, numbers: Sequence[int] | np.ndarray, step: int | None = None) -> Tensor:
    """Return the noise keys of some windows: rows (seed, step, number), or (seed, number).

    Parameters
    ----------
    numbers:
        (b,) the number of each window, from 0: its lane in training, its first frame in validation.
    step:
        The training step; None in validation, where the noise is the same at each one.
    """
    ahead = (seed,) if step is None else (seed, step)
    return torch.tensor([(*ahead, int(number)) for number in numbers])


def member_keys(keys_bk: Tensor, members: int) -> Tensor:
    """Return a noise key per member, those of a sample together: (B, K) -> (B * members, K + 1)."""
    numbers = torch.arange(members, dtype=keys_bk.dtype, device=keys_bk.device)
    return torch.cat(
        [keys_bk.repeat_interleave(members, 0), numbers.repeat(len(keys_bk))[:, None]], 1
    )


class EnsembleForecaster(nn.Module):
    """A model that is called `model(frames, horizon, noise_keys=...)`.

    Parameters
    ----------
    noise:
        Number of channels of noise; 0: the model is deterministic.
    """

    def __init__(self, *, noise: int = 0):
        super().__init__()
        self.noise = noise

    @torch.no_grad()
    def predict(
        self,
        frames: Tensor,
        horizon: int,
        members: int = 1,
        seed: int = 0,
        samples: Sequence[int] | None = None,
    ) -> Tensor:
        """Make an ensemble forecast: frames (B, T, C, H, W) -> (B, members, horizon, C, H, W).

        The model runs in evaluation mode without gradients; its mode is restored afterwards. Member
        m of a sample depends only on the sample's frames, `seed`, m and the sample's number in
        `samples`: not on the rest of the batch, nor on the number of members.

        Parameters
        ----------
        members:
            Number of forecasts per sample; more than 1 needs a model with `noise`.
        seed:
            Seed of the noise, from 0.
        samples:
            A number from 0 for each sample, such as the start of its window in the archive. Samples
            with different numbers get independent noise. None: all samples get the same noise.

        Raises
        ------
        ConfigurationError
            If several members of a model without noise are requested, or an argument does not fit.
        """
        batch = len(frames)
        if members < 1:
            raise ConfigurationError(f"members={members} forecasts of each sample: give 1 or more")
        if members > 1 and not self.noise:
            raise ConfigurationError(
                f"members={members} of a model without noise would be {members} times the same "
                "forecast: make the model with noise=4 (channels) and train it with a loss over "
                "members, or give members=1"
            )
        numbers = [0] * batch if samples is None else [int(number) for number in samples]
        if len(numbers) != batch:
            raise ConfigurationError(
                f"samples has {len(numbers)} numbers for a batch of {batch}: give one per sample"
            )
        if min([seed, *numbers]) < 0:
            raise ConfigurationError(f"seed={seed} and samples must be 0 or more")
        modes = {module: module.training for module in self.modules()}
        self.eval()
        try:
            return torch.stack(
                [self._member(frames, horizon, member, seed, numbers) for member in range(members)],
                dim=1,
            )
        finally:
            for module, training in modes.items():
                module.training = training

    def _noise(self, noise_keys: Tensor | None, steps: int, patches_btchw: Tensor) -> Tensor:
        """Return the noise of each step, zeros without keys: (B, steps, noise, h, w)."""
        batch, (height, width) = len(patches_btchw), patches_btchw.shape[-2:]
        if noise_keys is None:
            if self.noise and self.training and torch.is_grad_enabled():
                raise ConfigurationError(
                    f"a model with noise={self.noise} cannot learn to use its noise from zeros: "
                    "give noise_keys, and a loss over members, or make the model with noise=0"
                )
            return patches_btchw.new_zeros(batch, steps, self.noise, height, width)
        if not self.noise:
            raise ConfigurationError("noise_keys need a model that is made with noise=1 or more")
        if noise_keys.ndim != 2 or len(noise_keys) != batch:
            raise ConfigurationError(
                f"noise_keys has shape {tuple(noise_keys.shape)}: give ({batch}, K) for a batch of "
                f"{batch}"
            )
        return draw_noise(noise_keys, steps, self.noise, height, width).to(patches_btchw)

    def _member(
        self, frames: Tensor, horizon: int, member: int, seed: int, numbers: list[int]
    ) -> Tensor:
        if not self.noise:
            return self(frames, horizon)
        keys_bk = torch.tensor([(seed, member, number) for number in numbers])
        return self(frames, horizon, noise_keys=keys_bk)
