"""Protocol `perceptual`: LPIPS and FVD over features that the caller computes.

The networks whose features the literature uses (VGG, I3D) are not part of this package. A feature
function is any function from frames or clips to features, and its name becomes part of the score's
name. Array axes: N or n windows, frames or clips, T lead times, C channels, H rows, W columns,
D features.
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
"""From frames (n, C, H, W), float32 on the CPU, to one array (n, C_l, H_l, W_l) per layer l."""
ClipFeatures = Callable[[Tensor], Any]
"""From clips (n, T, C, H, W), float32 on the CPU, to one row of features per clip, (n, D)."""

SMALLEST_NORM = 1e-10
"""Added to the length of a feature vector so that a vector of zeros can be divided by it."""


class PerceptualMetrics(StreamingMetrics):
    """LPIPS of frames and Frechet video distance (FVD) of whole clips.

    - `lpips_<name>`: mean over frames of the distance of Zhang et al. (2018, Eq. 1). The features
      of each layer are scaled to unit length over channels; their squared difference is weighted by
      channel, summed over channels, averaged over space and summed over layers.
    - `fvd_<name>` (Unterthiner et al. 2018): squared Frechet distance
      `|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))` of the Gaussians with the mean and the sample
      covariance of the clips' features. It exists over all lead times only. It needs many more
      clips than a feature row has elements; of fewer than two clips it is NaN.

    A NaN in forecast or truth makes the scores NaN. Pickling drops the feature functions: a copy
    that was unpickled can be merged and read, but not updated.

    Parameters
    ----------
    name:
        Name of the features, which ends the scores' names: `"i3d"`, `"vgg16"`.
    frame_features, clip_features:
        The feature functions; at least one of the two is required. They receive the values that
        `update` receives, in float32, and must scale them and move them to their device themselves.
    layer_weights:
        For LPIPS: one array (C_l,) per layer, which multiplies the squared differences. None: 1.
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
                "give frame_features (for LPIPS), clip_features (for FVD) or both: this package "
                "has no feature networks of its own"
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
                "this accumulator was pickled, which dropped its feature functions: merge it into "
                "one that has them"
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
        """Return the scores as every protocol does; FVD only overall, not per lead time."""
        result = super().result()
        if "clips_truth" in self._sums:
            forecast, truth = (self._moments(side) for side in ("forecast", "truth"))
            result["overall"][f"fvd_{self.name}"] = frechet_distance(*forecast, *truth)
        return result

    def _moments(self, side: str) -> tuple[Field, Field]:
        """Return the mean (D,) and the sample covariance (D, D) of the clips' features."""
        count = self._sums[f"clips_{side}"][0]
        mean = self._sums[f"feature_{side}"][0] / count
        spread = self._sums[f"product_{side}"][0] - count * np.outer(mean, mean)
        return mean, spread / (count - 1) if count > 1 else np.full_like(spread, np.nan)

    def _distance(self, pred: Sequence[Any], true: Sequence[Any]) -> Field:
        """Return the LPIPS distances (n,) between the feature layers of two sets of frames."""
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
    """Return the squared Frechet distance of two Gaussians: means (D,), covariances (D, D).

    >>> frechet_distance(np.zeros(1), np.eye(1), np.array([3.0]), 4 * np.eye(1))
    10.0
    """
    if not (np.isfinite(covariance).all() and np.isfinite(other_covariance).all()):
        return float("nan")
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    # S1 S2 and root(S1) S2 root(S1) have the same eigenvalues, and the latter is symmetric, so that
    # no square root of a non-symmetric matrix is needed.
    shared = np.linalg.eigvalsh(root @ other_covariance @ root)
    trace = np.trace(covariance) + np.trace(other_covariance)
    trace -= 2 * np.sqrt(np.maximum(shared, 0.0)).sum()
    return float(((mean - other_mean) ** 2).sum() + trace)


def _length(features: Field) -> Field:
    return np.sqrt((features**2).sum(axis=1, keepdims=True)) + SMALLEST_NORM
