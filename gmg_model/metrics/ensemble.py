"""Protocol ``ensemble``: scores of forecasts with several members.

Array axes: N windows, M members, T lead times, C channels, H rows, W columns.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gmg_model.metrics.streaming import Curve, Field, StreamingMetrics, Sums, by_lead


class EnsembleMetrics(StreamingMetrics):
    """Fair CRPS, spread and error of the ensemble mean, rank histogram.

    ``update(members, true)`` takes members (N, M, T, C, H, W) and truth (N, T, C, H, W); M is at
    least 2 and the same in every batch.

    - ``crps_fair``: ``mean |x_i - y| - mean over pairs i != j of |x_i - x_j| / 2`` (Ferro 2014), in
      units of the data: unbiased by the number of members.
    - ``rmse_ensemble_mean``: root of the pooled square error of the members' mean.
    - ``spread``: root of the pooled variance of the members, M - 1 below.
    - ``spread_skill``: ``sqrt((M + 1) / M) * spread / rmse_ensemble_mean`` (Fortin et al. 2014): 1
      for members that cannot be told from the truth, below 1 if they are too sure.
    - curve ``rank_histogram``: share of the pixels whose truth has 0, 1, ... M members below it.
      A truth that equals k members counts 1 / (k + 1) in each of the k + 1 ranks it may take: no
      draw, so that the histogram is repeatable.

    Pixels that are NaN in the truth are left out; a member that is NaN where the truth exists makes
    the scores NaN.
    """

    def check_shapes(self, pred: tuple[int, ...], true: tuple[int, ...]) -> None:
        if len(pred) != 6 or (pred[0], *pred[2:]) != true:
            raise ValueError(
                f"an ensemble {pred} and its truth {true} must be (N, M, T, C, H, W) and "
                "(N, T, C, H, W)"
            )
        if pred[1] < 2:
            raise ValueError(
                f"an ensemble of {pred[1]} has no spread: give at least 2 members, or score it "
                "with protocol strict"
            )

    def batch_sums(self, pred: Field, true: Field, climatology: Field | None) -> Sums:
        count = pred.shape[1]
        valid = ~np.isnan(true)
        ordered = np.sort(np.moveaxis(np.where(valid[:, None], pred, 0.0), 1, 0), axis=0)
        truth = np.where(valid, true, 0.0)
        mean = ordered.mean(axis=0)
        distance = np.abs(ordered - truth).mean(axis=0)
        # Sum over pairs i < j of x_j - x_i, of members in order: each counts by its place.
        place = 2.0 * np.arange(count) - (count - 1)
        pairs = np.tensordot(place, ordered, axes=1)
        error = mean - truth
        return {
            "pixels": by_lead(valid),
            "crps": by_lead(distance - pairs / (count * (count - 1))),
            "squared": by_lead(error * error),
            "variance": by_lead(ordered.var(axis=0, ddof=1)),
            "ranks": _ranks(ordered, truth, valid),
        }

    def scores(self, sums: Sums) -> Sums:
        members = sums["ranks"].shape[-1] - 1
        rmse = np.sqrt(sums["squared"] / sums["pixels"])
        spread = np.sqrt(sums["variance"] / sums["pixels"])
        return {
            "crps_fair": sums["crps"] / sums["pixels"],
            "rmse_ensemble_mean": rmse,
            "spread": spread,
            "spread_skill": np.sqrt((members + 1) / members) * spread / rmse,
        }

    def curves(self, sums: Sums) -> Sums:
        return {"rank_histogram": sums["ranks"] / sums["pixels"][..., None]}

    def axis_of(self, curve: str, sums: Sums) -> Curve:
        ranks = sums["ranks"].shape[-1]
        return Curve("members below the truth", "members", tuple(float(r) for r in range(ranks)))


def _ranks(ordered: Field, truth: Field, valid: NDArray[np.bool_]) -> Field:
    """Pixels by the rank of their truth, (T, M + 1); members in order along the first axis."""
    members, _, leads = ordered.shape[:3]
    below = (ordered < truth).sum(axis=0)
    equal = (ordered == truth).sum(axis=0)
    bins = members + 2
    first = np.arange(leads)[:, None, None, None] * bins + below
    weight = np.where(valid, 1.0 / (equal + 1), 0.0)
    # Weight goes in at the first rank that the truth may take and out after the last one.
    size = leads * bins
    enters = np.bincount(first.ravel(), weight.ravel(), size)
    leaves = np.bincount((first + equal + 1).ravel(), weight.ravel(), size)
    ranks = (enters - leaves).reshape(leads, bins).cumsum(axis=1)[:, :-1]
    broken = np.isnan(ordered[-1]).any(axis=(0, 2, 3, 4))
    return np.where(broken[:, None], np.nan, ranks)
