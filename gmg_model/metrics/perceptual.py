"""Protocol ``perceptual``: LPIPS and FVD over features that the caller gives.

The networks whose features the literature uses are not part of this package: a feature function is
any function from frames or clips to features, and its name becomes part of the score's name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gmg_model.errors import ConfigurationError
from gmg_model.metrics.streaming import Field, StreamingMetrics, Sums, as_float64, frames_in

FrameFeatures = Callable[[Tensor], Sequence[Any]]
"""Frames (n, C, H, W), float32 on the host, to layers of features (n, C_l, H_l, W_l)."""
ClipFeatures = Callable[[Tensor], Any]
"""Clips (n, T, C, H, W), float32 on the host, to one row of features each, (n, D)."""

SMALLEST_NORM = 1e-10


class PerceptualMetrics(StreamingMetrics):
    """LPIPS of frames and Frechet video distance of whole clips.

    - ``lpips_<name>``: mean over frames of the distance of Zhang et al. (2018, Eq. 1): features of
      each layer scaled to unit length over channels, squared difference, weighted by channel,
      summed over channels, averaged over space, summed over layers.
    - ``fvd_<name>`` (Unterthiner et al. 2018): squared Frechet distance
      ``|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))`` of the Gaussians with the mean and the sample
      covariance of the clips' features, over all leads only. It wants many more clips than features
      have dimensions; of fewer than two clips it is NaN.

    A NaN in forecast or truth makes the scores NaN. Pickled, an accumulator leaves its functions
    behind: it can be merged and read, not updated.

    Parameters
    ----------
    name:
        Of the features, for the scores' names: ``"i3d"``, ``"vgg16"``.
    frame_features, clip_features:
        At least one of the two. They get values as `update` does, in float32, and scale them and
        move them to their device as they need.
    layer_weights:
        For LPIPS: one array (C_l,) a layer, which multiplies the squared differences; None: 1.
    """

    windows_at_once = None

    def __init__(
        self,
        name: str,
        frame_features: FrameFeatures | None = None,
        clip_features: ClipFeatures | None = None,
        layer_weights: Sequence[Any] | None = None,
    ):
        super().__init__()
        if frame_features is None and clip_features is None:
            raise ConfigurationError(
                "give frame_features (for LPIPS), clip_features (for FVD) or both: functions that "
                "this package does not have"
            )
        self.name = name
        self._features = {"frame": frame_features, "clip": clip_features}
        self._weights = None if layer_weights is None else [as_float64(w) for w in layer_weights]

    def options(self) -> Mapping[str, Any]:
        weights = self._weights
        return {
            "name": self.name,
            "layer_weights": None if weights is None else [w.tolist() for w in weights],
        }

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_features": {}}

    def batch_sums(self, pred: Field, true: Field, climatology: Field | None) -> Sums:
        if not self._features:
            raise ConfigurationError(
                "this accumulator came from another process without its feature functions: merge "
                "it into one that has them"
            )
        forecast, truth = (torch.from_numpy(x.astype(np.float32)) for x in (pred, true))
        frame_features, clip_features = self._features["frame"], self._features["clip"]
        sums: Sums = {}
        with torch.no_grad():
            if frame_features is not None:
                distance = self._distance(
                    frame_features(forecast.flatten(0, 1)), frame_features(truth.flatten(0, 1))
                ).reshape(true.shape[:2])
                sums |= {"frames": frames_in(true), "lpips": distance.sum(axis=0)}
            if clip_features is not None:
                for side, clips in (("forecast", forecast), ("truth", truth)):
                    rows = as_float64(clip_features(clips))
                    sums |= {
                        f"clips_{side}": np.array([float(len(rows))]),
                        f"feature_{side}": rows.sum(axis=0)[None],
                        f"product_{side}": (rows.T @ rows)[None],
                    }
        return sums

    def scores(self, sums: Sums) -> Sums:
        if "lpips" not in sums:
            return {}
        return {f"lpips_{self.name}": sums["lpips"] / sums["frames"]}

    def result(self) -> dict[str, Any]:
        """As every protocol's; FVD, which has no leads, only over all of them."""
        result = super().result()
        if "clips_truth" in self._sums:
            moments = [self._moments(side) for side in ("forecast", "truth")]
            result["overall"][f"fvd_{self.name}"] = frechet_distance(*moments[0], *moments[1])
        return result

    def _moments(self, side: str) -> tuple[Field, Field]:
        count = self._sums[f"clips_{side}"][0]
        mean = self._sums[f"feature_{side}"][0] / count
        spread = self._sums[f"product_{side}"][0] - count * np.outer(mean, mean)
        return mean, spread / (count - 1) if count > 1 else np.full_like(spread, np.nan)

    def _distance(self, pred: Sequence[Any], true: Sequence[Any]) -> Field:
        """(n,) distances from layers of features."""
        weights = self._weights or [np.ones(1)] * len(true)
        if len(weights) != len(true):
            raise ConfigurationError(
                f"layer_weights has {len(weights)} layers and the features have {len(true)}"
            )
        total: Any = 0.0
        for weight, *layers in zip(weights, pred, true, strict=True):
            unit = [values / _length(values) for values in map(as_float64, layers)]
            squared = (unit[0] - unit[1]) ** 2 * weight[:, None, None]
            total = total + squared.sum(axis=1).mean(axis=(1, 2))
        return total


def frechet_distance(
    mean: Field,
    covariance: Field,
    other_mean: Field,
    other_covariance: Field,
) -> float:
    """Squared Frechet distance of two Gaussians: means (D,), covariances (D, D).

    >>> frechet_distance(np.zeros(1), np.eye(1), np.array([3.0]), 4 * np.eye(1))
    10.0
    """
    if not (np.isfinite(covariance).all() and np.isfinite(other_covariance).all()):
        return float("nan")
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    # S1 S2 and root(S1) S2 root(S1) share their eigenvalues; the latter is symmetric.
    shared = np.linalg.eigvalsh(root @ other_covariance @ root)
    trace = np.trace(covariance) + np.trace(other_covariance)
    trace -= 2 * np.sqrt(np.maximum(shared, 0.0)).sum()
    return float(((mean - other_mean) ** 2).sum() + trace)


def _length(features: Field) -> Field:
    return np.sqrt((features**2).sum(axis=1, keepdims=True)) + SMALLEST_NORM
