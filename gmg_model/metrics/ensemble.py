"""Protocol `ensemble`: scores of forecasts with several members.

Array axes: N windows, M members, T lead times, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gmg_model.metrics.streaming import Curve, Field, StreamingMetrics, Sums, by_lead


class EnsembleMetrics(StreamingMetrics):
    """Fair CRPS, spread and error of the ensemble mean, rank histogram, probabilities of events.

    `update(members, true)` takes members (N, M, T, C, H, W) and truth (N, T, C, H, W); M is at
    least 2 and the same in every batch.

    - `crps_fair`: `mean |x_i - y| - mean over pairs i != j of |x_i - x_j| / 2` (Ferro 2014), in
      units of the data: unbiased by the number of members.
    - `rmse_ensemble_mean`: root of the pooled squared error of the members' mean.
    - `spread`: root of the pooled sample variance of the members (divisor M - 1).
    - `spread_skill`: `sqrt((M + 1) / M) * spread / rmse_ensemble_mean` (Fortin et al. 2014): 1
      if the members cannot be told from the truth, below 1 if they are overconfident.
    - curve `rank_histogram`: share of the pixels whose truth has 0, 1, ... M members below it.
      A truth that equals k members counts 1 / (k + 1) in each of the k + 1 ranks it may take.
      Nothing is drawn at random, so the histogram is repeatable.
    - for each X of `thresholds`, with the probability p = share of the members that are >= X and
      the event o = truth >= X (0 or 1): `brier_X`, the pooled mean of (p - o)^2, which equals
      `brier_reliability_X` - `brier_resolution_X` + `brier_uncertainty_X` (Murphy 1973). The
      decomposition is exact because p takes M + 1 values only. The curve `reliability_X` is how
      often the event occurred when p was forecast, the curve `forecast_share_X` how often p was
      forecast.

    Pixels that are NaN in the truth are left out; a member that is NaN where the truth exists makes
    the scores NaN.

    Parameters
    ----------
    thresholds:
        Thresholds X of the events, in the units of the data. Empty: no probabilities are scored.
    """

    def __init__(self, thresholds: Sequence[float] = ()):
        super().__init__()
        self.thresholds = tuple(thresholds)

    def options(self) -> Mapping[str, Any]:
        return {"thresholds": self.thresholds}

    def check_shapes(self, pred: tuple[int, ...], true: tuple[int, ...]) -> None:
        if len(pred) != 6 or (pred[0], *pred[2:]) != true:
            raise ValueError(
                f"an ensemble {pred} and its truth {true} must be (N, M, T, C, H, W) and "
                "(N, T, C, H, W)"
            )
        if pred[1] < 2:
            raise ValueError(
                f"an ensemble of {pred[1]} cannot be scored: give at least 2 members, or use "
                "protocol strict"
            )

    def batch_sums(self, pred: Field, true: Field, climatology: Field | None) -> Sums:
        count = pred.shape[1]
        valid = ~np.isnan(true)
        ordered = np.sort(np.moveaxis(np.where(valid[:, None], pred, 0.0), 1, 0), axis=0)
        truth = np.where(valid, true, 0.0)
        mean = ordered.mean(axis=0)
        distance = np.abs(ordered - truth).mean(axis=0)
        # The sum over pairs i < j of x_j - x_i, without a double loop: among sorted members, the
        # k-th (from 0) is added k times and subtracted M - 1 - k times.
        factor = 2.0 * np.arange(count) - (count - 1)
        pairs = np.tensordot(factor, ordered, axes=1)
        error = mean - truth
        variance = by_lead(ordered.var(axis=0, ddof=1))
        sums = {
            "pixels": by_lead(valid),
            "crps": by_lead(distance - pairs / (count * (count - 1))),
            "squared": by_lead(error * error),
            "variance": variance,
            "variance_for_members": variance * (count + 1) / count,
            "ranks": _ranks(ordered, truth, valid),
        }
        for threshold in self.thresholds:
            sums |= _events(ordered, truth, valid, threshold)
        return sums

    def scores(self, sums: Sums) -> Sums:
        pixels = sums["pixels"]
        scores = {
            "crps_fair": sums["crps"] / pixels,
            "rmse_ensemble_mean": np.sqrt(sums["squared"] / pixels),
            "spread": np.sqrt(sums["variance"] / pixels),
            "spread_skill": np.sqrt(sums["variance_for_members"] / sums["squared"]),
        }
        for threshold in self.thresholds:
            scores[f"brier_{threshold}"] = sums[f"brier_{threshold}"] / pixels
            if f"forecasts_{threshold}" in sums:
                scores |= self._parts_of_brier(sums, threshold)
        return scores

    def _parts_of_brier(self, sums: Sums, threshold: float) -> Sums:
        forecasts, events = (sums[f"{kind}_{threshold}"] for kind in ("forecasts", "events"))
        pixels = sums["pixels"]
        probability = np.arange(forecasts.shape[-1]) / (forecasts.shape[-1] - 1)
        frequency = events / np.where(forecasts == 0, 1.0, forecasts)
        climate = events.sum(axis=-1) / pixels
        apart = (frequency - probability) ** 2, (frequency - climate[..., None]) ** 2
        reliability, resolution = ((forecasts * x).sum(axis=-1) / pixels for x in apart)
        return {
            f"brier_reliability_{threshold}": reliability,
            f"brier_resolution_{threshold}": resolution,
            f"brier_uncertainty_{threshold}": climate * (1 - climate),
        }

    def curves(self, sums: Sums) -> Sums:
        pixels = sums["pixels"][..., None]
        rows = {"rank_histogram": sums["ranks"] / pixels}
        for threshold in self.thresholds:
            forecasts = sums[f"forecasts_{threshold}"]
            rows[f"reliability_{threshold}"] = sums[f"events_{threshold}"] / forecasts
            rows[f"forecast_share_{threshold}"] = forecasts / pixels
        return rows

    def axis_of(self, curve: str, sums: Sums) -> Curve:
        ranks = sums["ranks"].shape[-1]
        if curve != "rank_histogram":
            shares = tuple(rank / (ranks - 1) for rank in range(ranks))
            return Curve("forecast probability", "1", shares)
        return Curve("members below the truth", "members", tuple(float(r) for r in range(ranks)))


def _ranks(ordered: Field, truth: Field, valid: NDArray[np.bool_]) -> Field:
    """Count pixels by the rank of their truth, (T, M + 1); members are sorted along axis 0."""
    members, _, leads = ordered.shape[:3]
    below = (ordered < truth).sum(axis=0)
    equal = (ordered == truth).sum(axis=0)
    bins = members + 2
    first = np.arange(leads)[:, None, None, None] * bins + below
    weight = np.where(valid, 1.0 / (equal + 1), 0.0)
    # Each pixel adds its weight at the first rank that its truth may take and subtracts it after
    # the last one; the cumulative sum then gives every rank in between its share.
    size = leads * bins
    enters = np.bincount(first.ravel(), weight.ravel(), size)
    leaves = np.bincount((first + equal + 1).ravel(), weight.ravel(), size)
    ranks = (enters - leaves).reshape(leads, bins).cumsum(axis=1)[:, :-1]
    # np.sort puts NaN last, so the last member shows whether any member is NaN.
    broken = np.isnan(ordered[-1]).any(axis=(0, 2, 3, 4))
    return np.where(broken[:, None], np.nan, ranks)


def _events(ordered: Field, truth: Field, valid: NDArray[np.bool_], threshold: float) -> Sums:
    """Return the sums of one event: squared error of its probability, pixels by probability."""
    members, _, leads = ordered.shape[:3]
    # NaN where a member is NaN: a broken member must not count as a forecast of "no event".
    above = (ordered >= threshold).sum(axis=0) + 0.0 * ordered[-1]
    event = truth >= threshold
    error = np.where(valid, above / members - event, 0.0)
    broken = np.isnan(above).any(axis=(0, 2, 3, 4))
    first = np.arange(leads)[:, None, None, None] * (members + 1)
    place = (first + np.nan_to_num(above)).astype(np.int64).ravel()
    size = leads * (members + 1)

    def rows(weight: NDArray[np.bool_]) -> Field:
        counts = np.bincount(place, weight.ravel(), size).reshape(leads, members + 1)
        return np.where(broken[:, None], np.nan, counts)

    return {
        f"brier_{threshold}": by_lead(error * error),
        f"forecasts_{threshold}": rows(valid),
        f"events_{threshold}": rows(event & valid),
    }
